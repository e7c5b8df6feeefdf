"""Spectral clustering against scikit-learn and the eigenvectors themselves."""

import pytest
import torch
from sklearn.cluster import SpectralClustering

from labcode.clustering import spectral as S
from labcode.evaluate import ari


def test_spectral_clusters_are_scikit_learns():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, generator=g).mul(4).repeat_interleave(40, 0) + torch.randn(120, 2, generator=g) * 0.5
    w = (-torch.cdist(x, x).square()).exp()
    peer = SpectralClustering(3, affinity="precomputed", random_state=0).fit_predict(w.numpy())
    assert ari(S.spectral(w, 3), torch.from_numpy(peer).long()) == 1.0


def test_vectors_are_the_eigenvectors_either_way():
    w = torch.rand(40, 40, dtype=torch.float64)
    w = w + w.T
    root = w.sum(1).rsqrt()
    values = torch.linalg.eigvalsh(root[:, None] * w * root)
    for k in (3, 30):
        v = S.spectral_vectors(w, k)
        got = (v * ((root[:, None] * w * root) @ v)).sum(0)
        assert torch.allclose(got, values.flip(0)[:k], atol=1e-8)
    for bad, name in (((torch.rand(3, 4), 1), "affinity"), ((torch.rand(3, 3), 4), "k must")):
        with pytest.raises(ValueError, match=name):
            S.spectral_vectors(*bad)
