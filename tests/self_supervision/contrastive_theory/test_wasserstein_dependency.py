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
