"""Every loss of the chapter at any temperature, in half precision, for rows of zeros and of any size."""

import math

import pytest
import torch
from self_supervision.contrastive.helpers import Tiny, pictures, rows

from labcode.loss import unit_rows
from labcode.self_supervision import contrastive as C


def fixed(z, n, seed):
    """n rows that are not trained, in z's precision or single."""
    return rows(n, seed=seed).to(torch.float64 if z.dtype == torch.float64 else torch.float32)


INDEX, REACHED = torch.arange(8), torch.randint(9, (8, 5), generator=torch.Generator().manual_seed(0))
NOISE, LABELS = torch.randint(9, (8, 4), generator=torch.Generator().manual_seed(1)), torch.tensor([7, -(10**9), 7, 0])
AT = {  # loss(z, tau) of eight rows, two views of four images
    "nt_xent": C.nt_xent,
    "sup_con": lambda z, tau: C.sup_con(z, LABELS.repeat(2), tau),
    "dcl": C.dcl,
    "dclw": lambda z, tau: C.dcl(z, tau, sigma=tau),
    "instance_softmax": lambda z, tau: C.instance_softmax(z, fixed(z, 9, 3), INDEX, tau),
    "instance_nce": lambda z, tau: C.instance_nce(z, fixed(z, 9, 3), INDEX, NOISE, torch.tensor(1.5), tau),
    "log_partition": lambda z, tau: C.log_partition(z, fixed(z, 9, 3), NOISE, tau),
    "moco_loss": lambda z, tau: C.moco_loss(z, fixed(z, 8, 1), fixed(z, 9, 3), tau),
    "debiased": lambda z, tau: C.debiased_nt_xent(z, 0.1, tau),
    "debiased, no share": lambda z, tau: C.debiased_nt_xent(z, 0.0, tau),
    "debiased, four views": lambda z, tau: C.debiased_nt_xent(z, 0.3, tau, views=4),
    "oracle": lambda z, tau: C.oracle_nt_xent(z, LABELS, tau),
    "propagation": lambda z, tau: sum(C.invariance_propagation(
        z, INDEX, unit_rows(fixed(z, 9, 3)), REACHED, tau, 3, background=4)),
    "neighbour_contrast": lambda z, tau: C.neighbour_contrast(z, z.flip(0), tau),
    "uniformity": lambda z, tau: C.decoupled_uniformity(z, t=1 / tau),
}  # fmt: skip
PLAIN = {  # losses of rows without a temperature
    "feature_contrast": lambda z: C.feature_contrast(z.flip(0), z),
    "proximal": lambda z: C.proximal(z, unit_rows(fixed(z, 8, 3))),
    "hallucinate": lambda z: C.hallucinate(z, fixed(z, 8, 1), torch.linspace(-1, 1, 8)).square().sum(),
}
COSINES = {**{name: lambda z, loss=loss: loss(z, 0.2) for name, loss in AT.items()}, **PLAIN}


def value_and_gradient(loss, z):
    z = z.detach().clone().requires_grad_()
    value = loss(z)
    return value.detach(), torch.autograd.grad(value, z)[0]


@pytest.mark.parametrize("tau", [1e-20, 1e-6, 0.011, 0.02, 1.0, 1e9])
@pytest.mark.parametrize("name", AT)
def test_any_temperature_gives_what_float64_gives(name, tau):
    """In float32 the cosines are right to about 1e-7, so a value is right to that over tau."""
    loss, z = AT[name], rows(8, seed=4, dtype=torch.float32)
    value, grad = value_and_gradient(lambda z: loss(z, tau), z)
    exact, slope = value_and_gradient(lambda z: loss(z, tau), z.double())
    assert torch.isfinite(value) and torch.isfinite(grad).all()
    if name == "uniformity" and tau < 1e-3:
        return  # which of two pairs is the nearest is for the last digit to say
    torch.testing.assert_close(value.double(), exact.double(), rtol=2e-5, atol=1e-6 + 2e-6 / tau)
    torch.testing.assert_close(grad.double(), slope, rtol=1e-3, atol=1e-5 * (1 + float(slope.abs().max())))


@pytest.mark.bad_input
@pytest.mark.parametrize("name", sorted(AT.keys() - {"dclw", "uniformity"}))
def test_a_temperature_below_what_float32_divides_by_is_refused(name):
    with pytest.raises(ValueError, match="tau must be at least 1e-20"):
        AT[name](rows(8), 1e-21)


@pytest.mark.parametrize("name", COSINES)
def test_a_zero_row_has_no_gradient_and_a_tiny_one_a_bounded_one(name):
    loss = COSINES[name]
    z = rows(8, dtype=torch.float32)
    z[3], z[5] = 0, 1e-20 * z[5]
    value, grad = value_and_gradient(loss, z)
    assert torch.isfinite(value)
    if name != "feature_contrast":  # its columns are brought to unit length, and none of them is zero
        assert not grad[3].any() and grad[5].any()
    assert grad.abs().max() < 1e5 and grad.half().isfinite().all()
    value, grad = value_and_gradient(loss, torch.zeros(8, 5))
    assert torch.isfinite(value) and not grad.any()


@pytest.mark.parametrize("name", COSINES)
def test_the_length_of_a_row_does_not_matter_up_to_the_largest_numbers(name):
    if name == "feature_contrast":
        pytest.skip("of columns")
    loss, z = COSINES[name], rows(8, dtype=torch.float32)
    sizes = torch.tensor([1e-30, 1e-20, 1e-6, 1.0, 1e4, 1e18, 1e25, 1e30])[:, None]
    torch.testing.assert_close(loss(z * sizes), loss(z), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", COSINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, dtype):
    loss, z = COSINES[name], (100 * rows(8, seed=3)).to(dtype)
    value, grad = value_and_gradient(loss, z)
    exact, slope = value_and_gradient(loss, z.float())
    assert value.dtype != dtype and torch.equal(value, exact)
    assert grad.dtype == dtype and torch.isfinite(grad).all()
    torch.testing.assert_close(grad.float(), slope, rtol=0.02, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(z.float()), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tau", [1e-4, 0.01, 0.1])
@pytest.mark.parametrize("name", ["nt_xent", "sup_con", "moco_loss", "instance_softmax", "debiased", "oracle",
                                  "neighbour_contrast"])  # fmt: skip
def test_a_solved_task_costs_nothing_and_never_less(name, tau):
    """Positives aligned, all else at right angles: log(1 + K exp(-1/tau)), which is 0 at a low temperature."""
    labels = torch.arange(4).repeat(2)
    loss, others = {
        "nt_xent": (lambda z, all: C.nt_xent(z, tau), 6),
        "sup_con": (lambda z, all: C.sup_con(z, labels, tau), 6),
        "moco_loss": (lambda z, all: C.moco_loss(z, z, all[4:], tau), 5),
        "instance_softmax": (lambda z, all: C.instance_softmax(z, all, labels, tau), 8),
        "debiased": (lambda z, all: C.debiased_nt_xent(z, 0.0, tau), 6),
        "oracle": (lambda z, all: C.oracle_nt_xent(z, labels[:4], tau), 6),
        "neighbour_contrast": (lambda z, all: C.neighbour_contrast(all[:7], all[:7], tau), 6),
    }[name]
    for seed in range(20):
        turn = torch.linalg.qr(rows(9, 9, seed, torch.float32)).Q
        value = loss(turn[:4].repeat(2, 1), turn).item()
        assert 0 <= value <= math.log1p(others * math.exp(-1 / tau)) * (1 + 1e-4) + 2e-6 / tau


def test_one_image_alone_costs_nothing_or_is_refused_with_a_reason():
    z, one = rows(2).requires_grad_(), torch.tensor([3])
    for loss in (C.nt_xent(z), C.sup_con(z, one.repeat(2)), C.debiased_nt_xent(z), C.oracle_nt_xent(z, one),
                 C.sup_con(z[:1], one), C.neighbour_contrast(z[:1], z[1:]), C.info_nce(z[:1], z[1:])):  # fmt: skip
        assert abs(loss.item()) < 1e-12 and torch.autograd.grad(loss, z)[0].abs().max() < 1e-12
    for refused in (C.dcl, C.decoupled_uniformity, lambda z: C.feature_contrast(z, z)):
        with pytest.raises(ValueError, match="two views of 2 images: one alone has nothing to be told from"):
            refused(z)


@pytest.mark.bad_input
def test_what_is_no_place_in_a_bank_is_named():
    z, bank, index = rows(8), rows(9, seed=3), INDEX.clone()
    index[2] = 9
    drawn = NOISE.clone()
    drawn[0, 0] = -1
    reached = REACHED.clone()
    reached[7, 4] = 100
    for name, call in [
        ("index", lambda: C.instance_softmax(z, bank, index)), ("index", lambda: C.instance_softmax(z, bank, z[:, 0])),
        ("noise_index", lambda: C.instance_nce(z, bank, INDEX, drawn, torch.tensor(1.0))),
        ("index", lambda: C.invariance_propagation(z, index, bank, REACHED, background=4)),
        ("reached", lambda: C.invariance_propagation(z, INDEX, bank, reached, background=4)),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name} must (lie in 0 … 8|hold integers)"):
            call()


@pytest.mark.parametrize("name", ["SimCLR", "MoCo", "NPID", "NPID, nce", "Hallucinator", "InvariancePropagation",
                                  "DecoupledUniformity", "All4One"])  # fmt: skip
def test_methods_train_under_bf16_autocast(name):
    torch.manual_seed(0)
    make = {
        "SimCLR": C.SimCLR, "MoCo": C.MoCo, "NPID": lambda e: C.NPID(e, 9), "Hallucinator": C.Hallucinator,
        "NPID, nce": lambda e: C.NPID(e, 9, softmax="nce", negatives=4),
        "InvariancePropagation": lambda e: C.InvariancePropagation(e, 12, dim=4, background=5, select="hard"),
        "DecoupledUniformity": lambda e: C.DecoupledUniformity(e, rows(12, 3, dtype=torch.float32), dim=4),
        "All4One": lambda e: C.All4One(e, dim=4, queue=8, hidden=8),
    }  # fmt: skip
    model, x = make[name](Tiny()).train(), pictures(4 if name == "InvariancePropagation" else 8)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(x, torch.arange(4))
        loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
