"""Leaks before cross-validation against scikit-learn, SciPy and the papers' moments."""

import math

import numpy as np
import pytest
import torch
from foundations.evaluation.helpers import g

from labcode.foundations import evaluation as E


@pytest.mark.parametrize("df", [0, 4, 10])
def test_student_has_the_distribution_of_scipys(df):
    from scipy import stats

    x = E.student((20_000,), df, generator=g(1)).numpy()
    law = stats.t(df) if df else stats.norm
    assert stats.kstest(x, law.cdf).pvalue > 1e-3
    assert stats.kstest(1.1 * x, law.cdf).pvalue < 1e-3  # and it would notice


@pytest.mark.bad_input
@pytest.mark.parametrize("df", [3, -2])
def test_student_refuses_odd_and_negative_degrees(df):
    with pytest.raises(ValueError, match=f"df must be even and at least 0, got {df}"):
        E.student((3,), df, generator=g())


def test_data_have_the_papers_moments():
    x, y = E.wide_regression(400, 60, df=0, generator=g(2))
    assert x[..., :5].std() == pytest.approx(5, rel=0.02) and x[..., 5:].std() == pytest.approx(1, rel=0.02)
    assert float(y.var()) == pytest.approx(2 * (5 * 25 + 95), rel=0.1)  # half signal, half noise
    x, y = E.categories(3000, 40, sigma=0.5, generator=g(3))
    assert torch.equal(x.sum(2), torch.ones(3000, 40)) and float(y.var()) == pytest.approx(1.25, rel=0.05)
    x, y = E.narrow_regression(4000, 20, sigma=0.0, generator=g(4))
    assert float(x.square().sum(2).mean()) == pytest.approx(1, rel=0.02)
    assert float(y.var()) == pytest.approx(1, rel=0.05)
    x, y = E.tumours()
    row = E.drawn_from(x, y)(5, 569, generator=g())[1]
    assert torch.equal(row.sort(1).values, y.sort().values.expand(5, -1))  # without replacement


def test_variance_filter_keeps_what_numpys_variances_say():
    x, z = torch.randn(4, 12, 9, generator=g()), torch.randn(4, 3, 9, generator=g(1))
    kept = E.variance_filter(3)(x)(z)
    for r in range(4):
        best = np.argsort(-x[r].numpy().var(0))[:3]
        np.testing.assert_array_equal(np.sort(kept[r]), np.sort(z[r].numpy()[:, best]))


def test_rare_categories_are_predicted_0_and_others_by_their_mean():
    x, y = E.categories(6, 30, generator=g(1))
    new, _ = E.categories(6, 15, generator=g(2))
    transform = E.rare_to_zero(2)(x)
    said = E.least_squares(transform(x), y)(transform(new))
    for r in range(6):
        known, asked = x[r].argmax(1), new[r].argmax(1)
        wanted = [float(y[r][known == c].mean()) if (known == c).sum() >= 2 else 0.0 for c in asked.tolist()]
        np.testing.assert_allclose(said[r], wanted, atol=1e-5)


@pytest.mark.parametrize("n,c,m,sigma", [(6, 3, 3, 0.5), (10, 5, 2, 1.5), (8, 2, 1, 0.3)])
def test_errors_with_rare_categories_merged_are_the_sum_over_all_counts(n, c, m, sigma):
    choose = lambda k, n: math.comb(n, k) / c**k * (1 - 1 / c) ** (n - k)  # noqa: E731
    wanted = []
    for others, itself in ((n - 1, 1), (n, 0)):
        total = 0.0
        for t in range(n + 1):
            for v in range(others + 1):
                error = sigma**2 * (1 + 1 / t) if t and t + v + itself >= m else 1 + sigma**2
                total += choose(t, n) * (choose(v, others) if v <= others else 0) * error
        wanted.append(total)
    assert E.rare_errors(n, c, m, sigma) == pytest.approx(tuple(wanted))
    if m == 1:
        assert E.rare_errors(n, c, m, sigma)[0] == pytest.approx(E.rare_errors(n, c, m, sigma)[1])


def test_learners_and_components_are_scikit_learns():
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Lasso, LinearRegression

    x, y = E.narrow_regression(5, 25, sigma=0.3, generator=g(5))
    z = torch.randn(5, 7, 5, generator=g(6))
    scaled = E.unit_scale(x)(x)
    np.testing.assert_allclose((scaled**2).mean(1), np.ones((5, 5)), rtol=1e-5)
    plain, sparse = E.least_squares(x, y)(z), E.lasso(0.2)(scaled, y)(z)
    parts = E.leading_components(2)(x)(z)
    for r in range(5):
        a, b, c = x[r].numpy(), y[r].numpy(), z[r].numpy()
        model = LinearRegression(fit_intercept=False).fit(a, b)
        np.testing.assert_allclose(plain[r], model.predict(c), rtol=1e-3, atol=1e-4)
        model = Lasso(0.2, fit_intercept=False, tol=1e-6).fit(scaled[r].double().numpy(), b.astype(float))
        np.testing.assert_allclose(sparse[r], model.predict(c), atol=1e-4)
        wanted = PCA(2).fit(a).transform(c)[:, ::-1]
        np.testing.assert_allclose(parts[r, :, :2].abs().numpy(), np.abs(wanted), atol=1e-4)
    assert torch.equal(parts[..., 2], torch.ones(5, 7))


@pytest.mark.parametrize("inside", [True, False])
def test_cross_validated_is_scikit_learns_with_a_pipeline_or_without(inside):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    x, y = E.narrow_regression(3, 24, sigma=0.5, generator=g(7))
    new = E.narrow_regression(3, 10, sigma=0.5, generator=g(8))
    seen, true = E.cross_validated(x, y, *new, E.leading_components(3), E.least_squares, inside, folds=4)
    for r in range(3):
        a, b = x[r].double().numpy(), y[r].numpy()
        model = make_pipeline(PCA(3), LinearRegression())
        if not inside:
            a, model = PCA(3).fit_transform(a), LinearRegression()
        scores = cross_val_score(model, a, b, scoring="neg_mean_squared_error", cv=KFold(4))
        assert float(seen[r]) == pytest.approx(-scores.mean(), rel=1e-3)
    shared = E.leading_components(3)(x)
    errors = []
    for fold in range(4):
        out = torch.zeros(24, dtype=torch.bool)
        out[6 * fold : 6 * fold + 6] = True
        transform = E.leading_components(3)(x[:, ~out]) if inside else shared
        errors.append((E.least_squares(transform(x[:, ~out]), y[:, ~out])(transform(new[0])) - new[1]).square().mean(1))
    torch.testing.assert_close(true, torch.stack(errors).mean(0))


@pytest.mark.bad_input
@pytest.mark.parametrize("folds", [1, 5])
def test_cross_validated_refuses_folds_that_do_not_divide(folds):
    x, y = E.narrow_regression(2, 12, generator=g())
    with pytest.raises(ValueError, match=f"folds must be at least 2 and divide the 12 samples, got {folds}"):
        E.cross_validated(x, y, x, y, E.unchanged, E.least_squares, False, folds)


def test_cv_bias_vanishes_without_preprocessing_and_inside_the_folds_but_not_before():
    def z(preprocess, inside):
        seen, true, error = E.cv_bias(E.categories, preprocess, E.least_squares, 40, inside, 1500, seed=1)
        return (seen - true) / error

    assert abs(z(E.unchanged, False)) < 4 and z(E.unchanged, False) == z(E.unchanged, True)
    assert abs(z(E.rare_to_zero(4), True)) < 4
    assert z(E.rare_to_zero(4), False) < -20


def test_cv_bias_reports_the_standard_error_of_the_difference():
    def draw(r, n, *, generator):
        return torch.ones(r, n, 1), torch.randn(r, n, generator=generator)

    def guess(x, y):
        return lambda z: torch.zeros(z.shape[:2])

    seen, true, error = E.cv_bias(draw, E.unchanged, guess, 10, True, 4000, seed=0)
    assert seen == pytest.approx(1, abs=0.05) and true == pytest.approx(1, abs=0.05)
    assert error == pytest.approx(math.sqrt((2 / 10 + 2 / 10) / 4000), rel=0.1)  # Var(χ²/n) = 2/n, twice


def test_cv_choice_takes_the_true_error_of_the_smallest_estimate():
    x, y = E.categories(5, 40, sigma=1.5, generator=g(9))
    new = E.categories(5, 50, sigma=1.5, generator=g(10))
    family = [E.rare_to_zero(m) for m in (1, 3, 6)]
    got = E.cv_choice(x, y, *new, family, E.least_squares, True)
    for r in range(5):
        one = slice(r, r + 1)
        estimates, truths = [], []
        for preprocess in family:
            cut = x[one], y[one], new[0][one], new[1][one]
            estimates.append(float(E.cross_validated(*cut, preprocess, E.least_squares, True)[0]))
            t = preprocess(x[one])
            truths.append(float((E.least_squares(t(x[one]), y[one])(t(new[0][one])) - new[1][one]).square().mean()))
        assert float(got[r]) == pytest.approx(truths[int(np.argmin(estimates))], rel=1e-4)


def test_features_of_zeros_stay_and_their_weights_are_zero():
    x, y = E.narrow_regression(4, 12, generator=g())
    x[:, :, 2] = 0
    scaled = E.unit_scale(x)(x)
    assert torch.isfinite(scaled).all() and not scaled[:, :, 2].any()
    with_, without = (E.lasso(0.01)(part, y)(part) for part in (x, x[:, :, [0, 1, 3, 4]]))
    assert torch.allclose(with_, without, atol=1e-5)


@pytest.mark.bad_input
def test_samples_that_are_not_finite_are_refused_by_name():
    x, y = E.narrow_regression(2, 8, generator=g())
    odd = x.clone()
    odd[0, 0, 0] = float("nan")
    for name, one, two in (("x", odd, y), ("y", x, y * float("inf"))):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            E.cross_validated(one, two, x, y, E.unchanged, E.least_squares, True)
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            E.drawn_from(one[0], two[0])
