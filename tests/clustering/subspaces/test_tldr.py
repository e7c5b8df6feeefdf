"""TLDR: pairs, the loss it borrows, the linear rivals and the retrieval measure."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from labcode.clustering import subspaces as S


def rows(n=60, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_neighbours_are_scikit_learns_and_never_oneself():
    x = rows()
    peer = NearestNeighbors(n_neighbors=6, metric="cosine").fit(x.numpy()).kneighbors(x.numpy())[1][:, 1:]
    assert np.array_equal(S.nearest_neighbours(x, 5), peer) and np.array_equal(
        S.nearest_neighbours(x, 5, chunk=7), peer
    )
    with pytest.raises(ValueError, match="k must"):
        S.nearest_neighbours(x, 60)


@pytest.mark.parametrize("whiten", [True, False])
def test_pca_is_scikit_learns(whiten):
    x = rows() * torch.arange(1.0, 9)
    ours, peer = S.PCA(x, 3, whiten)(x), PCA(3, whiten=whiten).fit(x.numpy())
    scale = (60 / 59) ** 0.5 if whiten else 1.0  # theirs divides by n - 1
    assert np.allclose(ours.abs(), scale * np.abs(peer.transform(x.numpy())), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="dim"):
        S.PCA(x, 9)


def test_lpp_solves_its_generalised_eigenproblem():
    from scipy.linalg import eigh

    x = rows().double()
    near = S.nearest_neighbours(x, 4)
    ours = S.LPP(x, near, 2, ridge=1e-9)
    w = np.zeros((60, 60))
    for i in range(60):
        for j in near[i].tolist():
            w[i, j] = w[j, i] = 1
    c = (x - x.mean(0)).numpy()
    degree = np.diag(w.sum(1))
    _, vectors = eigh(c.T @ (degree - w) @ c, c.T @ degree @ c)
    assert np.allclose(ours.map.abs(), np.abs(vectors[:, :2]), atol=1e-6)


def test_average_precision_is_scikit_learns():
    z, labels = rows(30, 4), torch.arange(30) % 3
    unit = torch.nn.functional.normalize(z, dim=1)
    want = []
    for i in range(30):
        others = [j for j in range(30) if j != i]
        want.append(average_precision_score((labels[others] == labels[i]).numpy(), (unit[others] @ unit[i]).numpy()))
    assert S.mean_average_precision(z, labels) == pytest.approx(np.mean(want), rel=1e-6)
    assert S.mean_average_precision(torch.eye(3)[labels] + 0.01 * z[:, :3], labels) == 1
    alone = torch.tensor([0, 0, 1])  # nobody shares the last label
    assert S.mean_average_precision(torch.eye(3)[:, :2] + 0.1, alone) == pytest.approx(
        S.mean_average_precision(torch.eye(3)[:, :2] + 0.1, torch.tensor([0, 0, 9]))
    )
    with pytest.raises(ValueError, match="labels"):
        S.mean_average_precision(z, labels[:3])


def test_quantised_rows_are_words():
    x = rows(80, 6)
    q = S.quantise(x, 3, 4)
    assert q.shape == x.shape and all(len(part.unique(dim=0)) <= 4 for part in q.chunk(3, 1))
    assert (q - x).norm() < x.norm()
    with pytest.raises(ValueError, match="parts"):
        S.quantise(x, 4, 4)


def test_the_encoder_is_linear_and_learns_what_neighbours_share():
    g = torch.Generator().manual_seed(0)
    middle = torch.eye(4).mul(3).repeat_interleave(50, 0)
    x = torch.cat([middle, 6 * torch.randn(200, 4, generator=g)], 1)  # noise has more variance than what is shared
    labels = torch.arange(4).repeat_interleave(50)
    partner = torch.stack([50 * k + torch.randint(50, (5,), generator=g) for k in labels.tolist()])
    encoder = S.learn_tldr(x, partner, 3, 0, steps=60, batch_size=100, lr=1e-2, hidden=(32,))
    with torch.no_grad():
        assert torch.allclose(
            encoder(x[:5] + x[5:10]), encoder(x[:5]) + encoder(x[5:10]) - encoder(torch.zeros(1, 8)), atol=1e-4
        )
        ours = S.mean_average_precision(encoder(x), labels)
    assert ours > S.mean_average_precision(S.PCA(x, 3)(x), labels) + 0.1
    called = S.learn_tldr(
        x, lambda i, g: x[i], 3, 0, steps=2, loss=lambda a, b, y: (a - y[:, :3]).square().mean(), hidden=()
    )
    assert called.training is False
    bent = S.TLDR(8, 3, hidden=(), encoder=(5,), bend=False).encoder
    assert [layer.out_features for layer in bent] == [5, 3]
