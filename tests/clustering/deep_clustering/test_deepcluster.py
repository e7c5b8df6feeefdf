"""DeepCluster's and DeeperCluster's parts: whitening, drawing, heads, hierarchy, two-level loss."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch.autograd import gradcheck

from labcode.clustering import deep_clustering as D


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_whitening_is_that_of_scikit_learn():
    x = torch.randn(200, 12, generator=generator()) @ torch.randn(12, 12, generator=generator(1))
    ours = D.whitened(x, 5)
    theirs = F.normalize(torch.from_numpy(PCA(5, whiten=True).fit_transform(x.double().numpy())), dim=1)
    assert torch.allclose(ours.double() @ ours.double().T, theirs @ theirs.T, atol=1e-4)  # up to signs and order
    assert torch.allclose(D.whitened(100 * x + 7, 5).abs(), ours.abs(), atol=1e-3)
    flat = torch.cat([x[:, :3], torch.ones(200, 2)], 1)
    assert D.whitened(flat, 5).shape == (200, 3)  # a direction without variance stays out


def test_uniform_rows_are_even_over_clusters():
    labels = torch.cat([torch.zeros(900), torch.ones(90), torch.full((10,), 3)]).long()
    drawn = labels[D.uniform_rows(labels, 6000, 4, generator=generator())].bincount(minlength=4) / 6000
    assert drawn[[0, 1, 3]].tolist() == pytest.approx([1 / 3] * 3, abs=0.03) and drawn[2] == 0
    with pytest.raises(ValueError, match="labels"):
        D.uniform_rows(labels, 5, 3, generator=generator())


def test_a_fresh_head_is_small_and_starts_at_log_k():
    head = D.fresh_head(64, 10, generator=generator())
    assert float(head.weight.std()) == pytest.approx(0.01, rel=0.1) and not bool(head.bias.any())
    loss = F.cross_entropy(head(torch.randn(500, 64)), torch.arange(500) % 10)
    assert float(loss) == pytest.approx(2.3026, rel=0.01)


def test_reassignment_finds_clumps_whatever_the_scale_of_features():
    labels = torch.arange(300) % 3
    x = torch.randn(300, 6, generator=generator()) + 8 * torch.eye(6)[labels]
    x = x * torch.tensor([100.0, 1, 1, 1, 1, 1])
    assert D.measures(D.reassign(x, 3, dim=2), labels, 3)["ACC"] > 0.98


def toy(net, **options):
    labels = torch.arange(240) % 4
    x = torch.randn(240, 8, generator=generator()) + 4 * torch.eye(8)[labels]
    every = torch.arange(240)

    def embed(net):
        with torch.no_grad():
            return net(x)

    found = D.deepcluster(net, every, 4, see=lambda rows, g: x[rows], embed=embed, width=5, generator=generator(),
                          rounds=3, steps=10, batch_size=32, dim=3, lr=0.05, **options)  # fmt: skip
    return found


def test_rounds_of_labels_and_their_ablations():
    torch.manual_seed(0)
    found = toy(torch.nn.Linear(8, 5))
    assert len(found.history) == 4 and len(found.losses) == 3
    assert int(found.clusters.max()) == 3 and max(found.losses) < 1.3
    torch.manual_seed(0)
    once = toy(torch.nn.Linear(8, 5), renew=False)
    assert torch.equal(once.history[0], once.history[1]) and torch.equal(once.history[1], once.history[2])
    torch.manual_seed(0)
    kept = toy(torch.nn.Linear(8, 5), renew=False, reset=False, uniform=False)
    assert kept.losses[2] < once.losses[2]  # the old head goes on where a new one begins again


def test_hierarchy_nests():
    x = torch.randn(300, 5, generator=generator()) + 6 * torch.eye(5)[torch.arange(300) % 2]
    above, below = D.hierarchy(x, 2, 6, dim=4)
    assert above.unique().tolist() == [0, 1] and int(below.max()) == 2
    one, flat = D.hierarchy(x, 1, 6, dim=4)
    assert not bool(one.any()) and len(flat.unique()) == 6
    nothing = D.hierarchy(x, 1, 1, dim=4)
    assert not bool(nothing[0].any()) and not bool(nothing[1].any())
    for m, k in ((2, 5), (0, 4), (4, 2)):
        with pytest.raises(ValueError, match="k must be"):
            D.hierarchy(x, m, k)


def test_rotated_turns_each_by_its_own():
    x = torch.arange(4.0).view(1, 1, 2, 2).repeat(4, 1, 1, 1)
    turned = D.rotated(x, torch.arange(4))
    for i in range(4):
        assert torch.equal(turned[i], torch.rot90(x[i], i, (1, 2)))
    assert torch.equal(D.rotated(turned, (4 - torch.arange(4)) % 4), x)
    with pytest.raises(ValueError, match="turns"):
        D.rotated(x, torch.full((4,), 4))


def test_two_level_loss_is_the_loop():
    g = generator()
    z, upper, lower = (torch.randn(*s, generator=g).double() for s in ((6, 3), (4, 3), (4, 5, 3)))
    above, below = torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([4, 0, 1, 2, 3, 4])
    total = 0.0
    for i in range(6):
        first = torch.stack([z[i] @ w for w in upper]).log_softmax(0)[above[i]]
        second = torch.stack([z[i] @ w for w in lower[above[i]]]).log_softmax(0)[below[i]]
        total -= float(first + second)
    assert float(D.two_level_loss(z, upper, lower, above, below)) == pytest.approx(total / 6, rel=1e-10)
    tensors = tuple(t.requires_grad_() for t in (z, upper, lower))
    assert gradcheck(lambda *t: D.two_level_loss(*t, above, below), tensors)
    alone = D.two_level_loss(z, upper[:1], lower[:1, :1], torch.zeros_like(above), torch.zeros_like(below))
    assert float(alone) == 0  # one class, one sub-class: nothing to learn
    wrong = {
        "upper": (z, upper[:, :2], lower, above, below), "lower": (z, upper, lower[:3], above, below),
        "above": (z, upper, lower, above + 1, below), "below": (z, upper, lower, above, below[:2]),
    }  # fmt: skip
    for name, bad in wrong.items():
        with pytest.raises(ValueError, match=name):
            D.two_level_loss(*bad)


def test_largest_share():
    assert D.largest_share(torch.tensor([0, 0, 0, 2]), 3) == 0.75
