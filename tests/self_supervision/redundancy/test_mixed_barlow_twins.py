"""The guard against its four matrices, and its ends."""


import numpy as np
import pytest
import torch
from self_supervision.redundancy.helpers import SHAPES, correlation, pair, scores, views

from labcode import nets
from labcode.self_supervision import redundancy as R


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_mixed_barlow_is_the_four_matrices(n, d, gram):
    z1, z2 = pair(n, d)
    mixed, order, alpha = pair(n, d, 5)[1], torch.randperm(n, generator=torch.Generator().manual_seed(1)), 0.3
    m, a, b = scores(mixed), scores(z1), scores(z2)
    shuffled = b[order.numpy()]
    wanted = 0.0
    for view in (a, b):
        target = alpha * correlation(a, view) + (1 - alpha) * correlation(shuffled, view)
        wanted += ((correlation(m, view) - target) ** 2).sum()
    assert float(R.mixed_barlow(mixed, z1, z2, alpha, order, gram)) == pytest.approx(wanted, rel=1e-9)


def test_the_guard_is_zero_at_both_ends():
    model = R.MixedBarlow(nets.SmallNet(), 12).train()
    x1, x2 = views(16).chunk(2)
    z1, z2, order = model.project(x1), model.project(x2), torch.randperm(16)
    assert model.guard(x1, x2, z1, z2, 1.0, order) < 1e-8
    assert model.guard(x1, x2, z1, z2, 0.0, order) < 1e-8
    assert model.guard(x1, x2, z1, z2, 0.5, order) > 1e-3


@pytest.mark.bad_input
def test_one_image_cannot_be_mixed_and_a_share_is_a_share():
    with pytest.raises(ValueError, match=r"two views of at least two images, stacked, got shape \(2, 3, 8, 8\)"):
        R.MixedBarlow(nets.SmallNet(), 12).train()(views(1), torch.arange(1))
    z = torch.randn(4, 3)
    with pytest.raises(ValueError, match="alpha"):
        R.mixed_barlow(z, z, z, 1.5, torch.arange(4))


@pytest.mark.parametrize("order", [[0, 1, 2, 6], [0, 1, 2, -1]])
def test_an_order_that_is_none_is_named(order):
    z = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="order must"):
        R.mixed_barlow(*z, 0.5, torch.tensor(order))


@pytest.mark.parametrize("n, d", [(5, 4), (12, 2)])
def test_what_no_mixture_explains_is_one_less_the_squared_correlation(n, d):
    (z1, z2), mixed, order = pair(n, d), pair(n, d, 5)[1], torch.randperm(n, generator=torch.Generator().manual_seed(1))
    wanted = 0.3 * z1 + 0.7 * z2[order]
    r = [np.corrcoef(mixed[:, j], wanted[:, j])[0, 1] for j in range(d)]
    assert float(R.nonlinear_share(mixed, z1, z2, 0.3, order)) == pytest.approx(1 - np.mean(np.square(r)), abs=1e-4)
    assert float(R.nonlinear_share(5 * wanted - 2, z1, z2, 0.3, order)) == pytest.approx(0, abs=1e-4)
    assert float(R.nonlinear_share(torch.ones_like(z1), z1, z2, 0.3, order)) == 1
