"""k-means with restarts and the autoencoder."""

import pytest
import torch
from sklearn.cluster import KMeans

from labcode.clustering import deep_clustering as D


def test_best_kmeans_is_as_good_as_scikit_learn():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) + 6 * torch.eye(4)[torch.arange(300) % 4]
    centres, which = D.best_kmeans(x, 4, restarts=3)
    ours = float((x - centres[which]).square().sum())
    assert ours == pytest.approx(KMeans(4, n_init=5, random_state=0).fit(x.numpy()).inertia_, rel=1e-4)


def test_a_linear_autoencoder_reaches_the_principal_components():
    """The best linear code of width d leaves the variance of the other components: a closed value."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(256, 6, generator=g) * torch.tensor([3.0, 2, 1, 0.3, 0.2, 0.1])
    x = x - x.mean(0)
    torch.manual_seed(0)
    net = D.Autoencoder([6, 3])
    D.pretrain(net, x, generator=g, steps=250, dropout=0.0, lr=0.02)
    left = torch.linalg.eigvalsh(x.T @ x / len(x))[:3].sum() / 6
    assert float(D.reconstruction(net, x).detach()) == pytest.approx(float(left), rel=0.2)


def test_layerwise_training_ends_below_its_start_and_layers_have_their_widths():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(128, 12, generator=g)
    torch.manual_seed(0)
    net = D.Autoencoder([12, 8, 5, 3])
    before = float(D.reconstruction(net, x))
    D.pretrain_layerwise(net, x, generator=g, steps=60)
    assert float(D.reconstruction(net, x)) < 0.8 * before
    assert [h.shape[1] for h in net.layers(x)] == [8, 5, 3] and [h.shape[1] for h in net.decode(net(x))] == [5, 8, 12]
    unit = D.Autoencoder([12, 3], code="unit")(x)
    assert torch.allclose(unit.norm(dim=1), torch.ones(128))
    with pytest.raises(ValueError, match="widths"):
        D.Autoencoder([3])


def test_inner_reconstruction_adds_every_hidden_layer_against_the_clean_encoder():
    x = torch.rand(9, 6)
    net = D.Autoencoder([6, 5, 4, 2], slope=0.01)
    h, back = net.layers(x), net.decode(net(x))
    wanted = (back[-1] - x).square().mean()
    wanted = wanted + 0.1 * ((back[0] - h[1]).square().mean() + (back[1] - h[0]).square().mean())
    assert float(D.reconstruction(net, x, inner=0.1)) == pytest.approx(float(wanted), rel=1e-6)
