"""The losses against plain float64 loops written from the papers' equations, and the mechanisms around them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labcode.self_supervision import contrastive as C

EPS = 1e-10


def rows(n, d=5, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def unit(v):
    return np.asarray(v) / math.sqrt(sum(float(a) ** 2 for a in v))


def dot(a, b):
    return sum(float(p) * float(q) for p, q in zip(unit(a), unit(b), strict=True))


# --- independent loops -----------------------------------------------------------------------------------------------


def loop_nt_xent(z, tau):
    n, total = len(z) // 2, 0.0
    for i in range(2 * n):
        scores = {k: math.exp(dot(z[i], z[k]) / tau) for k in range(2 * n) if k != i}
        total -= math.log(scores[(i + n) % (2 * n)] / sum(scores.values()))
    return total / (2 * n)


def loop_moco(q, k, queue, tau):
    total = 0.0
    for i in range(len(q)):
        own = math.exp(dot(q[i], k[i]) / tau)
        total -= math.log(own / (own + sum(math.exp(dot(q[i], old) / tau) for old in queue)))
    return total / len(q)


def loop_softmax(f, bank, index, tau):
    total = 0.0
    for row, i in zip(f, index, strict=True):
        p = [math.exp(dot(row, v) / tau) for v in bank]
        total -= math.log(p[i] / sum(p))
    return total / len(f)


def loop_nce(f, bank, index, noise, z, tau):
    n, m, total = len(bank), noise.shape[1], 0.0
    for row, i, drawn in zip(f, index, noise, strict=True):
        h = lambda j: (p := math.exp(dot(row, bank[j]) / tau) / z) / (p + m / n)  # noqa: B023, E731
        total -= math.log(h(i)) + sum(math.log(1 - h(j)) for j in drawn)
    return total / len(f)


def loop_debiased(z, tau_plus, t, views):
    n, terms = len(z) // views, []
    for a in range(len(z)):
        pos = [math.exp(dot(z[a], z[b]) / t) for b in range(len(z)) if b % n == a % n and b != a]
        neg = [math.exp(dot(z[a], z[b]) / t) for b in range(len(z)) if b % n != a % n]
        g = (sum(neg) / len(neg) - tau_plus * sum(pos) / len(pos)) / (1 - tau_plus)
        g = max(g, math.exp(-1 / t))
        terms += [-math.log(p / (p + len(neg) * g)) for p in pos]
    return sum(terms) / len(terms)


def loop_oracle(z, labels, tau, rescale):
    n, total = len(z) // 2, 0.0
    for i in range(2 * n):
        own = math.exp(dot(z[i], z[(i + n) % (2 * n)]) / tau)
        true = [math.exp(dot(z[i], z[k]) / tau) for k in range(2 * n) if labels[k % n] != labels[i % n]]
        rest = sum(true) * ((2 * n - 2) / len(true) if rescale and true else 1)
        total -= math.log(own / (own + rest))
    return total / (2 * n)


def loop_sup_con(z, labels, tau):
    terms = []
    for i in range(len(z)):
        scores = {j: math.exp(dot(z[i], z[j]) / tau) for j in range(len(z)) if j != i}
        same = [j for j in scores if labels[j] == labels[i]]
        if same:
            terms.append(-sum(math.log(scores[p] / sum(scores.values())) for p in same) / len(same))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1, 7], [-3, 5, 5, -3, 0, 1], [2] * 6, [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("tau", [0.01, 0.1, 0.5])
def test_sup_con_is_the_loop(labels, tau):
    z = rows(6)
    assert float(C.sup_con(z, torch.tensor(labels), tau)) == pytest.approx(loop_sup_con(z, labels, tau), abs=EPS)


def test_sup_con_with_a_label_an_image_is_nt_xent():
    z, image = rows(10), torch.tensor([4, 1, 0, 3, 2]).repeat(2)
    assert float(C.sup_con(z, image, 0.2)) == pytest.approx(float(C.nt_xent(z, 0.2)), abs=EPS)
    assert float(C.sup_con(rows(6)[:1].repeat(4, 1), image[:2].repeat(2))) == pytest.approx(math.log(3))  # equal rows


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_nt_xent_is_the_loop(n, tau):
    z = rows(2 * n)
    assert float(C.nt_xent(z, tau)) == pytest.approx(loop_nt_xent(z, tau), abs=EPS)


@pytest.mark.parametrize("n, queue", [(1, 1), (4, 7)])
@pytest.mark.parametrize("tau", [0.07, 0.2])
def test_moco_loss_is_the_loop(n, queue, tau):
    q, k, old = rows(n), rows(n, seed=1), rows(queue, seed=2)
    assert float(C.moco_loss(q, k, old, tau)) == pytest.approx(loop_moco(q, k, old, tau), abs=EPS)


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_instance_softmax_is_the_loop(tau):
    f, bank, index = rows(4), rows(9, seed=1), torch.tensor([8, 0, 3, 3])
    assert float(C.instance_softmax(f, bank, index, tau)) == pytest.approx(loop_softmax(f, bank, index, tau), abs=EPS)


@pytest.mark.parametrize("m", [1, 6])
def test_instance_nce_is_the_loop(m):
    f, bank, index = rows(4), rows(9, seed=1), torch.tensor([8, 0, 3, 3])
    noise = torch.randint(9, (4, m), generator=torch.Generator().manual_seed(3))
    ours = C.instance_nce(f, bank, index, noise, torch.tensor(40.0, dtype=torch.float64).log(), 0.3)
    assert float(ours) == pytest.approx(loop_nce(f, bank, index, noise.numpy(), 40.0, 0.3), abs=EPS)


def test_log_partition_is_the_mean_over_the_noise_times_n():
    f, bank = rows(3), rows(8, seed=1)
    every = torch.arange(8).repeat(3, 1)  # each image once: the exact Z, averaged over the batch
    exact = sum(math.exp(dot(a, v) / 0.4) for a in f for v in bank) / 3
    assert float(C.log_partition(f, bank, every, 0.4)) == pytest.approx(math.log(exact), abs=EPS)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("tau_plus, t", [(0.0, 0.5), (0.1, 0.5), (0.6, 0.2)])
def test_debiased_is_the_loop(views, tau_plus, t):
    z = rows(4 * views)
    wanted = loop_debiased(z, tau_plus, t, views)
    assert float(C.debiased_nt_xent(z, tau_plus, t, views)) == pytest.approx(wanted, abs=EPS)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 1, 1], [2, 2, 2, 2]])
def test_oracle_is_the_loop(rescale, labels):
    z, y = rows(8), torch.tensor(labels)
    assert float(C.oracle_nt_xent(z, y, 0.5, rescale)) == pytest.approx(loop_oracle(z, labels, 0.5, rescale), abs=EPS)


# --- identities, invariance, closed forms ----------------------------------------------------------------------------


def test_losses_that_must_agree_agree():
    z, apart = rows(12), torch.arange(6)
    plain = float(C.nt_xent(z, 0.3))
    assert float(C.debiased_nt_xent(z, 0.0, 0.3)) == pytest.approx(plain, abs=EPS)
    assert float(C.oracle_nt_xent(z, apart, 0.3)) == pytest.approx(plain, abs=EPS)
    f, bank = rows(1), rows(7, seed=1)
    rest = torch.cat([bank[:2], bank[3:]])
    wanted = float(C.instance_softmax(f, bank, torch.tensor([2]), 0.1))
    assert float(C.moco_loss(f, bank[2:3], rest, 0.1)) == pytest.approx(wanted, abs=EPS)


def test_scale_and_rotation_change_nothing():
    z, turn = rows(8), torch.linalg.qr(rows(5, seed=9)).Q
    y, old, index = torch.tensor([0, 1, 0, 1]), rows(6, seed=4), torch.tensor([0, 5, 2, 1])
    for loss in (
        lambda z, old: C.nt_xent(z),
        lambda z, old: C.debiased_nt_xent(z),
        lambda z, old: C.oracle_nt_xent(z, y),
        lambda z, old: C.moco_loss(z[:4], z[4:], old),
        lambda z, old: C.instance_softmax(z[:4], old, index),
    ):
        assert float(loss(3 * z @ turn.T, old @ turn.T)) == pytest.approx(float(loss(z, old)), abs=1e-9)


@pytest.mark.parametrize("n", [2, 16])
def test_equal_rows_give_the_logarithm_of_the_choices(n):
    same = torch.ones(2 * n, 4)
    assert float(C.nt_xent(same)) == pytest.approx(math.log(2 * n - 1), rel=1e-5)
    assert float(C.debiased_nt_xent(same)) == pytest.approx(math.log(2 * n - 1), rel=1e-5)
    assert float(C.moco_loss(same, same, torch.ones(9, 4))) == pytest.approx(math.log(10), rel=1e-5)
    index = torch.zeros(2 * n, dtype=torch.long)
    assert float(C.instance_softmax(same, torch.ones(9, 4), index)) == pytest.approx(math.log(9), rel=1e-5)


def test_the_debiased_mean_is_exact_on_exact_expectations():
    own, true, share = 5.0, 2.0, 0.3
    mixed = torch.tensor([[share * own + (1 - share) * true]])
    assert float(C.debiased_mean(mixed, torch.tensor([[own]]), share)) == pytest.approx(true, rel=1e-5)


def test_the_debiased_mean_is_clamped_and_the_clamp_has_no_gradient():
    negative = torch.full((1, 4), math.exp(-1.5), requires_grad=True)
    positive = torch.full((1, 1), math.exp(2.0), requires_grad=True)
    g = C.debiased_mean(negative, positive, 0.5, 0.5)
    assert g.item() == pytest.approx(math.exp(-2), rel=1e-6)
    g.sum().backward()
    assert negative.grad.abs().max() == 0 and positive.grad.abs().max() == 0


def test_the_ring_in_closed_form_is_the_integral_and_the_samples_agree():
    angle = torch.tensor([0.0, 0.7], dtype=torch.float64)
    own, other = C.ring_means(angle, classes=4, kappa=3.0, tau=0.5)
    grid = np.linspace(-math.pi, math.pi, 20001)[:-1]
    weight = np.exp(3 * np.cos(grid)) / np.exp(3 * np.cos(grid)).sum()
    for i, a in enumerate(angle.tolist()):
        mean = [(weight * np.exp(np.cos(grid + c * math.pi / 2 - a) / 0.5)).sum() for c in range(4)]
        assert float(own[i]) == pytest.approx(mean[0], rel=1e-6)
        assert float(other[i]) == pytest.approx(sum(mean[1:]) / 3, rel=1e-6)
    torch.manual_seed(0)
    mixed, positive = C.ring_scores(angle, 40000, 40000, classes=4, kappa=3.0, tau=0.5)
    assert torch.allclose(positive.mean(1), own, rtol=0.02)
    assert torch.allclose(mixed.mean(1), (own + 3 * other) / 4, rtol=0.03)


def test_the_oracle_module_uses_the_labels_of_its_images():
    model = C.Oracle(Flat(), torch.tensor([0, 1, 0, 1, 2]), rescale=False)
    views, index = pictures(6), torch.tensor([4, 0, 2])
    wanted = C.oracle_nt_xent(model.head(model.encoder(views)), torch.tensor([2, 0, 0]), 0.2, rescale=False)
    assert torch.allclose(model(views, index), wanted)


def test_gradients_by_finite_differences():
    def wanted(t):
        return t.clone().requires_grad_()

    z, bank, index = rows(6, 3), rows(5, 3, seed=1), torch.tensor([0, 4, 2, 2, 1, 3])
    noise = torch.tensor([[0, 1], [2, 3], [4, 0], [1, 2], [3, 4], [0, 2]])
    log_z = torch.tensor(3.0, dtype=torch.float64)
    check = torch.autograd.gradcheck
    assert check(lambda z: C.nt_xent(z, 0.5), wanted(z))
    assert check(lambda z: C.sup_con(z, torch.tensor([0, 2, 2, 0, 1, 2])), wanted(z))
    assert check(lambda z: C.debiased_nt_xent(z, 0.1, 0.5), wanted(z))
    assert check(lambda z: C.debiased_nt_xent(z, 0.1, 0.5, views=3), wanted(z))
    assert check(lambda z: C.oracle_nt_xent(z, torch.tensor([0, 1, 0])), wanted(z))
    assert check(lambda z: C.instance_softmax(z, bank, index), wanted(z))
    assert check(lambda z: C.instance_nce(z, bank, index, noise, log_z), wanted(z))
    assert check(lambda z: C.proximal(z, bank[index]), wanted(z))
    assert check(lambda q: C.moco_loss(q, z[3:], bank), wanted(z[:3]))
    amount = torch.tensor([0.5, -0.5, 0.1], dtype=torch.float64)
    assert check(lambda a, b: C.hallucinate(a, b, amount), (wanted(z[:3]), wanted(z[3:])))


# --- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.bad_input
def test_wrong_arguments_are_named():
    z, index = torch.ones(4, 3), torch.tensor([0, 1, 0, 1])
    bad = torch.full((4, 3), math.nan)
    for name, call in [
        ("z", lambda: C.nt_xent(z[:3])), ("z", lambda: C.nt_xent(z[:2])), ("tau", lambda: C.nt_xent(z, 0)),
        ("z", lambda: C.nt_xent(bad)), ("z", lambda: C.nt_xent(z[:0])), ("z", lambda: C.debiased_nt_xent(bad)),
        ("z", lambda: C.debiased_nt_xent(torch.ones(7, 3), views=3)), ("views", lambda: C.debiased_nt_xent(z, views=1)),
        ("labels", lambda: C.sup_con(z, index[:3])), ("tau", lambda: C.sup_con(z, index, -1.0)),
        ("tau_plus", lambda: C.debiased_nt_xent(z, 1.0)), ("labels", lambda: C.oracle_nt_xent(z, index)),
        ("q", lambda: C.moco_loss(bad, z, z)), ("k", lambda: C.moco_loss(z, z[:2], z)),
        ("queue", lambda: C.moco_loss(z, z, torch.ones(4, 2))), ("queue", lambda: C.moco_loss(z, z, z[:0])),
        ("f", lambda: C.instance_softmax(z[:0], z, index[:0])), ("index", lambda: C.instance_softmax(z, z, index[:2])),
        ("bank", lambda: C.instance_softmax(z, torch.ones(4, 2), index)),
        ("noise_index", lambda: C.instance_nce(z, z, index, index[:, None][:, :0], torch.tensor(1.0))),
        ("amount", lambda: C.hallucinate(z, z, torch.ones(3))), ("batch_size", lambda: C.fixed_batches(index, 5)),
        ("batch_size", lambda: C.false_negative_rate(index, index, 1)),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name} must|^{name}:"):
            call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z = (100 * rows(8, seed=3)).to(dtype)
    assert C.nt_xent(z, 0.05).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for loss in (lambda z: C.nt_xent(z, 0.05), lambda z: C.debiased_nt_xent(z, tau=0.05),
                     lambda z: C.moco_loss(z[:4], z[4:], z, 0.05)):  # fmt: skip
            assert float(loss(z)) == pytest.approx(float(loss(z.double())), rel=1e-4)


def test_a_constant_or_zero_batch_stays_finite():
    zero = torch.zeros(6, 4, requires_grad=True)
    for loss in (C.nt_xent(zero), C.debiased_nt_xent(zero), C.moco_loss(zero, zero, zero),
                 C.sup_con(zero, torch.arange(6)),
                 C.oracle_nt_xent(zero, torch.zeros(3, dtype=torch.long))):  # fmt: skip
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, zero)[0]).all()


# --- mechanisms ------------------------------------------------------------------------------------------------------


class Flat(nn.Module):
    """A linear encoder of 2×2 images, with BatchNorm if asked for."""

    def __init__(self, norm=False):
        super().__init__()
        self.features = 6
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), *[nn.BatchNorm1d(6)] * norm)

    def forward(self, x):
        return self.body(x)


def pictures(n, seed=0):
    return torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_the_queue_is_first_in_first_out_and_enqueues_after_the_loss():
    model = C.MoCo(Flat(), dim=4, queue=5, momentum=1.0).train()
    before, made = model.queue.clone(), []
    for step in range(3):
        views = pictures(4, step)
        wanted = C.moco_loss(model.head(model.encoder(views[:2])), model.keys(views[2:]), model.queue, model.tau)
        assert torch.allclose(model(views, torch.arange(2)), wanted)  # its own keys are not among the negatives
        made.insert(0, model.keys(views[2:]))
    assert torch.allclose(model.queue, torch.cat(made)[:5])
    assert len(model.queue) == 5 and not torch.isin(before, model.queue).any()


def test_a_batch_larger_than_the_queue_and_evaluation_mode():
    model = C.MoCo(Flat(), dim=4, queue=3).train()
    model(pictures(16), torch.arange(8))
    assert model.queue.shape == (3, 4)
    model.eval()
    kept, key = model.queue.clone(), model.key_encoder[0].body[1].weight.clone()
    model(pictures(16, 1), torch.arange(8))
    assert torch.equal(model.queue, kept) and torch.equal(model.key_encoder[0].body[1].weight, key)


def test_the_key_encoder_follows_before_the_keys_are_made_and_has_no_gradient():
    model = C.MoCo(Flat(), dim=4, queue=8, momentum=0.9).train()
    with torch.no_grad():
        model.encoder.body[1].weight += 1.0
    key, query = model.key_encoder[0].body[1].weight.clone(), model.encoder.body[1].weight.clone()
    views = pictures(8)
    model(views, torch.arange(4)).backward()
    moved = model.key_encoder[0].body[1].weight
    assert torch.allclose(moved, 0.9 * key + 0.1 * query, atol=1e-6)
    assert torch.allclose(model.queue[:4], F.normalize(model.key_encoder(views[4:]), dim=1))
    assert all(p.grad is None for p in model.key_encoder.parameters())
    assert model.encoder.body[1].weight.grad.abs().sum() > 0


def test_no_gradient_reaches_keys_and_queue():
    q, k, old = (rows(4, seed=s).requires_grad_() for s in range(3))
    C.moco_loss(q, k, old).backward()
    assert q.grad is not None and k.grad is None and old.grad is None


def test_momentum_zero_copies_the_query_encoder():
    model = C.MoCo(Flat(), dim=4, momentum=0.0).train()
    with torch.no_grad():
        model.encoder.body[1].weight.normal_()
    model(pictures(4), torch.arange(2))
    assert torch.equal(model.key_encoder[0].body[1].weight, model.encoder.body[1].weight)


def test_split_batchnorm_normalises_parts_apart_and_shuffling_puts_keys_back():
    x = rows(8, 6, dtype=torch.float32)
    split = C.split_batchnorm(nn.Sequential(nn.BatchNorm1d(6)), 2).train()
    out = split(x)
    for part in out.chunk(2):
        assert part.mean(0).abs().max() < 1e-5
    assert torch.allclose(split.eval()(x), split[0].norm(x))
    model = C.MoCo(Flat(norm=True), dim=4, splits=2).train()
    for module in model.modules():
        if isinstance(module, C.SplitBatchNorm):
            module.eval()  # without batch statistics a key depends on its own image alone
    views = pictures(6)
    assert torch.allclose(model.keys(views), F.normalize(model.key_encoder(views), dim=1), atol=1e-6)
    names = [type(m).__name__ for m in model.key_encoder.modules()]
    assert names.count("SplitBatchNorm") == 1


def test_the_bank_starts_on_the_sphere_and_moves_half_way():
    model = C.NPID(Flat(), images=10, dim=4).train()
    assert torch.allclose(model.bank.norm(dim=1), torch.ones(10))
    before, index, views = model.bank.clone(), torch.tensor([7, 2, 5]), pictures(3)
    f = F.normalize(model.head(model.encoder(views)), dim=1).detach()
    loss = model(views, index)
    assert torch.allclose(loss, C.instance_softmax(f, before, index, model.tau), atol=1e-5)  # loss first, then the bank
    loss.backward()
    assert torch.allclose(model.bank[index], F.normalize(0.5 * before[index] + 0.5 * f, dim=1), atol=1e-6)
    rest = torch.tensor([0, 1, 3, 4, 6, 8, 9])
    assert torch.equal(model.bank[rest], before[rest]) and not model.bank.requires_grad
    assert float(model.moved) == pytest.approx(float((f - before[index]).norm(dim=1).mean()), rel=1e-5)


def test_z_is_set_by_the_first_batch_and_then_frozen():
    model = C.NPID(Flat(), images=30, dim=4, softmax="nce", negatives=8).train()
    assert model.log_z.isnan()
    model(pictures(4), torch.arange(4))
    first = model.log_z.clone()
    assert first.isfinite()
    model(pictures(4, 1), torch.arange(4))
    assert torch.equal(model.log_z, first)


def test_the_parametric_softmax_trains_its_class_vectors_by_gradient():
    model = C.NPID(Flat(), images=6, dim=4, softmax="parametric").train()
    before = model.bank.detach().clone()
    model(pictures(3), torch.arange(3)).backward()
    assert model.bank.grad.abs().sum() > 0 and torch.equal(model.bank, before)


def test_the_proximal_term_adds_lambda_times_the_squared_step():
    torch.manual_seed(0)
    free = C.NPID(Flat(), images=6, dim=4).eval()
    torch.manual_seed(0)
    held = C.NPID(Flat(), images=6, dim=4, pull=3.0).eval()
    views, index = pictures(3), torch.arange(3)
    f = F.normalize(free.head(free.encoder(views)), dim=1)
    step = (f - free.bank[index]).square().sum(1).mean()
    added = (held(views, index) - free(views, index)).detach()
    assert float(added) == pytest.approx(3 * float(step.detach()), rel=1e-4)


def test_methods_run_under_bf16_autocast():
    for make in (C.MoCo, lambda e: C.NPID(e, 9), lambda e: C.NPID(e, 9, softmax="nce", negatives=4), C.Hallucinator):
        model = make(Flat()).train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(pictures(8), torch.arange(4))
        loss.backward()
        assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_guided_batches_hold_every_cluster_once_while_they_last():
    clusters = torch.arange(40) % 8
    order = C.guided_order(clusters, seed=1)
    assert sorted(order.tolist()) == list(range(40))
    batches = C.fixed_batches(order, 8)
    for step in range(5):
        assert sorted(clusters[batches(step)].tolist()) == list(range(8))
    assert torch.equal(batches(5), batches(0))
    uneven = C.guided_order(torch.tensor([0] * 6 + [1, 1]))
    assert sorted(torch.tensor([0] * 6 + [1, 1])[uneven[:4]].tolist()) == [0, 0, 1, 1]


def test_the_false_negative_rate_by_hand():
    labels, order = torch.tensor([0, 0, 1, 2, 2, 2]), torch.arange(6)
    assert C.false_negative_rate(order, labels, 3) == pytest.approx((2 + 6) / 12)
    assert C.false_negative_rate(order, labels, 6) == pytest.approx((2 + 0 + 6) / 30)


def test_the_autoencoder_learns_from_clean_targets_only():
    model = C.Autoencoder().eval()
    x = torch.rand(4, 3, 8, 8)
    views = C.clean_and_noisy(x, torch.Generator().manual_seed(0), std=0.1)
    assert torch.equal(views[:4], x) and 0.08 < float((views[4:] - x).std()) < 0.12
    wanted = (model.decoder(model.body(views[4:])) - x).square().mean()
    assert torch.allclose(model(views, torch.arange(4)), wanted)
    assert model.encoder(x).shape == (4, model.encoder.features)


def test_extrapolation_widens_the_angle_and_interpolation_narrows_it():
    z1, z2 = rows(20), rows(20, seed=1)
    before = F.cosine_similarity(z1, z2)
    assert torch.allclose(C.hallucinate(z1, z2, torch.zeros(20)), F.normalize(z2, dim=1))
    assert (F.cosine_similarity(z1, C.hallucinate(z1, z2, torch.full((20,), 0.5))) < before).all()
    assert (F.cosine_similarity(z1, C.hallucinate(z1, z2, torch.full((20,), -0.5))) > before).all()
    assert torch.allclose(C.hallucinate(7 * z1, 2 * z2, torch.ones(20)), C.hallucinate(z1, z2, torch.ones(20)))


def test_the_hallucinator_without_hallucination_is_simclr():
    torch.manual_seed(0)
    encoder = Flat()
    model = C.Hallucinator(encoder, dim=4, mode="none", nonlinear=False)
    views = pictures(8)
    wanted = C.nt_xent(model.head(encoder(views)), model.tau)
    normalised = C.nt_xent(F.normalize(model.head(encoder(views)), dim=1), model.tau)
    assert torch.allclose(model(views, torch.arange(4)), wanted) and torch.allclose(wanted, normalised)
    model.sign, drawn = 1.0, [model.positive(rows(4), rows(4, seed=1)) for _ in range(2)]
    assert torch.equal(*drawn)  # the sign was none when these were drawn
    assert not torch.equal(model.positive(rows(4), rows(4, seed=1)), model.positive(rows(4), rows(4, seed=1)))


def test_peer_agrees():
    lightly = pytest.importorskip("lightly.loss")
    z = rows(16, 8, dtype=torch.float32)
    theirs = float(lightly.NTXentLoss(temperature=0.3)(z[:8], z[8:]))
    assert float(C.nt_xent(z, 0.3)) == pytest.approx(theirs, rel=1e-4)


def test_peer_agrees_on_sup_con():
    peers = pytest.importorskip("pytorch_metric_learning.losses")
    z, labels = rows(12, 8, dtype=torch.float32), torch.arange(4).repeat(3)
    theirs = float(peers.SupConLoss(temperature=0.3)(z, labels))
    assert float(C.sup_con(z, labels, 0.3)) == pytest.approx(theirs, rel=1e-5)
