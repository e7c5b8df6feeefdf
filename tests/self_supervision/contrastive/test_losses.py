"""What all losses of the chapter share: identities between them, invariance, gradients, edges, precision."""

import math

import pytest
import torch
from self_supervision.contrastive.helpers import rows

from labcode.self_supervision import contrastive as C

EPS = 1e-10


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


def test_gradients_by_finite_differences():
    def wanted(t):
        return t.clone().requires_grad_()

    z, bank, index = rows(6, 3), rows(5, 3, seed=1), torch.tensor([0, 4, 2, 2, 1, 3])
    noise = torch.tensor([[0, 1], [2, 3], [4, 0], [1, 2], [3, 4], [0, 2]])
    log_z = torch.tensor(3.0, dtype=torch.float64)
    check = torch.autograd.gradcheck
    assert check(lambda z: C.nt_xent(z, 0.5), wanted(z))
    assert check(lambda z: C.nt_xent(z, 0.02), wanted(z))
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


@pytest.mark.bad_input
def test_wrong_arguments_are_named():
    z, index = torch.ones(4, 3), torch.tensor([0, 1, 0, 1])
    bad = torch.full((4, 3), math.nan)
    for name, call in [
        ("z", lambda: C.nt_xent(z[:3])), ("tau", lambda: C.nt_xent(z, 0)),
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
