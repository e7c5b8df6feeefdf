"""Fine-tuning."""

import pytest
import torch

from labcode.nets import SmallNet
from labcode.self_supervision import data_curation as D


def test_fine_tuning_learns_leaves_the_encoder_alone_and_speaks_the_targets_units():

    torch.manual_seed(0)
    encoder, data = SmallNet(16, 32, size=12), D.faces(200, 0, (0, 3))
    before = [p.clone() for p in encoder.parameters()]
    kind = D.fine_tune(encoder, data.images, data.identity, 60, lr=5e-3)
    assert (kind.predict(data.images) == data.identity).double().mean() > 0.9
    yaw = D.fine_tune(encoder, data.images, 100 + 5 * data.yaw[:, None], 60, lr=5e-3)
    assert D.mean_squared_error(yaw.predict(data.images), 100 + 5 * data.yaw[:, None]) < 0.6
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))
    flat = data.yaw.mean().expand(200, 1)
    assert D.mean_squared_error(flat, data.yaw[:, None]) == pytest.approx(1)
    with pytest.raises(ValueError, match="targets"):
        D.fine_tune(encoder, data.images, data.identity[:5], 1)
