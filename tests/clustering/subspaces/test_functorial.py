"""Single linkage, fuzzy sets and embeddings against loops and peers."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.manifold import Isomap, SpectralEmbedding

from labcode.clustering import subspaces as S


def distances(n=12, seed=0):
    x = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    d = torch.cdist(x, x)
    return x, ((d + d.T) / 2).fill_diagonal_(0)


def test_single_linkage_is_the_minimax_path():
    _, d = distances()
    want = d.clone()
    for k, i, j in itertools.product(range(12), repeat=3):  # Floyd and Warshall, with max for plus
        want[i, j] = min(want[i, j], max(want[i, k], want[k, j]))
    got = S.single_linkage(d)
    assert torch.allclose(got, want) and (got <= d + 1e-12).all()
    assert (got[:, :, None] <= torch.maximum(got[:, None, :], got[None]) + 1e-12).all()  # an ultrametric
    assert torch.allclose(S.single_linkage(got), got) and torch.allclose(S.single_linkage(2 * d), 2 * got)
    assert S.single_linkage(torch.zeros(1, 1)).shape == (1, 1)


@pytest.mark.parametrize("bad", [torch.rand(3, 4), -torch.eye(3), torch.eye(3), torch.tensor([[0.0, 1.0], [2.0, 0.0]])])
def test_what_is_no_distance_is_refused(bad):
    for take in (S.single_linkage, lambda d: S.geodesic(d, 1), lambda d: S.fuzzy_simplicial_set(d, 2)):
        with pytest.raises(ValueError, match="d must"):
            take(bad)


def test_geodesic_is_isomaps():
    x, d = distances(40)
    peer = Isomap(n_neighbors=8, n_components=2).fit(x.numpy()).dist_matrix_
    assert np.allclose(S.geodesic(d, 8), peer, atol=1e-6)
    assert torch.allclose(S.geodesic(d, 39), d)
    with pytest.raises(ValueError, match="k must"):
        S.geodesic(d, 40)


def test_fuzzy_set_sums_to_log_k_and_is_a_union():
    _, d = distances(30)
    w = S.fuzzy_simplicial_set(d, 6)
    near, which = d.topk(6, largest=False)
    one = torch.zeros_like(d)
    for i in range(30):
        beyond = (near[i, 1:] - near[i, 1]).numpy()
        low, high = 1e-6, 1e3
        for _ in range(200):
            sigma = (low + high) / 2
            low, high = (low, sigma) if np.exp(-beyond / sigma).sum() > np.log2(6) else (sigma, high)
        one[i, which[i, 1:]] = torch.from_numpy(np.exp(-beyond / sigma))
    assert torch.allclose(w, one + one.T - one * one.T, atol=1e-5)
    assert torch.equal(w, w.T) and float(w.min()) >= 0 and float(w.max()) <= 1
    assert torch.isfinite(S.fuzzy_simplicial_set(torch.zeros(5, 5), 3)).all()
    with pytest.raises(ValueError, match="k must"):
        S.fuzzy_simplicial_set(d, 1)


def test_guttman_steps_never_raise_the_stress():
    _, d = distances(20)
    g = torch.Generator().manual_seed(1)
    x, values = torch.randn(20, 2, dtype=torch.float64, generator=g), []
    for _ in range(15):
        values.append(float(S.stress(x, d)))
        x = S.smacof(d, 2, g, iterations=1, start=x)
    assert all(b <= a + 1e-9 for a, b in zip(values, values[1:], strict=False))
    whole = S.smacof(d, 3, g, iterations=600)
    assert float(S.stress(whole, d)) < 1e-2 * float(d.square().sum())


def test_laplacian_eigenmaps_are_scikit_learns():
    _, d = distances(40)
    w = (-d).exp().fill_diagonal_(0)
    ours = S.laplacian_eigenmaps(w, 2)
    peer = SpectralEmbedding(2, affinity="precomputed", random_state=0).fit_transform(w.numpy())
    for i in range(2):
        assert abs(np.corrcoef(ours[:, i], peer[:, i])[0, 1]) > 0.9999


def test_cross_entropy_is_the_loop_and_falls():
    _, d = distances(10)
    w = S.fuzzy_simplicial_set(d, 4)
    x = torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = 0.0
    for i in range(10):
        for j in range(i):
            q = 1 / (1 + 1.577 * float((x[i] - x[j]).norm()) ** (2 * 0.895))
            want -= float(w[i, j]) * np.log(q) + (1 - float(w[i, j])) * np.log(1 - q)
    assert float(S.fuzzy_cross_entropy(x, w)) == pytest.approx(want, rel=1e-6)
    assert torch.autograd.gradcheck(lambda v: S.fuzzy_cross_entropy(v, w), x.requires_grad_())
    g = torch.Generator().manual_seed(0)
    ends = [float(S.fuzzy_cross_entropy(S.embed_by_cross_entropy(w, 2, g, steps), w)) for steps in (1, 20)]
    assert ends[1] < ends[0]


def test_chains():
    strings, d = S.dna_chains(4, 5, torch.Generator().manual_seed(0), edits=10, length=100)
    assert strings.shape == (20, 100)
    for i, j in ((0, 1), (3, 17), (19, 0)):
        assert float(d[i, j]) == pytest.approx(float((strings[i] != strings[j]).double().mean()))
    assert all(abs(float(d[i, i + 1]) - 0.01) < 1e-6 for i in range(4)), "one letter a step"
    x = torch.arange(4.0).repeat_interleave(5)[:, None]
    assert S.own_base(x, 5) == 1 and S.own_base(x.roll(1, 0), 5) == 0 == S.own_base(x.roll(-1, 0), 5)


def test_recall_of_chains_is_that_of_the_embedding():
    found, made = S.chain_recall({"raw": lambda d: d, "single": S.single_linkage}, 5, 4, 2, 0, iterations=3)
    assert made["raw"].shape == (20, 2) and found == {name: S.own_base(x, 4) for name, x in made.items()}


def test_an_embedding_that_is_the_labels_classifies_and_a_constant_one_does_not():
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (60,), generator=g)
    z = torch.randn(60, 4, generator=g)
    noisy = labels[:, None] + 0.01 * torch.randn(60, 2, generator=g)
    makers = {"labels": lambda z, w, plain, dim: noisy, "noise": lambda z, w, plain, dim: z[:, :2]}
    found = S.embedding_accuracy(makers, z, labels, dims=(2,))
    assert found["labels"][2] == 1.0 and found["noise"][2] < 0.8
