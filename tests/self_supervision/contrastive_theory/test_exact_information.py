"""Information from tables against plain sums, and from noisy codes against closed forms."""

import math

import pytest
import torch
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive_theory as T


def test_information_of_a_table_is_the_sum():
    p = torch.rand(3, 4, 2, generator=gen(), dtype=torch.float64)
    p = p / p.sum()
    want = 0.0
    for i in range(3):
        for j in range(4):
            for k in range(2):
                ratio = float(p[i, j, k] * p[:, :, k].sum() / p[i, :, k].sum() / p[:, j, k].sum())
                want += float(p[i, j, k]) * math.log(ratio)
    assert T.table_information(p, (0,), (1,), (2,)) == pytest.approx(want)
    assert T.table_information(p, (0, 2), ()) == pytest.approx(0, abs=1e-12)
    both = T.table_information(p, (0,), (1, 2))
    assert both == pytest.approx(T.table_information(p, (0,), (2,)) + want)  # the chain rule
    with pytest.raises(ValueError, match="table"):
        T.table_information(2 * p, (0,), (1,))


def test_the_example_has_the_values_on_paper():
    at = [T.shared_private_table(v) for v in (0.0, 0.5, 1.0)]
    nats = [T.table_information(p, (3,), (0, 1), (0, 2)) for p in at]
    assert nats[0] == pytest.approx(0) and nats[2] == pytest.approx(math.log(4))
    assert T.table_information(at[0], (0, 1), (0, 2)) == pytest.approx(math.log(4))
    # half private: y = s for sure where they agree, one of two else
    assert T.table_information(at[1], (3,), (0, 1)) == pytest.approx(math.log(4) - 0.75 * math.log(2))
    with pytest.raises(ValueError, match="private"):
        T.shared_private_table(1.5)


def test_no_code_loses_more_than_the_bound():
    for seed in range(15):
        table = T.random_codes_table(seed)
        assert float(table.sum()) == pytest.approx(1)
        assert T.table_information(table, (1, 2), (3,), (0,)) == pytest.approx(0, abs=1e-9)  # z depends on x₁ alone
        lost, bound = T.compression_loss(table)
        assert -1e-9 <= lost <= bound + 1e-9


def test_little_noise_tells_the_row_and_much_tells_nothing():
    z = randn(50, 3)
    assert T.noisy_information(z, 1e-4, gen()) == pytest.approx(math.log(50))
    assert T.noisy_information(z, 1e4, gen()) == pytest.approx(0, abs=1e-3)
    wide = randn(1500, 1)
    assert T.noisy_information(wide, 1.0, gen(1)) == pytest.approx(T.gaussian_channel(torch.eye(1), 1.0), abs=0.08)
    assert T.binned_information(z, 1e-6) == pytest.approx(math.log(50))
    assert T.binned_information(z, 1e6) < math.log(8) + 1e-9
    assert T.gaussian_channel(torch.diag(torch.tensor([3.0, 0.0])), 1.0) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="sd"):
        T.noisy_information(z, 0.0, gen())


def test_codes_tell_what_they_were_made_of():
    y = torch.arange(400) % 4
    mu = 10 * torch.eye(4)[y] + 0.01 * randn(400, 4).float()
    told = T.code_information(mu, torch.zeros(400, 4) - 3, {"class": y, "other": torch.arange(400) // 4 % 5}, gen())
    assert told["class"] == pytest.approx(math.log(4), abs=0.05) and told["other"] == pytest.approx(0, abs=0.05)
    assert told["class"] <= told["view, at most"] and told["view, at least"] <= math.log(400) + 1e-9


def test_a_linear_gaussian_code_lies_between_the_bounds():
    """z = x + ε with x and ε standard normal in two dimensions: log 2 nats."""
    told = T.code_information(randn(3000, 2), torch.zeros(3000, 2), {}, gen(1))
    assert told["view, at least"] - 0.05 <= math.log(2) <= told["view, at most"] + 0.05
    assert told["view, at most"] == pytest.approx(math.log(2), abs=0.05)


def test_covariances_have_the_information_of_gaussians():
    x, e = torch.randn(2, 20_000, 2, generator=gen(), dtype=torch.float64)
    y = 0.8 * x + 0.6 * e
    assert float(T.gaussian_information(x, y, 1e-6)) == pytest.approx(-math.log(1 - 0.64), abs=0.05)
    assert torch.autograd.gradcheck(lambda v: T.gaussian_information(v, y[:8]), x[:8].clone().requires_grad_())
