"""Transport against a closed form, and the penalty on slopes."""

import pytest
import torch
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive_theory as T


def test_transport_on_a_line_is_the_difference_of_distribution_functions():
    g = gen()
    p, q = (torch.rand(6, generator=g, dtype=torch.float64) for _ in range(2))
    p, q = p / p.sum(), q / q.sum()
    at = torch.arange(6, dtype=torch.float64)
    cost = (at[:, None] - at).abs()
    value, u, v = T.optimal_transport(p, q, cost)
    assert value == pytest.approx(float((p.cumsum(0) - q.cumsum(0)).abs().sum()))
    assert float(p @ u + q @ v) == pytest.approx(value)
    assert bool((u[:, None] + v <= cost + 1e-9).all())
    with pytest.raises(ValueError, match="p must"):
        T.optimal_transport(2 * p, q, cost)


def test_penalty_is_zero_for_unit_slopes_and_reaches_the_encoders():
    unit = torch.nn.functional.normalize(randn(5, 3), dim=1)
    assert float(T.lipschitz_penalty(unit)) == pytest.approx(0, abs=1e-9)
    assert float(T.lipschitz_penalty(3 * unit)) == pytest.approx(4)
    assert torch.autograd.gradcheck(T.lipschitz_penalty, randn(4, 3).requires_grad_())
    torch.manual_seed(0)
    critic = T.PairCritic(3, 3, 8, 4)
    T.wpc_penalty(critic.rowwise, torch.randn(6, 3), torch.randn(6, 3), torch.randperm(6)).backward()
    assert all(p.grad.abs().sum() > 0 for p in critic.parameters() if p.ndim == 2)
    x, y = torch.randn(2, 6, 3)
    assert torch.allclose(critic(x, y).diagonal(), critic.rowwise(x, y), atol=1e-6)

    def linear(x, y):  # slope of norm 5 everywhere
        return 3 * x[:, 0] + 4 * y[:, 1]

    assert float(T.wpc_penalty(linear, x, y, torch.randperm(6))) == pytest.approx(16, rel=1e-5)


@pytest.mark.parametrize("target", [float("nan"), float("inf"), -1.0, 1e30])
def test_a_slope_that_is_no_length_is_named(target):
    with pytest.raises(ValueError, match="target"):
        T.lipschitz_penalty(randn(3, 2), target)


def test_slopes_of_blocks_are_those_of_a_linear_critic():
    def linear(x, y):
        return 3 * x[:, 0] + 4 * x[:, 1] + 2 * y[:, 3]

    x, y = torch.randn(2, 5, 4)
    assert T.block_slopes(linear, x, y, 2)[0].tolist() == pytest.approx([5, 0, 0, 2], abs=1e-5)


def test_the_best_potential_of_a_symbol_has_slope_one_and_the_measure():
    value, f, cost = T.dependency_of_symbol(T.symbol_codes(5))
    then = (torch.arange(5) + 1) % 5
    assert float(f[torch.arange(5), then].mean() - f.mean()) == pytest.approx(value)
    assert T.slope_of_table(f, cost) == pytest.approx(1)
    assert T.slope_of_table(3 * f, cost) == pytest.approx(3)


def test_no_critic_promises_more_than_its_slope_allows():
    for objective in ("random", "CPC", "WPC"):
        told = T.bounds_of_critic(objective, 0, steps=20)
        assert told["excess"] <= 1e-6 and told["gap"] <= told["slope"] * told["truth"] + 1e-9


def test_without_weight_the_penalty_leaves_cpc():
    x, y, _ = T.token_pairs(64, 2, 0)
    critics = [T.train_critic(arm, x, y, 0, 16, 6, lam) for arm, lam in (("CPC", 1.0), ("WPC", 0.0), ("WPC", 1.0))]
    plain, nothing, bounded = (torch.cat([p.detach().flatten() for p in c.parameters()]) for c in critics)
    assert torch.equal(plain, nothing) and not torch.allclose(plain, bounded)


@pytest.mark.parametrize("stacked", [False, True])
def test_grids_show_the_digits_and_their_successors(stacked):
    digits = torch.arange(20.0)[:, None, None].expand(20, 8, 8)  # picture i is all i, and its digit is i % 10
    x, y, shown = T.digit_grids(digits, torch.arange(20) % 10, 30, 0, stacked)
    for v, wanted in ((x, shown), (y, (shown + 1) % 10)):
        cells = v.view(30, 4, 8, 8) if stacked else v.view(30, 2, 8, 2, 8).transpose(2, 3).reshape(30, 4, 8, 8)
        assert bool((cells == cells[:, :, :1, :1]).all())
        assert torch.equal(cells[:, :, 0, 0].long() % 10, wanted)
    critic = T.PairCritic(256, 256, dim=8, shape=(4, 8, 8) if stacked else (1, 16, 16))
    assert critic(x, y).shape == (30, 30)
