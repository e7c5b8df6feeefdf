"""Strategies: what every one of them promises, and each against its definition."""

from functools import partial

import pytest
import torch

from labcode.imperfect_labels import active_weak as A

LOG = torch.rand(5, 40, generator=torch.Generator().manual_seed(0))
STRATEGIES = {
    "random": A.random_choice, "margin": A.margin, "entropy": A.entropy, "core-set": A.core_set,
    "k-means++": A.kmeans_plus_plus, "badge": A.badge, "typiclust": A.typiclust,
    "random member": A.cluster_random, "atypical": A.cluster_atypical,
    "typical only": A.typical_only, "hard": A.first_choice(LOG), "easy": A.first_choice(LOG, "easy", 1),
    "isal": A.isal(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2])),
}  # fmt: skip


def pool(n=40, d=5, c=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g), torch.softmax(torch.randn(n, c, generator=g), 1), g


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("m, budget", [(0, 4), (3, 1), (5, 30)])
def test_choices_are_new_rows_and_repeatable(name, m, budget):
    x, p, _ = pool()
    labelled = torch.arange(10, 10 + m)
    draw = lambda: STRATEGIES[name](x, p, labelled, budget, generator=torch.Generator().manual_seed(1))  # noqa: E731
    chosen = draw()
    assert chosen.shape == (budget,) and len(chosen.unique()) == budget
    assert not torch.isin(chosen, labelled).any() and torch.equal(chosen, draw())


@pytest.mark.bad_input
@pytest.mark.parametrize("name", STRATEGIES)
def test_bad_input_is_named(name):
    x, p, g = pool()
    for change, match in (((x[0], p), "features"), ((x, p[:3]), "probabilities")):
        with pytest.raises(ValueError, match=match):
            STRATEGIES[name](*change, torch.tensor([1]), 2, generator=g)
    with pytest.raises(ValueError, match="labelled"):
        STRATEGIES[name](x, p, torch.tensor([99]), 2, generator=g)
    with pytest.raises(ValueError, match="budget"):
        STRATEGIES[name](x, p, torch.tensor([1]), 40, generator=g)


def test_margin_entropy_and_cores_by_loop():
    x, p, g = pool()
    none = torch.tensor([7, 8])
    gaps = {i: float(p[i].sort().values[-1] - p[i].sort().values[-2]) for i in range(40) if i not in (7, 8)}
    assert A.margin(x, p, none, 5, generator=g).tolist() == sorted(gaps, key=gaps.get)[:5]
    high = {i: float(-(p[i] * p[i].log()).sum()) for i in gaps}
    assert A.entropy(x, p, none, 5, generator=g).tolist() == sorted(high, key=high.get)[::-1][:5]
    have = [7, 8]
    for _ in range(5):
        have.append(max(gaps.keys() - set(have), key=lambda i: min(float((x[i] - x[j]).norm()) for j in have)))
    assert A.core_set(x, p, none, 5, generator=g).tolist() == have[2:]


def test_without_a_classifier_uncertainty_is_random_choice():
    x, _, _ = pool(400)
    flat, none = torch.full((400, 3), 1 / 3), torch.empty(0, dtype=torch.int64)
    draws = [A.margin(x, flat, none, 50, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    assert 150 < float(torch.stack(draws).double().mean()) < 250 and not torch.equal(draws[0], draws[1])


def test_badge_uses_gradients_of_the_head():
    x, p, _ = pool()
    e = torch.nn.functional.one_hot(p.argmax(1), 3)
    gradients = ((p - e)[:, :, None] * x[:, None, :]).flatten(1)
    size = gradients.square().sum(1)
    none, seeded = torch.empty(0).long(), lambda i: torch.Generator().manual_seed(i)
    first = [int(A.badge(x, p, none, 2, generator=seeded(i))[0]) for i in range(60)]
    assert len(set(first)) > 15  # the first is drawn uniformly
    twice = torch.cat([x, x]), torch.cat([p, p])  # copies have no distance: never both
    for i in range(20):
        chosen = A.badge(*twice, torch.empty(0).long(), 8, generator=torch.Generator().manual_seed(i)) % 40
        assert len(chosen.unique()) == 8
    assert (size > 0).all()


def test_heads_reach_the_optimum_of_sklearn():
    from sklearn.linear_model import LogisticRegression

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 60, 4, dtype=torch.float64, generator=g), torch.randint(3, (2, 60), generator=g)
    w = A.fit_heads(x, y, 3, l2=0.1, steps=600)
    for i in range(2):
        z = A.with_bias(x[i])  # the bias is penalised too
        peer = LogisticRegression(C=1 / (0.1 * 60), fit_intercept=False, tol=1e-10, max_iter=5000).fit(z, y[i])
        assert torch.allclose(A.predict(w, x[i])[i], torch.tensor(peer.predict_proba(z)), atol=1e-5)


def test_heads_take_weights_and_judge_areas():
    from sklearn.metrics import roc_auc_score

    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(1, 30, 3, dtype=torch.float64, generator=g), torch.randint(3, (1, 30), generator=g)
    kept = torch.ones(1, 30, dtype=torch.float64)
    kept[:, 20:] = 0
    want = A.fit_heads(x[:, :20], y[:, :20], 3, 0.1, 800)
    assert torch.allclose(A.fit_heads(x, y, 3, 0.1, 800, kept), want, atol=1e-6)
    p = A.predict(A.fit_heads(x, y, 3), x[0])
    want = roc_auc_score(y[0], p[0], multi_class="ovr")
    assert float(A.macro_auc(p, y[0])) == pytest.approx(want, abs=1e-9)
    assert float(A.accuracy(p, y[0])) == float((p[0].argmax(1) == y[0]).double().mean())
    for bad, match in ((dict(l2=0.0), "l2"), (dict(steps=0), "steps")):
        with pytest.raises(ValueError, match=match):
            A.fit_heads(x, y, 3, **bad)
    with pytest.raises(ValueError, match="classes"):
        A.fit_heads(x, y, 2)
    with pytest.raises(ValueError, match="two classes"):
        A.macro_auc(p, torch.zeros(30).long())


def test_rounds_grow_and_do_not_look_ahead():
    x, _, g = pool(200)
    y = torch.randint(3, (200,), generator=g)
    start = torch.stack([torch.arange(6), torch.arange(6, 12)])
    run = partial(A.acquire_rounds, A.margin, x, draws=2, seed=3, classes=3, start=start)
    rounds = run(y, (6, 10, 20))
    assert [r.shape for r in rounds] == [(2, 6), (2, 10), (2, 20)] and torch.equal(rounds[2][:, :10], rounds[1])
    other = y.clone()
    unseen = torch.ones(200, dtype=torch.bool)
    unseen[rounds[2].flatten()] = False
    other[unseen] = (other[unseen] + 1) % 3
    assert torch.equal(run(other, (6, 10, 20))[2], rounds[2])  # labels of rows that were not chosen play no part
    with pytest.raises(ValueError, match="budgets"):
        run(y, (10, 6))


def test_agreement_with_modal():
    uncertainty = pytest.importorskip("modAL.uncertainty")
    _, p, _ = pool()
    gap = -p.topk(2, 1).values.diff(dim=1)[:, 0]
    assert torch.allclose(torch.tensor(uncertainty._proba_margin(p.numpy())), gap)
