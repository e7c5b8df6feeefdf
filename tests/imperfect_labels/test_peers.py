"""The part's pieces beside cleanlab, scikit-activeml, imbalanced-learn and scikit-learn, on the same inputs.

Skipped where a peer is not installed; ``pip install -e .[peers]`` brings them. The tests of the label model and of the
acquisitions meet snorkel and modAL.
"""

import pytest
import torch
from torch.nn.functional import one_hot


@pytest.fixture
def predicted():
    """Probabilities (60, 4) and labels, a third of them wrong."""
    g = torch.Generator().manual_seed(0)
    p = (2 * torch.randn(60, 4, generator=g, dtype=torch.float64)).softmax(1)
    return p, torch.where(torch.rand(60, generator=g) < 2 / 3, p.argmax(1), torch.randint(4, (60,), generator=g))


def test_margins_are_those_of_cleanlab(predicted):
    rank = pytest.importorskip("cleanlab.rank")
    from labcode.imperfect_labels import noisy_labels as N

    p, y = predicted
    theirs = torch.from_numpy(rank.get_normalized_margin_for_each_label(y.numpy(), p.numpy()))
    assert torch.allclose(N.margins(p[None], y[None])[0], 2 * theirs - 1, atol=1e-12)


def test_the_majority_is_that_of_cleanlab():
    multiannotator = pytest.importorskip("cleanlab.multiannotator")
    from labcode.imperfect_labels import noisy_labels as N

    g = torch.Generator().manual_seed(1)
    answers = torch.randint(3, (200, 5), generator=g)
    votes = one_hot(answers, 3).sum(1).sort(1, descending=True).values
    answers = answers[votes[:, 0] > votes[:, 1]]  # ties are broken at random here, by frequency there
    theirs = multiannotator.get_majority_vote_label(answers.numpy())
    assert N.majority(answers, 3, generator=g).tolist() == theirs.tolist()


def test_the_means_of_recalls_are_those_of_imbalanced_learn(predicted):
    metrics = pytest.importorskip("imblearn.metrics")
    from labcode.imperfect_labels import long_tail as L
    from labcode.imperfect_labels.measures import recalls

    p, y = predicted
    r = recalls(p.argmax(1), y, 4)
    sensitivity = metrics.sensitivity_score(y.numpy(), p.argmax(1).numpy(), average=None)
    assert r.tolist() == pytest.approx(sensitivity.tolist())
    theirs = metrics.geometric_mean_score(y.numpy(), p.argmax(1).numpy(), average="multiclass")
    assert float(L.power_mean(r[None], 0)) == pytest.approx(theirs)


def test_core_sets_and_typicality_are_those_of_scikit_activeml():
    core_set = pytest.importorskip("skactiveml.pool._core_set")
    typi_clust = pytest.importorskip("skactiveml.pool._typi_clust")
    from labcode.imperfect_labels import active_weak as A

    g = torch.Generator().manual_seed(2)
    x = torch.randn(80, 6, generator=g, dtype=torch.float64)
    labelled = torch.tensor([3, 40])
    known = torch.full((80,), torch.nan)
    known[labelled] = 1.0
    theirs, _ = core_set.k_greedy_center(x.numpy(), known.numpy(), batch_size=7, random_state=0)
    p = torch.full((80, 2), 0.5, dtype=torch.float64)
    assert A.core_set(x, p, labelled, 7, generator=g).tolist() == theirs.tolist()
    dense = torch.from_numpy(typi_clust._typicality(x.numpy(), torch.arange(80).numpy(), k=20))
    assert torch.allclose(A.typicality(x, 20), dense, rtol=1e-4)  # another guard against a distance of zero


def test_spreading_is_that_of_scikit_learn():
    from sklearn.semi_supervised import LabelSpreading

    from labcode.imperfect_labels import active_weak as A

    g = torch.Generator().manual_seed(3)
    x = torch.randn(90, 4, generator=g, dtype=torch.float64) + 2 * torch.randint(3, (90, 1), generator=g)
    y = torch.randint(3, (90,), generator=g)
    chosen = torch.tensor([[0, 20, 40, 60, 80, 5]])
    known = torch.full((90,), -1)
    known[chosen[0]] = y[chosen[0]]
    kernel = A.spreading(x, k=8, alpha=0.9)

    def graph(a, b):  # scikit-learn takes the kernel's Laplacian: hand it the same symmetric graph
        near = torch.cdist(x, x).fill_diagonal_(torch.inf).topk(8, dim=1, largest=False).indices
        made = torch.zeros(90, 90, dtype=torch.float64).scatter_(1, near, 1)
        return ((made + made.T) / 2).numpy()

    peer = LabelSpreading(kernel=graph, alpha=0.9, max_iter=5000, tol=1e-12).fit(x.numpy(), known.numpy())
    target = one_hot(known.clamp_min(0), 3).double() * (known >= 0)[:, None]
    ours = kernel @ target
    assert torch.allclose(ours / ours.sum(1, keepdim=True), torch.from_numpy(peer.label_distributions_), atol=1e-6)
