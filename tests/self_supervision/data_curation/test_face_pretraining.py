"""Fine-tuning."""

import pytest
import torch
from self_supervision.data_curation.helpers import gen

from labcode.nets import SmallNet
from labcode.self_supervision import data_curation as D


def test_fine_tuning_learns_leaves_the_encoder_alone_and_speaks_the_targets_units():

    torch.manual_seed(0)
    encoder, data = SmallNet(16, 32, size=16), D.faces(200, 0, (0, 3))
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


def test_classes_may_be_any_numbers_and_float_images_are_not_divided_again():
    torch.manual_seed(0)
    encoder, data = SmallNet(8, 16, size=16), D.faces(60, 0, (0, 3))
    ids = torch.tensor([100_000_000_000, -3, 7])[data.identity]
    order = torch.tensor([2, 0, 1])[data.identity]  # classes are in the order of their numbers
    model, plain = (D.fine_tune(encoder, data.images, y, 20, lr=5e-3) for y in (ids, order))
    assert torch.equal(model.predict(data.images), torch.tensor([-3, 7, 100_000_000_000])[plain.predict(data.images)])
    model.train()
    assert torch.equal(model.predict(data.images.float() / 255), model.predict(data.images)) and model.training


@pytest.mark.bad_input
def test_targets_that_are_not_finite_and_images_out_of_range_are_named():
    data, encoder = D.faces(4, 0), SmallNet(8, 16, size=16)
    with pytest.raises(ValueError, match="targets must be finite"):
        D.fine_tune(encoder, data.images, torch.full((4, 1), torch.nan), 1)
    with pytest.raises(ValueError, match="x must be"):
        D.fine_tune(encoder, data.images.float(), data.identity, 1)


def test_the_neighbours_mean_is_the_loop():
    z, new = (torch.randn(n, 4, generator=gen(n), dtype=torch.float64) for n in (15, 6))
    y, want = (torch.randn(n, 2, generator=gen(30 + n), dtype=torch.float64) for n in (15, 6))
    rest = torch.zeros(2, dtype=torch.float64)
    for row, told in zip(new, want, strict=True):
        like = sorted(range(15), key=lambda i, row=row: -float(torch.cosine_similarity(row, z[i], dim=0)))[:3]
        rest += (sum(y[i] for i in like) / 3 - told) ** 2
    spread = ((want - want.mean(0)) ** 2).sum(0)
    assert D.knn_r2(z, y, new, want, k=3) == pytest.approx(float((1 - rest / spread).mean()))
    with pytest.raises(ValueError, match="k must"):
        D.knn_r2(z, y, new, want, k=16)
