"""Matching pursuit against scikit-learn; masked dictionary learning on planted signals."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import SparseCoder

from labcode.clustering import subspaces as S


def problem(p=20, d=10, n=15, k=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = S.planted_dictionary(p, d, g)
    return a, S.sparse_signals(a, n, k, 0.1, g), g


def dense(which, weights, p):
    return torch.zeros(*which.shape[:2], p).scatter_(2, which, weights)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pursuit_is_scikit_learns(k):
    a, y, _ = problem()
    peer = SparseCoder(a.numpy(), transform_algorithm="omp", transform_n_nonzero_coefs=k).transform(y.numpy())
    b, z = torch.stack([a, a.flip(0)]), torch.stack([y, y])
    which, weights = S.omp(z, b, k)
    found = dense(which, weights, 20)
    assert np.allclose(found[0], peer, atol=1e-3) and torch.allclose(found[1].flip(1), found[0], atol=1e-4)


def test_padding_is_never_taken_and_edges():
    a, y, _ = problem()
    padded = torch.cat([a, torch.zeros(5, 10)])
    one, two = (S.omp(y[None], b[None], 3)[0] for b in (a, padded))
    assert torch.equal(one, two)
    which, weights = S.omp(torch.zeros(1, 2, 10), a[None], 3)
    assert torch.isfinite(weights).all() and float(weights.abs().max()) == 0
    assert len(set(which[0, 0].tolist())) == 3
    with pytest.raises(ValueError, match="k must"):
        S.omp(y[None], a[None], 21)


def test_losses_are_the_loop():
    a, y, g = problem()
    seen = torch.rand(10, generator=g) < 0.7
    loss = S.coding_loss(y[None], a[None], 2, seen[None], ~seen[None])
    coder = SparseCoder((a * seen).numpy(), transform_algorithm="omp", transform_n_nonzero_coefs=2)
    codes = torch.from_numpy(coder.transform((y * seen).numpy())).float()
    want = (y - codes @ a)[:, ~seen].square().sum(1).mean()
    assert float(loss) == pytest.approx(float(want), rel=1e-3)
    whole = S.coding_loss(y[None], a[None], 3)
    which, weights = S.omp(y[None], a[None], 3)
    assert float(whole) == pytest.approx(float((y - dense(which, weights, 20)[0] @ a).square().sum(1).mean()), rel=1e-4)


def test_only_weighed_atoms_have_a_gradient_that_is_the_residual():
    a, y, _ = problem(n=4)
    b = a[None].clone().requires_grad_()
    S.coding_loss(y[None], b, 2).sum().backward()
    codes = dense(*S.omp(y[None], a[None], 2), 20)[0]
    want = -2 * codes.T @ (y - codes @ a) / 4
    assert torch.allclose(b.grad[0], want, atol=1e-5)


def test_signals_and_recovery():
    a, y, g = problem()
    clean = S.sparse_signals(a, 50, 2, 0.0, g)
    assert float(S.coding_loss(clean[None], a[None], 2)) < 0.02
    assert float(S.recovery_error(a, -a[None].flip(1))) == pytest.approx(0, abs=1e-6)
    b = torch.nn.functional.normalize(torch.randn(1, 30, 10, generator=g), dim=2)
    for euclid in (False, True):
        want = 0.0
        for atom in a:
            c = max(abs(float(atom @ other)) for other in b[0])
            want += (2 - 2 * c) ** 0.5 if euclid else 1 - c
        assert float(S.recovery_error(a, b, euclid)) == pytest.approx(want / 20, rel=1e-4)
    for bad in (dict(k=0, noise=0.1), dict(k=2, noise=-1.0)):
        with pytest.raises(ValueError):
            S.sparse_signals(a, 5, generator=g, **bad)


def test_masking_stays_at_the_truth_and_problems_do_not_share():
    g = torch.Generator().manual_seed(0)
    a = S.planted_dictionary(24, 16, g)
    y = S.sparse_signals(a, 200, 2, 0.25, g)
    start = torch.cat([a, torch.nn.functional.normalize(S.sparse_signals(a, 48, 2, 0.25, g), dim=1)])
    fit = dict(epochs=15, batch_size=50, lr=2e-3)
    both = S.learn_dictionary(torch.stack([y, y]), torch.stack([start, start]), 2, torch.tensor([1.0, 0.9]),
                              generator=torch.Generator().manual_seed(1), **fit)  # fmt: skip
    alone = S.learn_dictionary(
        y[None], start[None], 2, torch.tensor([0.9]), generator=torch.Generator().manual_seed(1), **fit
    )
    plain, masked = S.recovery_error(a, both).tolist()
    assert masked < 0.7 * plain
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    assert torch.allclose(both.norm(dim=2), torch.ones(2, 72), atol=1e-5)
    with pytest.raises(ValueError, match="keep"):
        S.learn_dictionary(y[None], start[None], 2, torch.tensor([0.0]), generator=g, **fit)


def test_copies_lean_by_the_angle():
    a = S.planted_dictionary(5, 8, torch.Generator().manual_seed(0))
    leaning = S.overfitting_dictionary(a, 3, 0.2, torch.Generator().manual_seed(1))
    cosine = (leaning.view(5, 3, 8) * a[:, None]).sum(2)
    assert torch.allclose(cosine, torch.full((5, 3), 0.2).cos(), atol=1e-5) and leaning.shape == (15, 8)


def test_both_objectives_begin_alike_and_at_the_truth_where_told():
    design = dict(p=6, d=5, k=2, n=30)
    found = S.compare_objectives(0, (6, 9), (0.0, 0.1), **design, epochs=0, true_start=True)
    assert max(found["cosine"]["reconstruct"] + found["cosine"]["mask"]) < 1e-6
    assert found["loss"]["reconstruct"] == pytest.approx(found["loss"]["mask"]) and len(found["loss"]["mask"]) == 2
    learnt = S.compare_objectives(0, (6, 9), (0.0, 0.1), **design, epochs=2)
    assert learnt["cosine"]["reconstruct"] != learnt["cosine"]["mask"]
