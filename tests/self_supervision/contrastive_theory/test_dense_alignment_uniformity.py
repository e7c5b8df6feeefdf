"""Dense contrast against a loop, and where positions match."""

import math

import pytest
import torch
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive_theory as T


def test_dense_nce_is_the_loop():
    z1, z2 = randn(3, 4, 5), randn(3, 4, 5, seed=1)
    match, valid = torch.randint(4, (3, 4), generator=gen()), torch.rand(3, 4, generator=gen()) > 0.3
    drawn, tau, want = torch.randint(4, (3, 2), generator=gen(1)), 0.3, []

    def cos(a, b):
        return float(a @ b / a.norm() / b.norm())

    for i in range(3):
        for p in range(4):
            if valid[i, p]:
                own = math.exp(cos(z1[i, p], z2[i, match[i, p]]) / tau)
                rest = sum(math.exp(cos(z1[i, p], z2[j, k]) / tau) for j in range(3) if j != i for k in drawn[j])
                want.append(-math.log(own / (own + rest)))
    assert float(T.dense_nce(z1, z2, match, valid, drawn, tau)) == pytest.approx(sum(want) / len(want), rel=1e-9)
    assert float(T.dense_nce(z1, z2, match, valid & False, drawn, tau)) == 0
    assert torch.autograd.gradcheck(
        lambda a, b: T.dense_nce(a, b, match, valid, drawn, tau), (z1.requires_grad_(), z2.requires_grad_())
    )


def test_coordinates_match_what_shows_the_same_place():
    same = torch.tensor([[2.0, 3.0, 12.0, 12.0]])
    match, valid = T.match_coordinates(same, same, 4)
    assert torch.equal(match[0], torch.arange(16)) and bool(valid.all())
    moved = torch.tensor([[2.0, 6.0, 12.0, 12.0]])  # one position to the right
    match, valid = T.match_coordinates(same, moved, 4)
    assert valid[0].view(4, 4).tolist() == [[False, True, True, True]] * 4
    assert match[0].view(4, 4)[:, 1:].tolist() == [[4 * r + c for c in range(3)] for r in range(4)]
    z = randn(2, 16, 8)
    order = torch.randperm(16, generator=gen())
    assert torch.equal(T.match_features(z[:, order], z)[0], order.expand(2, 16))
    assert T.dense_alignment(z, z, *T.match_features(z, z)) == pytest.approx(0, abs=1e-12)


def test_dense_net_sees_its_window_and_labels_sit_where_the_ink_is():
    torch.manual_seed(0)
    net = T.DenseNet().eval()
    x = torch.randn(1, 1, 16, 16)
    y = x.clone()
    y[..., :3, :3] += 1
    changed = (net(x) - net(y)).abs().sum(2)[0].view(4, 4) > 1e-6
    assert changed[0, 0] and not changed[3].any() and not changed[:, 3].any()
    images, dense, whole = T.object_scenes(50, "fit", many=False)
    assert images.shape == (50, 1, 24, 24) and bool(((dense == 10) | (dense == whole[:, None])).all())
    images, dense, whole = T.object_scenes(50, "fit", many=True)
    quarters = dense.view(50, 2, 3, 2, 3)
    assert torch.equal(dense[:, 0], whole) and bool((quarters == quarters[:, :, :1, :, :1]).all())


@pytest.mark.parametrize("matching", ["coordinates", "features", "random", "image"])
def test_dense_contrast_trains(matching):
    torch.manual_seed(0)
    model = T.DenseContrast(matching)
    loss = model(*T.dense_views(T.object_scenes(8, "fit", True)[0], gen()))
    loss.backward()
    assert torch.isfinite(loss) and model.encoder.conv1.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="matching"):
        T.DenseContrast("else")


@pytest.mark.parametrize("tau", [1e-20, 1e-6, 0.011, 1.0])
def test_dense_nce_at_any_temperature_is_what_float64_gives(tau):
    z1, z2 = randn(3, 4, 5), randn(3, 4, 5, seed=1)
    z1[0, 0] = 0
    match, drawn = torch.tensor([[0, 1, 2, 3]] * 3), torch.tensor([[0, 2]] * 3)
    valid = torch.ones(3, 4, dtype=torch.bool)
    found = []
    for precision in (torch.float32, torch.float64):
        a = z1.to(precision).requires_grad_()
        value = T.dense_nce(a, z2.to(precision), match, valid, drawn, tau)
        found += [value.detach().double(), torch.autograd.grad(value, a)[0].double()]
    torch.testing.assert_close(found[0], found[2], rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(found[1], found[3], rtol=1e-3, atol=1e-5 * float(found[3].abs().max()))
    assert not found[1][0, 0].any()


@pytest.mark.bad_input
def test_dense_nce_names_positions_that_are_none_and_takes_one_image():
    z = randn(1, 4, 5)
    match, valid, drawn = torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool), torch.tensor([[0]])
    assert float(T.dense_nce(z, z, match, valid, drawn)) == 0
    for name, call in (("match", lambda: T.dense_nce(z, z, match + 4, valid, drawn)),
                       ("drawn", lambda: T.dense_nce(z, z, match, valid, drawn - 1))):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name} must lie in 0 … 3"):
            call()


def test_contrast_of_whole_images_is_that_of_the_mean_of_the_map():
    torch.manual_seed(0)
    model = T.DenseContrast("image", tau=0.3).eval()
    seen, boxes = torch.randn(6, 1, 16, 16, generator=gen()), torch.tensor([[0.0, 0, 16, 16]]).repeat(6, 1)
    z = model.head(model.encoder(seen).mean(1))
    z = z / z.norm(dim=1, keepdim=True)
    scores = z[:3] @ z[3:].T / 0.3
    want = float((scores.logsumexp(1) - scores.diagonal()).mean())
    assert float(model(seen, boxes)) == pytest.approx(want, rel=1e-4)


def test_a_training_reports_on_its_way_and_quarters_are_means():
    worlds = [T.object_scenes(n, split, False) for n, split in ((40, "fit"), (30, "validation"))]
    blank = T.dense_training(None, *worlds, seed=0)
    found = T.dense_training("coordinates", *worlds, seed=0, steps=6, looks=(0.5,))
    assert len(blank) == 1 and len(found) == 2 and found[0] != found[1]
    assert all(0 <= found[1][what] <= 1 for what in ("dense", "image", "correspondence"))
    h = randn(2, 36, 3)
    assert torch.allclose(T.quarters(h).view(2, 3, 4)[:, :, 0], h.view(2, 6, 6, 3)[:, :3, :3].mean((1, 2)))
