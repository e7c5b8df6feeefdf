"""What one number hides: sources, leaks and subgroups against scikit-learn, SciPy, NumPy loops and autograd."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from labcode.data.benchmarks import Benchmark
from labcode.foundations import shifts as S


def g(seed=0):
    return Generator().manual_seed(seed)


def rows(x):
    return {tuple(row) for row in x.flatten(1).tolist()}


# Two sources


def test_glyphs_are_ten_different_figures_in_every_font():
    x = S.glyphs()
    assert x.shape == (len(S.FONTS), 10, 32, 32) and len(set(S.FONTS)) == 21
    assert x.min() >= 0 and x.max() <= 1 and x.amax((2, 3)).min() > 0.9
    for font in x:
        assert len(rows(font)) == 10
    inked = (x > 0).any(3).sum(2), (x > 0).any(2).sum(2)
    assert torch.stack(inked).amax(0).sub(28).abs().max() <= 1  # the longer side fills what the margin leaves


def test_parts_share_neither_a_handwritten_digit_nor_a_font(monkeypatch):
    parts = [S.two_sources(part, seed=3) for part in S.PARTS]
    seen = [rows(p["handwritten"][0]) for p in parts]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    for part in parts:
        assert {k: (len(x), len(y)) for k, (x, y) in part.items()} == dict.fromkeys(part, (599, 599))
    # paint every font in a grey of its own: a part's greys tell which fonts it took
    grey = torch.linspace(0.1, 1, len(S.FONTS))[:, None, None, None].expand(-1, 10, 32, 32)
    monkeypatch.setattr(S, "glyphs", lambda: grey)
    monkeypatch.setattr(S.torch, "rand", lambda *shape, generator=None: torch.full(shape, 0.5))
    monkeypatch.setattr(S.torch, "randn", lambda *shape, generator=None: torch.zeros(shape))
    fonts = []
    for part in S.PARTS:
        x, _ = S.printed_digits(400, 0, part)
        found = (x[:, 0, 4, 4] / 0.75)[:, None] - grey[:, 0, 0, 0]
        assert found.abs().amin(1).max() < 1e-5
        fonts.append(set(found.abs().argmin(1).tolist()))
    assert [len(f) for f in fonts] == [7, 7, 7] and len(set.union(*fonts)) == 21


@pytest.mark.bad_input
def test_printed_digits_refuse_what_they_cannot_draw():
    with pytest.raises(ValueError, match="part must be one of train, validation, test, got 'fit'"):
        S.printed_digits(3, 0, "fit")
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        S.printed_digits(0)


def test_printed_digits_follow_the_seed_and_are_even():
    (x, y), (same, _), (other, _) = (S.printed_digits(50, seed) for seed in (1, 1, 2))
    assert torch.equal(x, same) and not torch.equal(x, other)
    assert torch.bincount(y).tolist() == [5] * 10 and x.min() >= 0 and x.max() <= 1


def test_pooled_takes_the_same_share_of_every_source():
    sources = {"a": (torch.zeros(6, 1, 2, 2), torch.zeros(6).long())}
    sources["b"] = torch.ones(4, 1, 2, 2), torch.ones(4).long()
    x, y = S.pooled(sources, 0.5)
    assert y.tolist() == [0, 0, 0, 1, 1] and torch.equal(x[:, 0, 0, 0].long(), y)
    assert len(S.pooled(sources)[0]) == 10


def test_pixel_statistics_and_standardised_are_numpys():
    x = torch.rand(5, 3, 4, 4, generator=g())
    found = S.pixel_statistics(x)
    for c in range(3):
        pixels = x[:, c].double().numpy().ravel()
        assert (found["mean"][c], found["std"][c]) == pytest.approx((pixels.mean(), pixels.std(ddof=1)))
    level = S.standardised(10 * x + 3)
    torch.testing.assert_close(level.mean((2, 3)), torch.zeros(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(S.standardised(2 * x), S.standardised(5 * x + 1), atol=1e-2, rtol=0)
    assert S.standardised(torch.ones(1, 1, 4, 4)).abs().max() == 0


def test_source_matrix_by_hand():
    """A learner that always says the label it saw first."""

    def learn(x, y):
        return lambda new: y[:1].expand(len(new))

    image = torch.zeros(4, 1, 1, 1)
    train = {"a": (image, torch.tensor([1, 0, 0, 0])), "b": (image, torch.tensor([2, 2, 2, 2]))}
    test = {"a": (image, torch.tensor([1, 1, 1, 2])), "b": (image, torch.tensor([2, 2, 1, 0]))}
    wanted = {("a", "a"): 0.75, ("a", "b"): 0.25, ("b", "a"): 0.25, ("b", "b"): 0.5}
    assert S.source_matrix(learn, train, test) == wanted


def test_rank_agreement_is_one_less_six_sums_of_squared_rank_differences():
    a, b = [0.3, 0.1, 0.9, 0.5, 0.2], [3.0, 2.0, 5.0, 1.0, 4.0]
    ranks = [sorted(v).index(u) for u, v in ((u, a) for u in a)], [sorted(b).index(u) for u in b]
    wanted = 1 - 6 * sum((i - j) ** 2 for i, j in zip(*ranks, strict=True)) / (5 * 24)
    assert S.rank_agreement(a, b) == pytest.approx(wanted) and S.rank_agreement(a, a) == pytest.approx(1)
    assert S.rank_agreement(a, [1.0] * 5) == 0


def test_scikit_and_network_learn_the_digits():
    from sklearn.neighbors import KNeighborsClassifier

    x, y = S.two_sources("train", 0)["handwritten"]
    new, wanted = S.two_sources("test", 0)["handwritten"]
    direct = KNeighborsClassifier(1).fit(x.flatten(1).numpy(), y.numpy()).predict(new.flatten(1).numpy())
    assert S.scikit(lambda: KNeighborsClassifier(1))(x, y)(new).tolist() == direct.tolist()
    from labcode.nets import SmallNet

    learn = S.network(lambda: SmallNet(16, 32, channels=1), 10, 60, seed=0, lr=1e-2)
    assert float((learn(x, y)(new) == wanted).float().mean()) > 0.7
    assert torch.equal(learn(x, y)(new), learn(x, y)(new))


def test_matched_sources_keep_shared_classes_under_one_label_and_shrink_the_second():
    def made(names, size, n, seed):
        y = torch.randint(len(names), (n,), generator=g(seed))
        x = (20 * y[:, None, None, None] + torch.randint(9, (n, 3, size, size), generator=g(seed))).to(torch.uint8)
        return Benchmark(x[:n // 2], y[:n // 2], x[n // 2 :], y[n // 2 :], "made", names)

    first = made(("plane", "automobile", "frog", "cat"), 4, 90, 0)
    second = made(("cat", "car", "monkey", "plane"), 12, 60, 1)
    parts = [S.matched_sources(first, second, part, seed=5) for part in S.PARTS]
    theirs = {0: 3, 1: 1, 3: 0}
    for part in parts:
        (x, y), (u, v) = part["first"], part["second"]
        assert x.shape == u.shape and x.shape[1:] == (3, 4, 4) and 2 not in y and 2 not in v
        assert torch.equal((255 * x).mean((1, 2, 3)).div(20).floor().long(), y)
        level = (255 * u).mean((1, 2, 3)).div(20).floor().long()
        assert [theirs[k] for k in level.tolist()] == v.tolist()
    assert not rows(parts[0]["second"][0]) & rows(parts[2]["second"][0])


# Cross-validation after preprocessing


@pytest.mark.parametrize("df", [0, 4, 10])
def test_student_has_the_distribution_of_scipys(df):
    from scipy import stats

    x = S.student((20_000,), df, generator=g(1)).numpy()
    law = stats.t(df) if df else stats.norm
    assert stats.kstest(x, law.cdf).pvalue > 1e-3
    assert stats.kstest(1.1 * x, law.cdf).pvalue < 1e-3  # and it would notice


@pytest.mark.bad_input
@pytest.mark.parametrize("df", [3, -2])
def test_student_refuses_odd_and_negative_degrees(df):
    with pytest.raises(ValueError, match=f"df must be even and at least 0, got {df}"):
        S.student((3,), df, generator=g())


def test_data_have_the_papers_moments():
    x, y = S.wide_regression(400, 60, df=0, generator=g(2))
    assert x[..., :5].std() == pytest.approx(5, rel=0.02) and x[..., 5:].std() == pytest.approx(1, rel=0.02)
    assert float(y.var()) == pytest.approx(2 * (5 * 25 + 95), rel=0.1)  # half signal, half noise
    x, y = S.categories(3000, 40, sigma=0.5, generator=g(3))
    assert torch.equal(x.sum(2), torch.ones(3000, 40)) and float(y.var()) == pytest.approx(1.25, rel=0.05)
    x, y = S.narrow_regression(4000, 20, sigma=0.0, generator=g(4))
    assert float(x.square().sum(2).mean()) == pytest.approx(1, rel=0.02)
    assert float(y.var()) == pytest.approx(1, rel=0.05)
    x, y = S.tumours()
    row = S.drawn_from(x, y)(5, 569, generator=g())[1]
    assert torch.equal(row.sort(1).values, y.sort().values.expand(5, -1))  # without replacement


def test_variance_filter_keeps_what_numpys_variances_say():
    x, z = torch.randn(4, 12, 9, generator=g()), torch.randn(4, 3, 9, generator=g(1))
    kept = S.variance_filter(3)(x)(z)
    for r in range(4):
        best = np.argsort(-x[r].numpy().var(0))[:3]
        np.testing.assert_array_equal(np.sort(kept[r]), np.sort(z[r].numpy()[:, best]))


def test_rare_categories_are_predicted_0_and_others_by_their_mean():
    x, y = S.categories(6, 30, generator=g(1))
    new, _ = S.categories(6, 15, generator=g(2))
    transform = S.rare_to_zero(2)(x)
    said = S.least_squares(transform(x), y)(transform(new))
    for r in range(6):
        known, asked = x[r].argmax(1), new[r].argmax(1)
        wanted = [float(y[r][known == c].mean()) if (known == c).sum() >= 2 else 0.0 for c in asked.tolist()]
        np.testing.assert_allclose(said[r], wanted, atol=1e-5)


def test_learners_and_components_are_scikit_learns():
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Lasso, LinearRegression

    x, y = S.narrow_regression(5, 25, sigma=0.3, generator=g(5))
    z = torch.randn(5, 7, 5, generator=g(6))
    scaled = S.unit_scale(x)(x)
    np.testing.assert_allclose((scaled**2).mean(1), np.ones((5, 5)), rtol=1e-5)
    plain, sparse = S.least_squares(x, y)(z), S.lasso(0.2)(scaled, y)(z)
    parts = S.leading_components(2)(x)(z)
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

    x, y = S.narrow_regression(3, 24, sigma=0.5, generator=g(7))
    new = S.narrow_regression(3, 10, sigma=0.5, generator=g(8))
    seen, true = S.cross_validated(x, y, *new, S.leading_components(3), S.least_squares, inside, folds=4)
    for r in range(3):
        a, b = x[r].double().numpy(), y[r].numpy()
        model = make_pipeline(PCA(3), LinearRegression())
        if not inside:
            a, model = PCA(3).fit_transform(a), LinearRegression()
        scores = cross_val_score(model, a, b, scoring="neg_mean_squared_error", cv=KFold(4))
        assert float(seen[r]) == pytest.approx(-scores.mean(), rel=1e-3)
    shared = S.leading_components(3)(x)
    errors = []
    for fold in range(4):
        out = torch.zeros(24, dtype=torch.bool)
        out[6 * fold : 6 * fold + 6] = True
        transform = S.leading_components(3)(x[:, ~out]) if inside else shared
        errors.append((S.least_squares(transform(x[:, ~out]), y[:, ~out])(transform(new[0])) - new[1]).square().mean(1))
    torch.testing.assert_close(true, torch.stack(errors).mean(0))


@pytest.mark.bad_input
@pytest.mark.parametrize("folds", [1, 5])
def test_cross_validated_refuses_folds_that_do_not_divide(folds):
    x, y = S.narrow_regression(2, 12, generator=g())
    with pytest.raises(ValueError, match=f"folds must be at least 2 and divide the 12 samples, got {folds}"):
        S.cross_validated(x, y, x, y, S.unchanged, S.least_squares, False, folds)


def test_cv_bias_vanishes_without_preprocessing_and_inside_the_folds_but_not_before():
    def z(preprocess, inside):
        seen, true, error = S.cv_bias(S.categories, preprocess, S.least_squares, 40, inside, 1500, seed=1)
        return (seen - true) / error

    assert abs(z(S.unchanged, False)) < 4 and z(S.unchanged, False) == z(S.unchanged, True)
    assert abs(z(S.rare_to_zero(4), True)) < 4
    assert z(S.rare_to_zero(4), False) < -20


def test_cv_bias_reports_the_standard_error_of_the_difference():
    def draw(r, n, *, generator):
        return torch.ones(r, n, 1), torch.randn(r, n, generator=generator)

    def guess(x, y):
        return lambda z: torch.zeros(z.shape[:2])

    seen, true, error = S.cv_bias(draw, S.unchanged, guess, 10, True, 4000, seed=0)
    assert seen == pytest.approx(1, abs=0.05) and true == pytest.approx(1, abs=0.05)
    assert error == pytest.approx(math.sqrt((2 / 10 + 2 / 10) / 4000), rel=0.1)  # Var(χ²/n) = 2/n, twice


def test_cv_choice_takes_the_true_error_of_the_smallest_estimate():
    x, y = S.categories(5, 40, sigma=1.5, generator=g(9))
    new = S.categories(5, 50, sigma=1.5, generator=g(10))
    family = [S.rare_to_zero(m) for m in (1, 3, 6)]
    got = S.cv_choice(x, y, *new, family, S.least_squares, True)
    for r in range(5):
        one = slice(r, r + 1)
        estimates, truths = [], []
        for preprocess in family:
            cut = x[one], y[one], new[0][one], new[1][one]
            estimates.append(float(S.cross_validated(*cut, preprocess, S.least_squares, True)[0]))
            t = preprocess(x[one])
            truths.append(float((S.least_squares(t(x[one]), y[one])(t(new[0][one])) - new[1][one]).square().mean()))
        assert float(got[r]) == pytest.approx(truths[int(np.argmin(estimates))], rel=1e-4)


# Subgroups


def test_macro_std_is_the_weighted_deviation_of_numpy_loops():
    n, classes, subgroups = 400, 4, 3
    labels, groups = torch.randint(classes, (n,), generator=g()), torch.randint(subgroups, (n,), generator=g(1))
    groups[labels == 2] = groups[labels == 2].clamp(max=1)  # a subgroup without images
    correct = torch.rand(n, generator=g(2)) < 0.3 + 0.2 * groups
    accuracy, counts = S.subgroup_accuracy(correct, labels, groups, classes, subgroups)
    spreads = []
    for c in range(classes):
        cells = [correct[(labels == c) & (groups == k)].double().numpy() for k in range(subgroups)]
        cells = [cell for cell in cells if len(cell)]
        means, sizes = [cell.mean() for cell in cells], [len(cell) for cell in cells]
        middle = np.average(means, weights=sizes)
        spreads.append(math.sqrt(np.average((np.array(means) - middle) ** 2, weights=sizes)))
        assert middle == pytest.approx(float(correct[labels == c].double().mean()))
    assert S.macro_std(accuracy, counts) == pytest.approx(np.mean(spreads), rel=1e-10)
    assert counts.sum() == n and counts[2, 2] == 0


def test_macro_std_closed_forms():
    even = torch.full((2, 2), 10.0).double()
    assert S.macro_std(torch.tensor([[0.0, 1], [1, 0]]).double(), even) == pytest.approx(0.5)
    assert S.macro_std(torch.full((2, 2), 0.7).double(), even) == pytest.approx(0, abs=1e-12)
    uneven = torch.tensor([[30.0, 10]]).double()
    assert S.macro_std(torch.tensor([[0.8, 0.4]]).double(), uneven) == pytest.approx(math.sqrt(3 / 16) * 0.4)
    assert S.macro_std(torch.tensor([[0.8, 0.4]]).double(), 7 * uneven) == pytest.approx(math.sqrt(3 / 16) * 0.4)


@pytest.mark.bad_input
def test_macro_std_refuses_a_class_without_images():
    with pytest.raises(ValueError, match=r"every class needs images, got none for \[1\]"):
        S.macro_std(torch.zeros(2, 2), torch.tensor([[1.0, 1], [0, 0]]))


def test_chance_macro_std_is_that_of_groups_shuffled_within_classes():
    labels, groups = torch.arange(300) % 3, torch.randint(4, (300,), generator=g())
    correct = torch.rand(300, generator=g(1)) < 0.4 + 0.5 * (groups == labels)
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        dealt = groups.clone()
        for c in range(3):
            where = np.flatnonzero((labels == c).numpy())
            dealt[where] = groups[rng.permutation(where)]
        found.append(S.macro_std(*S.subgroup_accuracy(correct, labels, dealt, 3, 4)))
    ours = S.chance_macro_std(correct, labels, groups, 3, 4, draws=300)
    assert ours == pytest.approx(np.mean(found), abs=4 * np.std(found) / math.sqrt(150))
    assert ours < 0.5 * S.macro_std(*S.subgroup_accuracy(correct, labels, groups, 3, 4))
    assert S.chance_macro_std(torch.ones(300, dtype=torch.bool), labels, groups, 3, 4) == 0


def test_coloured_scenes_prefer_a_colour_with_probability_rho():
    made = S.coloured_scenes(4000, 0, "train", 0.7)
    usual = made.factors["group"] == made.labels % 5
    assert float(usual.float().mean()) == pytest.approx(0.7 + 0.3 / 5, abs=0.03)
    off = made.factors["background"] - torch.tensor(S.PALETTE)[made.factors["group"]]
    assert off.abs().max() <= 0.05 + 1e-6
    sure = S.coloured_scenes(200, 1, "test", 1.0)
    assert torch.equal(sure.factors["group"], sure.labels % 5)
    even = S.coloured_scenes(4000, 0, "train", 0.0)
    table = torch.bincount(even.labels * 5 + even.factors["group"], minlength=50).view(10, 5).double()
    assert float(table.min()) > 40 and float((even.factors["group"] == even.labels % 5).double().mean()) < 0.25


@pytest.mark.bad_input
def test_coloured_scenes_refuse_a_rho_that_is_no_probability():
    with pytest.raises(ValueError, match=r"rho must be in \[0, 1\], got 1.5"):
        S.coloured_scenes(3, 0, "train", 1.5)


def test_border_colours_look_at_the_border_alone():
    x = torch.rand(20, 3, 8, 8, generator=g())
    x[:5] = torch.tensor(S.PALETTE)[:, :, None, None] + 0.05
    x[:5, :, 2:-2, 2:-2] = 0.5
    found = S.border_colours(x)
    assert found[:5].tolist() == [0, 1, 2, 3, 4]
    for image, colour in zip(x, found.tolist(), strict=True):
        pixels = [image[:, i, j] for i in range(8) for j in range(8) if min(i, j, 7 - i, 7 - j) < 2]
        mean = torch.stack(pixels).mean(0)
        assert colour == int(np.argmin([float((mean - torch.tensor(p)).norm()) for p in S.PALETTE]))


def test_cosine_basis_is_scipys():
    from scipy.fft import dct

    np.testing.assert_allclose(S.cosine_basis(6).numpy(), dct(np.eye(6), norm="ortho", axis=0), atol=1e-6)


def random_flow(size=3, channels=2, coarse=1, seed=0, layers=4):
    """A flow whose couplings do something, in double precision."""
    flow = S.GlobalLocalFlow(size, channels, coarse, layers, hidden=8, seed=seed).double()
    for i, p in enumerate(flow.parameters()):
        p.data += 0.4 * torch.randn(p.shape, generator=g(seed + i), dtype=p.dtype)
    return flow.standardise(torch.rand(40, channels, size, size, generator=g(seed), dtype=torch.float64))


@pytest.mark.parametrize("size,channels,coarse,layers", [(3, 2, 1, 4), (4, 3, 2, 3), (2, 4, 1, 2)])
def test_the_flows_log_determinant_is_that_of_autograds_jacobian_and_it_inverts(size, channels, coarse, layers):
    flow = random_flow(size, channels, coarse, layers=layers)
    x = torch.rand(3, channels, size, size, generator=g(9), dtype=torch.float64)
    z, fine, logdet = flow(x)
    assert z.shape[1] == channels * coarse**2 and z.shape[1] + fine.shape[1] == channels * size**2
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda v: torch.cat(flow(v)[:2], 1)[0], x[i : i + 1]).flatten(1)
        assert logdet[i].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-4)
    torch.testing.assert_close(flow.inverse(z, fine), x, atol=1e-5, rtol=0)
    assert logdet.std().item() > 1e-3  # it depends on x: no linear map


def test_a_coupling_begins_as_the_identity_and_leaves_half_alone():
    moved = torch.tensor([True, False, True])
    layer = S.Coupling(moved, 0, 4)
    x = torch.randn(5, 3, generator=g())
    y, logdet = layer(x, x[:, :0])
    assert torch.equal(y, x) and logdet.abs().max() == 0
    layer.net[2].bias.data[:] = torch.tensor([10.0, -10, 1, 2])  # scales, then shifts
    y, logdet = layer(x, x[:, :0])
    s = 2 * torch.tanh(torch.tensor([5.0, -5]))
    torch.testing.assert_close(y, torch.stack([x[:, 0] * s[0].exp() + 1, x[:, 1], x[:, 2] * s[1].exp() + 2], 1))
    torch.testing.assert_close(logdet, s.sum().expand(5))


def test_an_untrained_flow_is_the_gaussian_of_the_cosine_coefficients():
    from scipy import stats
    from scipy.fft import dctn

    x = torch.rand(50, 2, 3, 3, generator=g()).double() + torch.rand(50, 2, 1, 1, generator=g(1)).double()
    flow = S.GlobalLocalFlow(3, 2).double().standardise(x)
    y = dctn(x.numpy(), axes=(2, 3), norm="ortho").reshape(50, -1)
    wanted = -stats.norm(y.mean(0), y.std(0, ddof=1) + 1e-3).logpdf(y).sum(1).mean() / 18
    assert flow.nll(x).item() == pytest.approx(wanted, abs=1e-5)


def test_the_flows_likelihood_has_the_right_gradient():
    flow = random_flow(2, 2, layers=2)
    x = torch.rand(3, 2, 2, 2, generator=g(3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(flow.nll, x)


def test_fitting_learns_what_no_gaussian_can():
    """Two grey levels: the mean colour's distribution has two modes, which the global couplings must tell apart."""
    level = (torch.rand(600, 1, 1, 1, generator=g()) < 0.5).float() * 0.6 + 0.2
    x = (level + 0.02 * torch.randn(600, 3, 4, 4, generator=g(1))).clamp(0, 1)
    flow = S.GlobalLocalFlow(4, layers=4, hidden=32)
    before = float(flow.standardise(x).nll(x))
    after = float(S.fit_flow(flow, x, 250, lr=5e-3).nll(x))
    assert after < before - 0.1
    assert not any(p.requires_grad for p in flow.parameters())


def test_flow_aug_shifts_global_latents_and_keeps_local_ones():
    flow = random_flow(4, 3).float()
    x = 0.4 + 0.2 * torch.rand(6, 3, 4, 4, generator=g(2))
    torch.testing.assert_close(S.flow_aug(flow, 0.0)(x, generator=g()), x, atol=1e-4, rtol=0)
    z, fine, _ = flow(x)
    moved = S.flow_aug(flow, 0.01)(x, generator=g(3))
    assert 0 < moved.min() and moved.max() < 1  # nothing was clipped
    z2, fine2, _ = flow(moved)
    torch.testing.assert_close(fine2, fine, atol=3e-4, rtol=0)
    torch.testing.assert_close(z2 - z, 0.01 * torch.randn(z.shape, generator=g(3)), atol=3e-4, rtol=0)
    z3, fine3, _ = flow(S.flow_aug(flow, 0.01, "local")(x, generator=g(3)))
    torch.testing.assert_close(z3, z, atol=3e-4, rtol=0)
    assert float((fine3 - fine).abs().max()) > 0.01
    plain = S.flow_aug(flow, 0.01, "pixels")(x, generator=g(3)) - x
    assert float(plain.std((2, 3)).max()) < 1e-5  # one step for every channel
    wanted = 0.01 * torch.randn(6, 3, generator=g(3)) * flow.scale[:3] / 4  # the slowest basis image has 1/4 everywhere
    torch.testing.assert_close(plain.mean((2, 3)), wanted, atol=1e-5, rtol=0)


@pytest.mark.bad_input
def test_flows_refuse_unknown_parts_and_scales():
    with pytest.raises(ValueError, match="part must be 'global', 'local' or 'pixels', got 'all'"):
        S.flow_aug(random_flow(), 1.0, "all")
    with pytest.raises(ValueError, match="coarse must be in 1 … 3, got 4"):
        S.GlobalLocalFlow(4, coarse=4)


def test_crop_flip_gives_windows_of_the_padded_image():
    x = torch.rand(40, 3, 5, 5, generator=g())
    torch.testing.assert_close(S.crop_flip(0, 0.0)(x, generator=g()), x)
    torch.testing.assert_close(S.crop_flip(0, 1.0)(x, generator=g()), x.flip(-1))
    made, padded, used = S.crop_flip(1, 0.5)(x, generator=g(1)), F.pad(x, (1, 1, 1, 1), "reflect"), set()
    for i, image in enumerate(made):
        windows = {(r, c): padded[i, :, r : r + 5, c : c + 5] for r in range(3) for c in range(3)}
        found = [(*k, m) for k, w in windows.items() for m in (0, 1) if torch.equal(image, w.flip(-1) if m else w)]
        assert len(found) == 1
        used |= set(found)
    assert len(used) >= 14  # of 18


def test_mixup_is_cross_entropy_with_soft_labels():
    x, y = torch.randn(6, 3, 2, 2, generator=g()), torch.randint(4, (6,), generator=g())
    other = torch.randperm(6, generator=g(2))
    weight = torch.randn(12, 4, generator=g(3))
    soft = 0.3 * F.one_hot(y, 4) + 0.7 * F.one_hot(y[other], 4)
    scores = (0.3 * x + 0.7 * x[other]).flatten(1) @ weight
    wanted = -(soft * scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(S.mixup_loss(lambda v: v.flatten(1) @ weight, x, y, 0.3, other), wanted)


def test_training_uses_the_augmentation_and_repeats_itself():
    from labcode.nets import SmallNet, seeded

    x, y = torch.rand(64, 3, 8, 8, generator=g()), torch.arange(64) % 2
    x[y == 1, 0] += 1
    calls = []

    def augment(images, *, generator):
        calls.append(len(images))
        return images

    def trained(mixup):
        model = seeded(0, lambda: S.Classifier(SmallNet(8, 16), 2))
        return S.fit_classifier(model, x, y, 30, 0, augment, mixup=mixup, batch=32)

    nets = [trained(mixup) for mixup in (0.0, 0.0, 1.0)]
    assert calls == [32] * 90
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(nets[0].head.weight, nets[2].head.weight)
    assert float((nets[0].predicted(x) == y).float().mean()) > 0.9
