"""Diverse experts: losses against loops, a stack against its networks one by one, bias and variance in closed form."""

import pytest
import torch
import torch.nn.functional as F

from labcode.imperfect_labels import long_tail as L

COUNTS = torch.tensor([60, 25, 10, 5])


def logits(n=2, e=3, b=7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, e, b, 4, dtype=torch.float64, generator=draw), torch.randint(4, (n, b), generator=draw)


def exponents(n=2):
    return torch.tensor([L.MANY_ALL_FEW, (0.0, 0.0, 0.0)], dtype=torch.float64)[:n]


def test_losses_against_the_loop():
    weak, y = logits()
    strong = logits(seed=1)[0]
    lam, weight = exponents(), torch.tensor([0.6, 0.3], dtype=torch.float64)
    for confident in (True, False):
        found = L.mdcs_loss(weak, strong, y, COUNTS, lam, weight, confident)
        for n in range(2):
            want = 0.0
            for e in range(3):
                w, s = (z[n, e] + lam[n, e] * COUNTS.log() for z in (weak, strong))
                want += float(F.cross_entropy(torch.cat([w, s]), torch.cat([y[n], y[n]])))
                kept = [i for i in range(7) if not confident or int(w[i].argmax()) == int(y[n, i])]
                each = [float((w[i].softmax(0) * (w[i].log_softmax(0) - s[i].log_softmax(0))).sum()) for i in kept]
                want += float(weight[n]) * sum(each) / max(1, len(each))
            assert float(found[n]) == pytest.approx(want, rel=1e-6)


def test_gradients():
    weak, y = logits(b=3)
    strong = logits(b=3, seed=1)[0].requires_grad_()
    weight = torch.ones(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: L.mdcs_loss(weak, s, y, COUNTS, exponents(), weight, False), strong)
    weak.requires_grad_()
    L.consistency_loss(weak, strong, y, False).sum().backward()
    assert weak.grad is None, "the weak view is a teacher"


def test_confidence_is_per_network():
    (weak, y), strong = logits(), logits(seed=1)[0]
    mixed = L.consistency_loss(weak, strong, y, torch.tensor([True, False]))
    assert float(mixed[0]) == float(L.consistency_loss(weak, strong, y, True)[0])
    assert float(mixed[1]) == float(L.consistency_loss(weak, strong, y, False)[1])
    never = (weak.argmax(3)[:, 0] + 1) % 4
    same = weak[:, :1].expand(-1, 3, -1, -1)
    assert float(L.consistency_loss(same, strong, never, True).abs().sum()) == 0, "nobody is right: nothing to add"


def test_no_prior_is_plain_and_one_is_balanced_softmax():
    z, y = logits()
    plain = L.diversity_loss(z, y, COUNTS, torch.zeros(2, 3))
    balanced = L.diversity_loss(z, y, COUNTS, torch.ones(2, 3))
    for n in range(2):
        assert float(plain[n]) == pytest.approx(sum(float(F.cross_entropy(z[n, e], y[n])) for e in range(3)))
        each = [float(L.balanced_softmax(z[n, e], y[n], COUNTS)) for e in range(3)]
        assert float(balanced[n]) == pytest.approx(sum(each))
    scaled = L.diversity_loss(z, y, 10 * COUNTS, torch.ones(2, 3))
    assert torch.allclose(scaled, balanced), "counts need no normalisation"


def test_experts_share_a_first_layer_only():
    make = lambda seed: L.Experts(2, 6, 4, generator=torch.Generator().manual_seed(seed), trunk=5, hidden=4)  # noqa: E731
    net, x = make(0), torch.randn(2, 9, 6)
    z = net(x)
    assert z.shape == (2, 3, 9, 4) and torch.equal(z, make(0)(x)) and float(z.detach().abs().max()) <= 10
    grads = torch.autograd.grad(z[0, 1].sum(), list(net.parameters()), allow_unused=True)
    own = list(net.heads.parameters())
    touched = [p for p, g in zip(own, grads[-len(own) :], strict=True) if g is not None]
    for g in torch.autograd.grad(net(x)[0, 1].square().sum(), touched):
        assert float(g[[0, 2, 3, 4, 5]].abs().sum()) == 0, "other experts' weights"
    assert torch.equal(L.ensemble(z), z.sum(1) / 3)
    paired = L.Experts(4, 6, 4, generator=torch.Generator().manual_seed(0), trunk=5, hidden=4, same=2)
    rows = paired(torch.randn(9, 6))
    assert torch.equal(rows[0], rows[2]) and torch.equal(rows[1], rows[3]) and not torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0, 0], rows[0, 1]), "experts of a network begin apart"


def test_disagreement():
    z = F.one_hot(torch.tensor([[[0, 1, 2], [0, 1, 3], [0, 2, 3]]]), 4).float()
    assert float(L.disagreement(z)[0]) == pytest.approx((1 + 2 + 1) / 9)


def test_bias_and_variance_add_up():
    """E‖p_i - y‖² over trainings is bias² plus variance: exact with unbiased estimates."""
    draw = torch.Generator().manual_seed(0)
    p, y = torch.rand(5, 30, 4, generator=draw).softmax(2), torch.randint(4, (30,), generator=draw)
    bias, variance = L.bias_variance(p, y)
    error = float((p.double() - F.one_hot(y, 4)).square().sum(2).mean())
    assert bias + variance == pytest.approx(error, rel=1e-6)
    assert L.bias_variance(p[:1].repeat(3, 1, 1), y)[1] == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="p must"):
        L.bias_variance(p[:1], y)
