"""Supervised dictionaries: the lifted objective, its steps, and both rivals against independent answers."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from labcode.clustering import subspaces as S


def table(p=6, n=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, extra = torch.randn(p, n, dtype=torch.float64, generator=g), torch.randn(2, n, dtype=torch.float64, generator=g)
    y = (torch.rand(n, generator=g) < (x[0] + extra[0]).sigmoid()).double()
    return x, y, extra


@pytest.mark.parametrize("model", ["filter", "feature"])
def test_objective_is_the_loop(model):
    x, y, extra = table()
    g = torch.Generator().manual_seed(1)
    a = torch.randn(6 if model == "filter" else 40, dtype=torch.float64, generator=g)
    b, gamma = torch.randn(6, 40, dtype=torch.float64, generator=g), torch.tensor([0.3, -1.0], dtype=torch.float64)
    want = 0.7 * float((x - b).square().sum()) + 0.2 * float(a.square().sum() + b.square().sum() + gamma.square().sum())
    for i in range(40):
        logit = float((a @ x[:, i] if model == "filter" else a[i]) + gamma @ extra[:, i])
        want += np.log1p(np.exp(-logit if y[i] else logit))
    assert float(S.objective(a, b, gamma, x, y, extra, 0.7, 0.2, model)) == pytest.approx(want, rel=1e-10)


def test_truncation_is_that_of_the_svd():
    m = torch.randn(5, 9, dtype=torch.float64)
    u, s, v = torch.linalg.svd(m, full_matrices=False)
    want = u[:, :2] * s[:2] @ v[:2]
    assert torch.allclose(S.truncate(m, 2), want) and torch.allclose(S.truncate(m.T, 2), want.T)
    assert torch.allclose(S.truncate(m, 5), m)


@pytest.mark.parametrize("model", ["filter", "feature"])
@pytest.mark.parametrize("covariates", [True, False])
def test_steps_go_down_and_the_factors_are_the_lift(model, covariates):
    x, y, extra = table()
    found = S.lpgd(x, y, 3, 0.5, model=model, nu=0.1, covariates=extra if covariates else None, steps=40, trace=True)
    assert all(b <= a + 1e-9 for a, b in zip(found.objective[1:], found.objective[2:], strict=False))
    assert int(torch.linalg.matrix_rank(found.lifted)) <= 3 and len(found.trace) == 40
    if model == "filter":
        assert torch.allclose(found.w @ found.beta, found.lifted[:, 0], atol=1e-8)
        assert torch.allclose(found.w @ found.w.T @ found.lifted, found.lifted, atol=1e-8)
        given = extra if covariates else None
        logit = found.lifted[:, 0] @ x + (found.gamma @ extra if covariates else 0)
        assert torch.allclose(found.score(x, given), logit, atol=1e-8)


def test_full_rank_and_no_reconstruction_is_logistic_regression():
    x, y, _ = table()
    found = S.lpgd(x, y, 6, 0.0, nu=0.5, steps=300)
    assert torch.allclose(found.lifted[:, 0], S.logistic(x, y, 0.5), atol=1e-5)
    peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(x.T.numpy(), y.numpy())
    assert np.allclose(S.logistic(x, y, 0.5), peer.coef_[0], atol=1e-4)  # their C is 1 / (2 ν)


def test_only_reconstruction_is_the_truncated_svd():
    x, _, _ = table()
    found = S.lpgd(x, torch.zeros(40), 3, 1e4, steps=60)
    assert torch.allclose(found.lifted[:, 1:], S.truncate(x, 3), atol=0.05)
    assert found.rebuilt(x) == pytest.approx(S.two_steps(x, torch.zeros(40), 3, nu=1.0).rebuilt(x), rel=1e-2)


@pytest.mark.parametrize("model", ["filter", "feature"])
def test_block_descent_never_rises_and_stays_positive(model):
    x, y, extra = table()
    found = S.bcd(
        x.abs(),
        y,
        3,
        0.3,
        model=model,
        nu=0.01,
        covariates=extra,
        rounds=40,
        generator=torch.Generator().manual_seed(0),
    )
    assert max(b - a for a, b in zip(found.objective, found.objective[1:], strict=False)) <= 1e-8 * found.objective[0]
    assert float(found.w.min()) >= 0 and float(found.w.norm(dim=0).max()) <= 1 + 1e-9
    assert float(found.codes(x.abs()).min()) >= 0 and found.score(x.abs(), extra).shape == (40,)


def test_what_is_refused_and_the_f_score():
    x, y, _ = table()
    for bad, name in (
        (dict(rank=0), "rank"),
        (dict(xi=-1.0), "xi"),
        (dict(nu=-1.0), "nu"),
        (dict(model="both"), "model"),
    ):
        with pytest.raises(ValueError, match=name):
            S.lpgd(x, y, **dict(rank=2) | bad)
    with pytest.raises(ValueError, match="y must"):
        S.lpgd(x, y[:3], 2)
    from sklearn.metrics import f1_score

    score, truth = torch.tensor([1.0, -1.0, 2.0, 3.0, -2.0]), torch.tensor([1, 1, 0, 1, 0])
    assert S.f_score(score, truth) == pytest.approx(f1_score(truth, score > 0))
    assert S.f_score(-torch.ones(3), torch.tensor([0, 0, 1])) == 0


def test_planted_labels_follow_the_planted_weights():
    x, y, true = S.planted_classifier(20000, torch.Generator().manual_seed(0))
    assert x.shape == (20, 20000) and true.shape == (20,)
    assert torch.linalg.svdvals(x)[2] > 3 * torch.linalg.svdvals(x)[3], "rank 3 and noise"
    w = S.logistic(x, y)
    assert torch.nn.functional.cosine_similarity(w, true, dim=0) > 0.98
    assert abs(float(((true @ x).sigmoid() - y).mean())) < 0.02


@pytest.mark.parametrize("positive", [False, True])
def test_a_learner_is_judged_on_columns_that_it_has_not_seen(positive):
    seen = {}

    def learner(x, y, covariates, generator):
        seen.update(x=x, y=y, covariates=covariates)
        return S.two_steps(x, y, 3, nu=0.1, covariates=covariates)

    found = S.on_mixtures(learner, 40, 1, positive=positive)
    x, y = S.digit_mixtures(80, 1)
    assert torch.equal(seen["y"], y[:40]) and seen["x"].shape == (100, 40)
    if positive:
        assert float(seen["x"].min()) == 0 and bool((seen["covariates"] == 1).all())
    else:
        assert float(seen["x"].mean(1).abs().max()) < 1e-12 and seen["covariates"] is None
    centred = x[:, 40:].clamp_min(0) if positive else x[:, 40:] - x[:, :40].mean(1, keepdim=True)
    model = S.two_steps(seen["x"], y[:40], 3, nu=0.1, covariates=seen["covariates"])
    assert found == S.judged(model, centred, y[40:], seen["covariates"])
