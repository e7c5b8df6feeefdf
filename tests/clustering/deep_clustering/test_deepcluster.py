"""DeepCluster's parts: whitening, drawing, heads, reassignment."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

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


def test_largest_share():
    assert D.largest_share(torch.tensor([0, 0, 0, 2]), 3) == 0.75
