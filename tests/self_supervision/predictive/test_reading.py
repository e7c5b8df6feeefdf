"""The ridge probe against scikit-learn's ridge regression."""

import numpy as np
import pytest
import torch
from self_supervision.predictive.helpers import draw, g

from labcode.self_supervision import predictive as P


def test_the_ridge_probe_is_scikit_learns():
    from sklearn.linear_model import Ridge

    z, new = 3 * draw(60, 7) + 5, 3 * draw(400, 7, seed=1) + 5
    y, y_new = (torch.randint(4, (n,), generator=g()) for n in (60, 400))
    y = torch.where(z[:, 0] > 6, 2, y)
    mean, std = z.mean(0), z.std(0)
    a, b = ((part - mean) / std for part in (z, new))
    for l2 in (0.01, 0.3, 10.0):
        told = Ridge(alpha=l2 * 60).fit(a.numpy(), np.eye(4)[y.numpy()]).predict(b.numpy()).argmax(1)
        assert P.ridge_probe(z, y, new, y_new, l2) == pytest.approx((told == y_new.numpy()).mean(), abs=0.003)
    assert P.ridge_probe(z * 7 - 2, y, new * 7 - 2, y_new) == pytest.approx(P.ridge_probe(z, y, new, y_new), abs=0.003)


@pytest.mark.bad_input
def test_features_and_labels_that_do_not_fit_are_refused():
    z, y = draw(6, 3), torch.arange(6) % 2
    with pytest.raises(ValueError, match="z_new must have 3 features"):
        P.ridge_probe(z, y, z[:, :2], y)
    with pytest.raises(ValueError, match="y must be one class for each of the 6 rows"):
        P.ridge_probe(z, y[:5], z, y)
    with pytest.raises(ValueError, match="finite"):
        P.ridge_probe(z / 0, y, z, y)


def test_few_labels_are_probes_of_draws():
    z, new = draw(50, 4), draw(30, 4, seed=1)
    y, y_new = (torch.randint(2, (n,), generator=g()) for n in (50, 30))
    wanted = []
    for seed in range(3):
        r = torch.randperm(50, generator=g(seed))[:20]
        wanted.append(P.ridge_probe(z[r], y[r], new, y_new))
    assert P.few_labels(z, y, new, y_new, 20, draws=3) == pytest.approx(sum(wanted) / 3)
