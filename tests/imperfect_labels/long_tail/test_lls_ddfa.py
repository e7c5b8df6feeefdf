"""Latent label shift: factorisation against scikit-learn, Bayes' rule against loops, anchors against the truth."""

import itertools

import pytest
import torch

from labcode.imperfect_labels import long_tail as L


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def topics(words=12, classes=3, domains=5, anchors=True, seed=0):
    """p(w | y) with an anchor word for each class, p(y | d) and their product p(w | d)."""
    p_w = torch.rand(words, classes, generator=g(seed), dtype=torch.float64)
    if anchors:
        p_w[:classes] = torch.eye(classes, dtype=torch.float64)
    p_w /= p_w.sum(0)
    p_y = L.domain_marginals(classes, domains, 3.0, generator=g(seed + 1)).double()
    return p_w, p_y, p_w @ p_y


@pytest.mark.parametrize("alpha", [0.5, 10.0])
def test_marginals_are_columns_of_the_dirichlet(alpha):
    drawn = torch.stack([L.domain_marginals(3, 6, alpha, generator=g(i), condition=1e9) for i in range(300)])
    assert torch.allclose(drawn.sum(1), torch.ones(300, 6), atol=1e-5)
    want = (1 / 3) * (2 / 3) / (alpha + 1)  # the variance of a Dirichlet with sum alpha
    assert float(drawn.var((0, 2)).mean()) == pytest.approx(want, rel=0.1)
    tight = L.domain_marginals(3, 6, alpha, generator=g(0), condition=4.0, tries=20000)
    assert float(torch.linalg.cond(tight.double())) <= 4.0


def test_shares_are_counted():
    words, domains = torch.randint(4, (2, 50), generator=g(1)), torch.randint(3, (2, 50), generator=g(2))
    found = L.word_shares(words, domains, 4, 4)  # the last domain has no samples
    for b, w, d in itertools.product(range(2), range(4), range(4)):
        here = domains[b] == d
        want = float((words[b][here] == w).double().mean()) if here.any() else 0.0
        assert float(found[b, w, d]) == pytest.approx(want, abs=1e-6)


def test_factorisation_is_scikit_learns():
    """Multiplicative updates end where those of scikit-learn end."""
    sklearn = pytest.importorskip("sklearn.decomposition")
    v = topics()[2]
    w, h = L.nmf(v[None], 3, generator=g(3), restarts=4, iterations=600)
    ours = float((v - w[0] @ h[0]).norm())
    theirs = []
    for seed in range(3):
        model = sklearn.NMF(3, init="random", solver="mu", max_iter=600, tol=0, random_state=seed)
        theirs.append(float((v - torch.from_numpy(model.fit_transform(v.numpy()) @ model.components_)).norm()))
    assert ours <= min(theirs) + 2e-3 and float(w.min()) >= 0 and float(h.min()) >= 0


def test_an_update_is_the_loops():
    v = torch.rand(1, 4, 3, dtype=torch.float64, generator=g(1))
    draw = g(5)
    scale = (v.mean() / 2).sqrt()
    w = scale * torch.randn(1, 1, 4, 2, generator=draw).abs().double()
    h = scale * torch.randn(1, 1, 2, 3, generator=draw).abs().double()
    w, h = w[0, 0], h[0, 0]
    new, after = torch.zeros_like(w), torch.zeros_like(h)
    for i, a in itertools.product(range(4), range(2)):
        new[i, a] = w[i, a] * (v[0] @ h.T)[i, a] / (w @ h @ h.T)[i, a]
    for a, j in itertools.product(range(2), range(3)):
        after[a, j] = h[a, j] * (new.T @ v[0])[a, j] / (new.T @ new @ h)[a, j]
    found_w, found_h = L.nmf(v, 2, generator=g(5), restarts=1, iterations=1)
    assert torch.allclose(found_w[0], new) and torch.allclose(found_h[0], after)


def test_anchor_words_find_the_marginals_exactly():
    for seed in range(4):
        _, p_y, p_wd = topics(seed=seed)
        found = L.anchor_words(p_wd[None].double(), 3)
        assert float(L.matched_error(found, p_y[None])[0]) < 1e-8
        moved = L.anchor_words(p_wd[None][:, torch.randperm(12, generator=g(seed))], 3)
        assert float(L.matched_error(moved, p_y[None])[0]) < 1e-8, "the order of the words"


def test_rare_words_are_no_anchors():
    _, p_y, p_wd = topics()
    noisy = torch.cat([p_wd, torch.eye(5, dtype=torch.float64)[:1] * 1e-3])  # one sample of a word of its own
    assert float(L.matched_error(L.anchor_words(noisy[None], 3), p_y[None])[0]) > 0.02
    assert float(L.matched_error(L.anchor_words(noisy[None], 3, least=0.001), p_y[None])[0]) < 0.01


def test_bayes_rule_against_the_loop():
    """Exact p(d | x) of a finite world gives back p(y | x) and p(y | x, d)."""
    p_w, p_y, p_wd = topics(anchors=False)
    p_dw = p_wd / p_wd.sum(1, keepdim=True)
    p_yw = p_w * p_y.sum(1)
    p_yw = p_yw / p_yw.sum(1, keepdim=True)
    assert torch.allclose(L.label_posteriors(p_dw[None], p_y[None])[0], p_yw, atol=1e-8)
    domains = torch.randint(5, (1, 12), generator=g(1))
    found = L.label_posteriors(p_dw[None], p_y[None], domains)[0]
    for x in range(12):
        joint = [float(p_w[x, y] * p_y[y, domains[0, x]]) for y in range(3)]
        want = torch.tensor(joint, dtype=torch.float64) / sum(joint)
        assert torch.allclose(found[x] / found[x].sum(), want, atol=1e-8)


def test_whole_pipeline_on_words():
    p_w, p_y, _ = topics()
    domains = torch.arange(5).repeat_interleave(4000)
    labels = torch.multinomial(p_y.T[domains], 1, generator=g(1))[:, 0]
    words = torch.multinomial(p_w.T[labels], 1, generator=g(2))[:, 0]
    found = L.label_marginals(words[None], domains[None], 12, 5, 3, generator=g(3))
    assert torch.allclose(found.sum(1), torch.ones(1, 5), atol=1e-5)
    assert float(L.matched_error(found, p_y[None].float())[0]) < 0.15


def test_error_does_not_care_for_the_order():
    p = L.domain_marginals(4, 6, 3.0, generator=g(0))[None]
    assert float(L.matched_error(p[:, [2, 0, 3, 1]], p)[0]) == pytest.approx(0, abs=1e-7)
    other = L.domain_marginals(4, 6, 3.0, generator=g(1))[None]
    want = min(float((other[0, list(o)] - p[0]).abs().mean()) for o in itertools.permutations(range(4)))
    assert float(L.matched_error(other, p)[0]) == pytest.approx(want, abs=1e-6)


@pytest.mark.bad_input
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="domains"):
        L.domain_marginals(5, 3, 1.0, generator=g())
    with pytest.raises(ValueError, match="alpha"):
        L.domain_marginals(2, 3, 0.0, generator=g())
    with pytest.raises(ValueError, match="words"):
        L.word_shares(torch.tensor([[4]]), torch.tensor([[0]]), 4, 2)
    with pytest.raises(ValueError, match="v must"):
        L.nmf(-torch.ones(1, 2, 2), 1, generator=g())
    with pytest.raises(ValueError, match="restarts"):
        L.nmf(torch.ones(1, 2, 2), 1, generator=g(), restarts=0)
