"""VICReg against the loop of its equations."""

import math

import pytest
from self_supervision.redundancy.helpers import SHAPES, covariance, pair

from labcode.self_supervision import redundancy as R


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_vicreg_is_the_loop(n, d, gram):
    z1, z2 = pair(n, d)
    wanted = 0.0
    for k in range(n):
        wanted += 7 * sum((float(z1[k, i]) - float(z2[k, i])) ** 2 for i in range(d)) / (n * d)
    for z in (z1.numpy(), z2.numpy()):
        c = covariance(z, z)
        wanted += 3 / 2 * sum(max(0, 1 - math.sqrt(c[i, i] + 1e-4)) for i in range(d)) / d
        wanted += 2 * sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    assert float(R.vicreg(z1, z2, 7, 3, 2, gram)) == pytest.approx(wanted, rel=1e-9)
