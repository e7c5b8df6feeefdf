"""The learned rule: ridge against scikit-learn, updates without labels, invariances, gradients through the unroll."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from labcode.clustering import few_shot as F


def sets(b=2, n=10, m=6, d=4, ways=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    return draw(b, n, d), torch.arange(n).expand(b, -1) % ways, draw(b, m, d), torch.arange(m).expand(b, -1) % ways


def test_ridge_is_scikit_learns():
    z, y, new, _ = sets()
    found = F.ridge(z, y, new, 3, 0.1)
    for b in range(2):
        middle = z[b].mean(0)
        scale = ((z[b] - middle).square().mean() + 1e-8).rsqrt()
        rows = [np.hstack([((part - middle) * scale).numpy(), np.ones((len(part), 1))]) for part in (z[b], new[b])]
        target = np.eye(3)[y[b]] - 1 / 3
        peer = Ridge(alpha=0.1 * 10, fit_intercept=False).fit(rows[0], target)
        assert np.allclose(found[b], peer.predict(rows[1]), atol=1e-8)


def test_meta_loss_is_the_loop_and_has_its_gradient():
    z, y, new, new_y = sets()
    said, want = F.ridge(z, y, new, 3), 0.0
    for b in range(2):
        for i in range(6):
            a, t = said[b, i], torch.eye(3, dtype=z.dtype)[new_y[b, i]] - 1 / 3
            want += float((a / a.norm() - t / t.norm()).square().sum()) / 12
    assert float(F.ridge_loss(z, y, new, new_y, 3)) == pytest.approx(want, rel=1e-4)
    assert torch.autograd.gradcheck(
        lambda z, new: F.ridge_loss(z, y, new, new_y, 3), (z.requires_grad_(), new.requires_grad_())
    )


def test_meta_loss_edges_and_errors():
    z, y, new, new_y = sets()
    assert float(F.ridge_loss(z * 7 + 1, y, new * 7 + 1, new_y, 3)) == pytest.approx(
        float(F.ridge_loss(z, y, new, new_y, 3)), rel=1e-4
    )
    assert 0 <= float(F.ridge_loss(0 * z, y, 0 * new, new_y, 3)) <= 4
    assert F.ridge_loss(z.half(), y, new.half(), new_y, 3).dtype == torch.float32
    for wrong in (dict(ways=1), dict(l2=0.0), dict(ways=2)):
        with pytest.raises(ValueError, match="ways|l2|y must"):
            F.ridge_loss(z, y, new, new_y, **dict(ways=3) | wrong)


def test_terms_have_unit_size_and_hebb_is_the_product():
    torch.manual_seed(0)
    rule, g = F.Rule(), torch.Generator().manual_seed(0)
    state = F.new_state(2, (6, 5, 4), g)
    x = torch.randn(2, 9, 6, generator=g)
    pre, post = F.forward(state, x)
    h = rule.states(state, pre, post)
    terms = rule.terms(state.w[0], h[0][..., :4], h[1][..., 4:], post[0], post[1])
    assert terms.shape == (6, 2, 6, 5) and torch.allclose(terms.square().mean((2, 3)), torch.ones(6, 2), atol=1e-3)
    outer = sum(torch.outer(x[1, b], post[1][1, b]) for b in range(9))
    assert torch.allclose(terms[3, 1], outer / outer.square().mean().sqrt(), atol=1e-4)
    assert [a.shape[-1] for a in h] == [8, 8, 8]


def test_batch_normalisation_is_torchs():
    g = torch.Generator().manual_seed(0)
    state, x = F.new_state(1, (6, 5), g), torch.randn(1, 9, 6, generator=g)
    peer = torch.nn.BatchNorm1d(5, eps=1e-3, affine=False)
    assert torch.allclose(F.forward(state, x)[0][1][0], peer(x[0] @ state.w[0][0]), atol=1e-5)


def test_no_shrinking_component_is_left():
    w, change = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    kept = F.without_shrinking(change, w)
    assert float((kept * w).sum(1).min()) > -1e-5
    assert torch.allclose(F.without_shrinking(w, w), w)


def test_the_rule_does_not_care_how_units_or_pixels_are_numbered():
    torch.manual_seed(0)
    rule, g = F.Rule(), torch.Generator().manual_seed(0)
    state, x = F.new_state(1, (6, 5, 4), g), torch.randn(1, 9, 6, generator=g)
    p, q = torch.randperm(6, generator=g), torch.randperm(5, generator=g)
    turned = type(state)(
        [state.w[0][:, p][:, :, q], state.w[1][:, q]],
        [state.b[0][:, q], state.b[1]],
        [state.v[0][:, q][:, :, p], state.v[1][:, :, q]],
    )
    a, b = rule(state, x), rule(turned, x[..., p])
    assert torch.allclose(a.w[0][:, p][:, :, q], b.w[0], atol=1e-5) and torch.allclose(a.w[1][:, q], b.w[1], atol=1e-5)


def test_learning_from_a_given_start_follows_the_order_of_the_pixels():
    torch.manual_seed(0)
    rule, g = F.Rule().double(), torch.Generator().manual_seed(0)
    start, p = F.new_state(2, (6, 5, 4), g).map(lambda w: w.double()), torch.randperm(6, generator=g)
    x = torch.rand(2, 12, 6, generator=g).double()
    one = F.learn(rule, x, (5, 4), 0, steps=6, batch=8, start=start)[0]
    other = F.learn(rule, x[..., p], (5, 4), 0, steps=6, batch=8, start=F.permuted(start, p))[0]
    assert torch.allclose(one, other, atol=1e-9)
    assert not torch.allclose(one, F.learn(rule, x[..., p], (5, 4), 0, steps=6, batch=8, start=start)[0], atol=1e-3)


def test_gradients_go_through_the_unroll_to_every_part_of_the_rule():
    torch.manual_seed(0)
    rule, g = F.Rule(), torch.Generator().manual_seed(0)
    state, x = F.new_state(2, (6, 5, 4), g), torch.randn(2, 9, 6, generator=g)
    for _ in range(3):
        state = rule(state, x)
    y = torch.arange(9).expand(2, -1) % 3
    F.ridge_loss(F.forward(state, x)[1][-1], y, F.forward(state, x)[1][-1], y, 3).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in rule.parameters())
    assert float(rule.mixture.grad.abs().min()) > 0 and float(rule.unit[0].weight.grad.abs().max()) > 0


def test_meta_training_and_learning_run_and_looks_agree():
    images, trace = torch.rand(6, 12, 9), []
    rule = F.meta_train(images, 0, steps=2, unroll=2, tasks=2, ways=3, batch=8, shots=3, sizes=(5, 4), trace=trace)
    assert len(trace) == 2
    x, y = F.draw_sets(images, 2, 3, torch.Generator().manual_seed(0))
    found = F.learn(rule, x, (5, 4), 0, batch=8, looks=(0, 3))
    assert torch.equal(found[1], F.learn(rule, x, (5, 4), 0, steps=3, batch=8)[0]) and not torch.equal(*found)
    assert torch.equal(F.learn(None, x, (5, 4), 0, steps=3)[0], found[0])
    assert 0 <= F.few_shot_ridge(found[0], y, 3, 2, 0) <= 1


def test_principal_is_scikit_learns_and_a_vae_learns():
    x = torch.randn(1, 30, 6, dtype=torch.float64)
    mine, peer = F.principal(x, 3)[0].numpy(), PCA(3).fit_transform(x[0].numpy())
    assert np.allclose(np.abs(mine), np.abs(peer))
    _, losses = F.vae(x.float(), 8, 2, 0, batch=20, looks=(0, 60))
    assert losses[1] < losses[0]
