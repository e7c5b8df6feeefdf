"""Barlow Twins against the loop of its equation, its invariances and closed values."""


import numpy as np
import pytest
import torch
from self_supervision.redundancy.helpers import SHAPES, correlation, pair, scores

from labcode.self_supervision import redundancy as R


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_barlow_twins_is_the_loop(n, d, gram):
    z1, z2 = pair(n, d)
    c = correlation(scores(z1), scores(z2))
    on = sum((1 - c[i, i]) ** 2 for i in range(d))
    off = sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j)
    assert float(R.barlow_twins(z1, z2, 0.03, gram=gram)) == pytest.approx(on + 0.03 * off, rel=1e-9)
    assert float(R.barlow_twins(z1, z2, 0.03, on=0.0, gram=gram)) == pytest.approx(0.03 * off, rel=1e-9, abs=1e-12)
    assert np.allclose(R.cross_correlation(z1, z2), c)
    own = [correlation(scores(z), scores(z)) for z in (z1, z2)]
    off = sum(c[i, j] ** 2 for c in own for i in range(d) for j in range(d) if i != j) / 2
    assert float(R.barlow_twins(z1, z2, 0.03, gram=gram, within=True)) == pytest.approx(on + 0.03 * off, rel=1e-9)


def test_barlow_twins_ignores_scale_and_shift_and_row_order():
    z1, z2 = pair(30, 5)
    base = R.barlow_twins(z1, z2)
    assert torch.allclose(R.barlow_twins(1000 * z1 - 7, z2), base, rtol=1e-4)
    order = torch.randperm(30)
    assert torch.allclose(R.barlow_twins(z1[order], z2[order]), base)
    assert not torch.allclose(R.barlow_twins(z1[order], z2), base)  # pairs matter
