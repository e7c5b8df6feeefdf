"""Relative signal strength, the finite domain and linear classifiers."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from labcode.imperfect_labels.label_sets import transition
from labcode.imperfect_labels.noisy_labels import (
    balanced_separator,
    cells,
    erm_excess,
    fit_linear,
    linear_logits,
    minimax_regret,
    relative_signal_strength,
    symmetric_strength,
    upper_bound,
    zero_signal,
)  # fmt: skip


def posteriors(n=40, k=5, seed=0):
    return torch.rand(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).softmax(1)


def test_strength_against_a_loop():
    clean, noisy = posteriors(), (3 * posteriors(seed=1)).softmax(1)
    got = relative_signal_strength(clean, noisy)
    for i in range(len(clean)):
        ratios = [
            (float(noisy[i].max()) - float(noisy[i, j])) / (float(clean[i].max()) - float(clean[i, j]))
            for j in range(5) if clean[i, j] < clean[i].max()
        ]  # fmt: skip
        assert float(got[i]) == pytest.approx(min(ratios), abs=1e-12)
    assert bool((got >= 0).all())


def test_strength_of_no_noise_and_of_ties():
    assert torch.allclose(relative_signal_strength(posteriors(), posteriors()), torch.ones(40, dtype=torch.float64))
    even = torch.full((1, 3), 1 / 3)
    assert float(relative_signal_strength(even, even)) == float("inf")
    with pytest.raises(ValueError, match="shape"):
        relative_signal_strength(even, torch.zeros(1, 4))


def test_symmetric_noise_has_one_strength():
    clean = posteriors(k=10)
    for rate in (0.1, 0.6):
        got = relative_signal_strength(clean, clean @ transition("symmetric", 10, rate))
        assert torch.allclose(got, torch.full_like(got, symmetric_strength(rate, 10)))
    assert symmetric_strength(0.9, 10) == pytest.approx(0) and symmetric_strength(0.97, 10) == 0


def test_excess_risk_goes_to_what_is_lost():
    g = torch.Generator().manual_seed(0)
    clean = cells(12, 4, generator=g)
    assert torch.allclose(clean.sum(1), torch.ones(12, dtype=torch.float64))
    assert float(erm_excess(clean, clean, 20_000, 5, generator=g).mean()) < 1e-3
    noisy = zero_signal(clean, 6, 1.0)
    assert torch.allclose(noisy[6:], clean[6:])
    assert torch.allclose(noisy[:6], torch.full((6, 4), 0.25, dtype=torch.float64))
    lost = float(erm_excess(clean, noisy, 20_000, 200, generator=g).mean())
    want = float((clean.amax(1) - clean.mean(1))[:6].sum()) / 12
    assert lost == pytest.approx(want, abs=0.03)
    assert upper_bound(0.5, 1.0, 12, 20_000) > lost


def test_no_rule_beats_chance_without_a_signal():
    g = torch.Generator().manual_seed(0)
    for rule in ("ni-erm", "minority", "first"):
        assert minimax_regret(5, 4, rule, trials=2000, generator=g) == pytest.approx(0.75, abs=0.02)


def test_linear_fit_agrees_with_scikit_learn():
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(200, 6, generator=g), torch.randint(3, (2, 200), generator=g)
    y[0] = (z[:, :3] * 2 + torch.randn(200, 3, generator=g)).argmax(1)
    w = fit_linear(z, y, [0.01, 0.1], 3, steps=200)
    for i, l2 in enumerate((0.01, 0.1)):
        theirs = LogisticRegression(C=1 / (l2 * 200), tol=1e-8, max_iter=1000).fit(z.numpy(), y[i].numpy())
        p = linear_logits(w, z)[i].softmax(1).numpy()
        assert np.allclose(p, theirs.predict_proba(z.numpy()), atol=2e-3)


def test_linear_fit_refuses():
    z, y = torch.zeros(4, 2), torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="loss"):
        fit_linear(z, y, [0.1], 2, loss="hinge")
    with pytest.raises(ValueError, match="l2"):
        fit_linear(z, y, [0.1, 0.2], 2)


def test_forward_with_no_noise_is_plain():
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(60, 4, generator=g), torch.randint(3, (1, 60), generator=g)
    plain = fit_linear(z, y, [0.1], 3, steps=100)
    forward = fit_linear(z, y, [0.1], 3, loss="forward", matrix=torch.eye(3), steps=100)
    assert torch.allclose(plain, forward, atol=5e-3)


def test_separator_agrees_with_scikit_learn():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 300, 4, generator=g)
    noisy = (z[..., 0] + torch.randn(1, 300, generator=g) > 1)
    p = balanced_separator(z, noisy, steps=20, ridge=1e-6)
    x = ((z[0] - z[0].mean(0)) / z[0].std(0)).numpy()
    theirs = LogisticRegression(C=1e6, class_weight="balanced", max_iter=1000, tol=1e-8).fit(x, noisy[0].numpy())
    assert np.allclose(p[0].numpy(), theirs.predict_proba(x)[:, 1], atol=1e-2)
    assert bool((balanced_separator(z, torch.zeros(1, 300, dtype=torch.bool)) == 0.5).all())
