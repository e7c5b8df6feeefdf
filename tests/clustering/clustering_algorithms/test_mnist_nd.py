"""The mixture VAE's densities, the data sets that it draws, density peaks."""

import math

import pytest
import torch

from labcode.clustering.clustering_algorithms import (
    MixtureVAE,
    density_peaks,
    encode_digits,
)  # fmt: skip

f64 = dict(dtype=torch.float64)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_prior_is_a_density_and_the_kl_is_right_for_a_single_component():
    model = MixtureVAE(6, 1, 1.0, components=3).double()
    z = torch.linspace(-40, 40, 8001, **f64)[:, None]
    assert float(torch.trapezoid(model.log_prior(z).exp(), z[:, 0]).detach()) == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    one = MixtureVAE(4, 2, 1.0, components=1).double()
    x = torch.rand(1, 4, generator=draw(), **f64).expand(20_000, 4)
    with torch.no_grad():
        mean, scale = one.encode(x[:1])
        q = torch.distributions.Normal(mean[0], scale[0])
        p = torch.distributions.Normal(one.means[0], one.log_scales[0].exp())
        draws = mean + scale * torch.randn(20_000, 2, **f64)
        sampled = (q.log_prob(draws).sum(1) - one.log_prior(draws)).mean()
        assert float(sampled) == pytest.approx(float(torch.distributions.kl_divergence(q, p).sum()), abs=0.4)
        free = one.step(x)["loss"]
        one.beta = 0.0
        assert float(free - one.step(x)["loss"]) == pytest.approx(float(sampled), abs=0.8)


def test_encodings_repeat_and_leave_the_callers_random_numbers_alone():
    x = torch.rand(40, 9, generator=draw())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one = encode_digits(x, x[:7], 2, 0.5, steps=3, seed=1, batch=8)
    state_after = torch.get_rng_state()
    two = encode_digits(x, x[:7], 2, 0.5, steps=3, seed=1, batch=8)
    assert torch.equal(one, two) and one.shape == (7, 2) and len(state) == len(state_after)
    assert not torch.equal(one, encode_digits(x, x[:7], 2, 0.5, steps=3, seed=1, batch=8, sampled=False))


def test_density_peaks_counts_blobs():
    y = torch.arange(300) % 4
    x = 0.3 * torch.randn(300, 2, generator=draw()) + 4 * torch.stack([y // 2, y % 2], 1)
    assert density_peaks(x, 20, 97.0) == 4
    assert density_peaks(torch.randn(80, 2, generator=draw()), 40) >= 1
    assert math.isfinite(density_peaks(torch.zeros(30, 2)))
