"""The generative rivals, and what is read from a representation."""

import math

import pytest
import torch
from self_supervision.contrastive.helpers import rand
from torch import nn

from labcode.self_supervision import contrastive as C


class Flat(nn.Module):
    features = 12

    def __init__(self):
        super().__init__()
        self.seen = []
        self.map = nn.Linear(192, 12)

    def forward(self, x):
        self.seen.append(x)
        return self.map(x.flatten(1))


def test_negative_elbo_is_the_slow_sum():
    x, d, mean, log_var = rand(3, 2, 2, 2), rand(3, 2, 2, 2, seed=1), rand(3, 4, seed=2), rand(3, 4, seed=3)
    total = 0.0
    for i in range(3):
        misfit = sum((a - b) ** 2 for a, b in zip(x[i].flatten().tolist(), d[i].flatten().tolist(), strict=True))
        own, prior = torch.distributions.Normal(mean[i], (log_var[i] / 2).exp()), torch.distributions.Normal(0.0, 1.0)
        total += misfit / (2 * 0.3**2) + float(torch.distributions.kl_divergence(own, prior).sum())
    assert float(C.negative_elbo(x, d, mean, log_var, 0.3)) == pytest.approx(total / 3, rel=1e-9)
    assert float(C.negative_elbo(x, x, 0 * mean, 0 * mean)) == 0
    assert torch.autograd.gradcheck(lambda *a: C.negative_elbo(x, *a), [t.requires_grad_() for t in (d, mean, log_var)])


@pytest.mark.bad_input
def test_negative_elbo_refuses():
    x, mean = rand(3, 2, 2, 2), rand(3, 4)
    for name, arguments in (
        ("sigma", (x, x, mean, mean, 0.0)),
        ("log_var", (x, x, mean, mean[:2])),
        ("decoded", (x, x[:2], mean, mean)),
        ("mean", (x, x, mean[:2], mean[:2])),
        ("x", (x[:0], x[:0], mean[:0], mean[:0])),
    ):
        with pytest.raises(ValueError, match=name):
            C.negative_elbo(*arguments)


def test_the_denoiser_reads_noise_and_aims_at_the_clean_image():
    torch.manual_seed(0)
    x, model = torch.rand(4, 3, 8, 8), C.DenoisingAutoencoder(Flat())
    views = C.noisy_views(0.2)(x, torch.Generator().manual_seed(0))
    loss = model(views, torch.arange(4))
    assert torch.equal(views[4:], x) and torch.equal(model.encoder.seen[0], views[:4])
    assert float((views[:4] - x).std()) == pytest.approx(0.2, rel=0.1)
    wanted = (model.decoder(model.encoder(views[:4])) - x).square().sum() / 4
    assert torch.allclose(loss, wanted)


def test_the_vae_reads_the_clean_half_and_all_of_it_learns():
    model, x = C.VAE(Flat(), dim=5), torch.rand(4, 3, 8, 8)
    model(C.noisy_views()(x, torch.Generator()), torch.arange(4)).backward()
    assert torch.equal(model.encoder.seen[0], x)
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_decoder_sizes():
    assert C.Decoder(12, 8)(torch.zeros(2, 12)).shape == (2, 3, 8, 8)
    assert C.Decoder(12, 32)(torch.zeros(2, 12)).shape == (2, 3, 32, 32)


def test_colour_keeping_views_keep_colours():
    x = torch.full((3, 3, 8, 8), 0.25) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    views = C.colour_keeping_views(x, torch.Generator().manual_seed(0))
    assert views.shape == (6, 3, 8, 8)
    assert float((views - x.repeat(2, 1, 1, 1)).abs().mean()) < 0.03


def test_neighbour_r2():
    angle = torch.linspace(0, 3, 200)
    z, t = torch.stack([angle.cos(), angle.sin()], 1), angle[:, None]
    assert C.neighbour_r2(z, t, z, t, k=1) == pytest.approx(1)
    assert C.neighbour_r2(z, t, z, t, k=200) == pytest.approx(0, abs=1e-5)
    assert C.neighbour_r2(5 * z, t, z, t, k=9) == pytest.approx(C.neighbour_r2(z, t, z, t, k=9), abs=1e-5)
    with pytest.raises(ValueError, match="k must"):
        C.neighbour_r2(z, t, z, t, k=201)


def test_picture_factors():
    x = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    x[0, 1] = 255
    assert torch.allclose(C.picture_factors(x)[0], torch.tensor([0.0, 1.0, 0.0, 0.0]))


def test_negative_elbo_near_the_prior_keeps_small_divergences():
    """KL(N(0, e^v) ‖ N(0, 1)) = (e^v - 1 - v)/2 = v²/4 to first order: 2.5e-11 at v = 1e-5, never below 0."""
    x = torch.zeros(2, 1, 2, 2)
    for v in (1e-5, -1e-5, 1e-3, -0.5, 0.0):
        log_var = torch.full((2, 3), v)
        exact = math.expm1(float(log_var[0, 0])) - float(log_var[0, 0])
        found = float(C.negative_elbo(x, x, torch.zeros(2, 3), log_var))
        assert found >= 0 and found == pytest.approx(1.5 * exact, rel=1e-4, abs=1e-11)
