"""CPC on a grid of patches."""

import pytest
import torch
from self_supervision.contrastive.helpers import rand, slow_info_nce
from torch import nn

from labcode.self_supervision import contrastive as C


def test_patches_are_the_squares_of_the_image():
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = C.patches(x, 4, 2)
    assert grid.shape == (2, 7, 7, 3, 4, 4)
    assert torch.equal(grid[1, 2, 5], x[1, :, 4:8, 10:14])
    assert C.patches(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8), 8, 4).shape[1:3] == (7, 7)
    with pytest.raises(ValueError, match="size"):
        C.patches(x, 17, 2)


def test_dropped_colours():
    x, g = 2 + rand(4000, 3, 2, 2).abs(), torch.Generator().manual_seed(0)
    y = C.drop_colours(x, 0.5, generator=g)
    left = (y == x).all((2, 3)).sum(1)
    assert set(left.tolist()) == {1, 3}
    assert float((left == 1).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert bool(((y == x) | (y == 0.5)).all())


def test_each_patch_is_augmented_by_its_own_draw():
    x = torch.full((1, 3, 16, 16), 200, dtype=torch.uint8)
    for options in (dict(drop=True, turn=False), dict(drop=False, turn=True)):
        grid = C.patch_views(**options)(x, torch.Generator().manual_seed(0)).flatten(1, 2)
        assert len({tuple(row.round(decimals=4).tolist()) for row in grid[0, :, :, 0, 0]}) > 1
    bare = C.patch_views(drop=False, turn=False)(x, torch.Generator())
    assert torch.equal(bare, C.patches(x, 4, 2))


def test_layer_norm_keeps_patches_apart_and_batch_norm_does_not():
    torch.manual_seed(0)
    grid = rand(2, 7, 7, 3, 4, 4, dtype=torch.float32)
    other = grid.clone()
    other[1] += 1
    for norm, apart in (("layer", True), ("batch", False)):
        net = C.PatchEncoder(norm=norm).train()
        assert torch.allclose(net.grid(grid)[0], net.grid(other)[0], atol=1e-6) == apart
    with pytest.raises(ValueError, match="norm"):
        C.PatchEncoder(norm="group")


def test_the_context_sees_no_row_below():
    torch.manual_seed(0)
    net, z = C.MaskedContext(4, layers=3), rand(1, 4, 7, 7, dtype=torch.float32)
    below = z.clone()
    below[:, :, 4:] += 1
    assert torch.equal(net(z)[:, :, :4], net(below)[:, :, :4])
    assert not torch.allclose(net(z)[:, :, 4], net(below)[:, :, 4])


def test_patch_loss_is_the_slow_loop_over_directions_and_horizons():
    torch.manual_seed(0)
    model = C.PatchCPC(C.PatchEncoder(dim=6, width=8), directions=2, ahead=(1, 2), pool=2).double()
    with torch.no_grad():
        model.W.add_(0.1 * rand(*model.W.shape))
    views = rand(4, 4, 4, 3, 4, 4, seed=2)
    z = model.encoder.grid(views)
    total = []
    for turn, sign in enumerate((1, -1)):
        turned = z if sign == 1 else z.flip(1, 2)
        c = model.contexts[turn](turned.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        for a, k in enumerate((1, 2)):
            for pool in ((0, 1), (2, 3)):
                spots = [(n, i, j) for n in pool for i in range(4 - k) for j in range(4)]
                p = torch.stack([model.W[turn, a].T @ c[s] for s in spots])
                q = torch.stack([turned[n, i + k, j] for n, i, j in spots])
                total.append(slow_info_nce(p, q))
    assert float(model(views, torch.arange(4)).detach()) == pytest.approx(sum(total) / len(total), rel=1e-9)


def test_every_direction_has_its_own_weights_and_gradient():
    model = C.PatchCPC(C.PatchEncoder(), directions=4)
    model(C.patches(torch.rand(8, 3, 16, 16), 4, 2), torch.arange(8)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert len(model.contexts) == len(model.W) == 4
    with pytest.raises(ValueError, match="directions"):
        C.PatchCPC(C.PatchEncoder(), directions=3)


def test_labelled_patches_use_the_rows_own_labels():
    labels = torch.tensor([3, 1, 2, 0])
    model = C.LabelledPatches(C.PatchEncoder(), labels, 4)
    x, index = torch.rand(2, 3, 16, 16), torch.tensor([2, 0])
    scores = model.head(model.encoder(x))
    wanted = nn.functional.cross_entropy(scores, torch.tensor([2, 3]))
    assert torch.allclose(model(C.patches(x, 4, 2), index), wanted)
