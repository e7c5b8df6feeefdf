"""Tasks are what they say, and the simple classifiers are those of loops and of scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from labcode.clustering import few_shot as F


def some(shots=2, queries=9, ways=3, d=4, count=5, seed=0, **options):
    g = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(6, 1, d, generator=g, dtype=torch.float64)
    z = centres + torch.randn(6, 20, d, generator=g, dtype=torch.float64)
    return F.draw_tasks(z, count, g, ways=ways, shots=shots, queries=queries, **options), z


def test_a_task_has_its_classes_and_no_sample_twice():
    t, z = some()
    flat = z.view(-1, 4)
    for i in range(5):
        rows = torch.cat([t.support[i], t.query[i]])
        at = torch.cdist(rows, flat).argmin(1)
        assert len(set(at.tolist())) == len(rows)
        classes, y = at // 20, torch.cat([t.support_y[i], t.query_y[i]])
        assert len(classes.unique()) == 3 and all(len(classes[y == k].unique()) == 1 for k in range(3))
        assert (torch.bincount(t.support_y[i]) == 2).all() and (torch.bincount(t.query_y[i]) == 3).all()


def test_present_and_skew_are_shares_of_the_queries():
    t, _ = some(ways=5, present=2, queries=12)
    assert all(len(y.unique()) == 2 and set(torch.bincount(y).tolist()) <= {0, 6} for y in t.query_y)
    t, _ = some(ways=3, skew=1.0, queries=15, count=400, shots=1)
    share = torch.nn.functional.one_hot(t.query_y, 3).double().mean(1)
    assert torch.allclose(share.mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.05)
    assert float(share.var(0).mean()) == pytest.approx(2 / 36 + (2 / 9 - 2 / 36) / 15, rel=0.2)  # Dirichlet and draws


@pytest.mark.parametrize("wrong", [dict(ways=7), dict(ways=1), dict(shots=20), dict(present=4), dict(queries=0)])
def test_bad_tasks_are_refused(wrong):
    with pytest.raises(ValueError, match="ways|shots|present|queries"):
        some(**wrong)


def test_prototypes_and_nearest_are_the_loop():
    t, _ = some()
    for i in range(5):
        for k in range(3):
            assert torch.allclose(t.prototypes[i, k], t.support[i][t.support_y[i] == k].mean(0))
        for q in range(9):
            d = [-float((t.query[i, q] - t.prototypes[i, k]).square().sum()) for k in range(3)]
            assert np.allclose(F.nearest_prototype(t)[i, q], np.exp(d) / np.exp(d).sum())


def test_logistic_is_scikit_learns():
    t, _ = some(shots=4)
    found = F.logistic(t, l2=0.05, steps=3000)
    for i in range(5):
        peer = LogisticRegression(C=1 / (0.05 * 12), tol=1e-10, max_iter=5000).fit(t.support[i], t.support_y[i])
        assert np.allclose(found[i], peer.predict_proba(t.query[i]), atol=1e-3)
    with pytest.raises(ValueError, match="l2"):
        F.logistic(t, l2=0.0)


def test_seeded_kmeans_is_the_loop():
    t, _ = some(shots=1, queries=12)
    for i in range(5):
        w = t.prototypes[i].clone()
        for _ in range(6):
            near = torch.cdist(t.query[i], w).argmin(1)
            w = torch.stack(
                [torch.cat([t.support[i][t.support_y[i] == k], t.query[i][near == k]]).mean(0) for k in range(3)]
            )
        assert torch.equal(F.seeded_kmeans(t, 6)[i].argmax(1), torch.cdist(t.query[i], w).argmin(1))


def test_centred_unit_and_letters():
    z = F.centred_unit(torch.ones(3))(torch.randn(2, 5, 3))
    assert torch.allclose(z.norm(dim=2), torch.ones(2, 5))
    x = F.letters("greek", 3, torch.Generator().manual_seed(0))
    assert x.shape == (25, 3, 1, 16, 16) and 0 <= float(x.min()) and float(x.max()) <= 1
    assert torch.equal(x, F.letters("greek", 3, torch.Generator().manual_seed(0)))
    together = "".join(F.ALPHABETS.values())
    assert len(set(together)) == len(together), "no letter is in two alphabets"
    with pytest.raises(ValueError, match="alphabet"):
        F.printed("runes")
