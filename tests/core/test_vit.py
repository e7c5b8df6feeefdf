"""Tokens, positions, masks and the transformer against independent references: einops, loops, torch.nn's layers."""

import math

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from labcode import nets
from labcode.nets.vit import Attention, Block


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def double(module):
    """In float64, every parameter drawn anew, so that none is at a value that hides a mistake."""
    module = module.double().eval()
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            p.copy_(0.3 * draw(*p.shape, seed=i))
    return module


def test_patches_of_images_and_clips_are_einops():
    x, clip = draw(2, 3, 6, 8), draw(2, 5, 4, 6, 9)
    assert torch.equal(nets.patchify(x, (2, 4)), rearrange(x, "n c (a p) (b q) -> n (a b) (p q c)", p=2, q=4))
    wanted = rearrange(clip, "n c (t o) (a p) (b q) -> n (t a b) (o p q c)", o=2, p=3, q=3)
    assert torch.equal(nets.patchify(clip, (2, 3, 3)), wanted)
    assert torch.equal(nets.unpatchify(nets.patchify(x, (2, 4)), (2, 4), (3, 2)), x)
    assert torch.equal(nets.unpatchify(wanted, (2, 3, 3), (2, 2, 3)), clip)


@pytest.mark.bad_input
def test_patches_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="patch"):
        nets.patchify(draw(1, 1, 6, 6), (4, 4))
    with pytest.raises(ValueError, match=r"x must be .* with 1 sides"):
        nets.patchify(draw(1, 1, 6, 6), (3,))
    with pytest.raises(ValueError, match="grid"):
        nets.unpatchify(draw(1, 4, 9), (3, 3), (2, 3))
    with pytest.raises(ValueError, match="patch"):
        nets.unpatchify(draw(1, 4, 8), (3, 3), (2, 2))
    with pytest.raises(ValueError, match="width"):
        nets.sincos((2, 2, 2), 5)
    with pytest.raises(ValueError, match="heads"):
        nets.Transformer(10, 1, heads=4)
    with pytest.raises(ValueError, match="keep"):
        nets.random_split(2, 4, 5, generator=torch.Generator())
    with pytest.raises(ValueError, match="tokens"):
        nets.normalise_patches(draw(2, 3, 1))


def test_normalised_patches_have_mean_0_and_unbiased_variance_1():
    z = nets.normalise_patches(7 + 3 * draw(2, 5, 12).double())
    assert z.mean(-1).abs().max() < 1e-6 and (z.var(-1) - 1).abs().max() < 1e-5
    assert torch.equal(nets.normalise_patches(torch.full((1, 2, 4), 0.3)), torch.zeros(1, 2, 4))


@pytest.mark.parametrize("grid, width", [((3, 4), 16), ((2, 3, 2), 14), ((5,), 6)])
def test_positions_are_the_loop(grid, width):
    found, m = nets.sincos(grid, width), width // (2 * len(grid))
    cells = [()]
    for g in grid:
        cells = [(*c, i) for c in cells for i in range(g)]  # the last axis runs fastest
    for row, cell in enumerate(cells):
        wanted = []
        for place in cell:
            angles = [place / 10_000 ** (i / m) for i in range(m)]
            wanted += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        wanted += [0.0] * (width - len(wanted))
        assert found[row].tolist() == pytest.approx(wanted, abs=1e-6)


def test_split_gather_and_fill_undo_each_other():
    g, x = torch.Generator().manual_seed(0), draw(6, 9, 4)
    kept, rest = nets.random_split(6, 9, 4, generator=g)
    assert torch.equal(torch.cat([kept, rest], 1).sort(1).values, torch.arange(9).expand(6, 9))
    assert len({tuple(row) for row in kept.tolist()}) > 1, "every image has its own draw"
    assert all(torch.equal(nets.gather(x, kept)[i, j], x[i, kept[i, j]]) for i in range(6) for j in range(4))
    assert torch.equal(nets.gather(x, kept[0]), x[:, kept[0]])
    whole = nets.fill(nets.gather(x, kept), kept, torch.full((4,), 7.0), 9)
    assert torch.equal(nets.gather(whole, kept), nets.gather(x, kept)) and (nets.gather(whole, rest) == 7).all()
    assert torch.equal(nets.fill(nets.gather(x, kept), kept, x, 9), x)
    one = nets.fill(nets.gather(x, kept[0]), kept[0], torch.zeros(4), 9)
    assert torch.equal(one[:, kept[0]], x[:, kept[0]]) and (one[:, rest[0]] == 0).all()


def test_every_token_is_kept_alike():
    kept, _ = nets.random_split(4000, 8, 2, generator=torch.Generator().manual_seed(1))
    share = torch.bincount(kept.flatten(), minlength=8) / 4000
    assert (share - 0.25).abs().max() < 0.03


def test_prefix_causal_is_the_loop():
    prefix = torch.tensor([0, 2, 5])
    mask = nets.prefix_causal(5, prefix)
    for n, s in enumerate(prefix.tolist()):
        for i in range(5):
            for j in range(5):
                assert bool(mask[n, i, j]) == (j <= i or j < s)
    assert torch.equal(nets.prefix_causal(4), torch.ones(4, 4).tril().bool())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [None, "common", "each"])
def test_attention_is_torchs(bias, kind):
    """With our weights put into torch.nn.MultiheadAttention, whose mask says what is *not* seen."""
    ours = double(Attention(12, 3, bias=bias))
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
            theirs.out_proj.bias.copy_(ours.out.bias)
    x = draw(4, 6, 12).double()
    each = nets.prefix_causal(6, torch.tensor([0, 1, 3, 6]))
    mask = {None: None, "common": nets.prefix_causal(6), "each": each}[kind]
    hidden = None if mask is None else ~mask if mask.ndim == 2 else (~mask).repeat_interleave(3, 0)
    assert torch.allclose(ours(x, mask), theirs(x, x, x, attn_mask=hidden, need_weights=False)[0], atol=1e-10)
    other = draw(4, 9, 12, seed=5).double()
    assert torch.allclose(ours(x, context=other), theirs(x, other, other, need_weights=False)[0], atol=1e-10)


def test_block_is_torchs_pre_norm_layer():
    ours = double(Block(8, 2))
    theirs = nn.TransformerEncoderLayer(8, 2, 32, 0.0, F.gelu, batch_first=True, norm_first=True).double().eval()
    with torch.no_grad():
        a, b = ours.attention, theirs.self_attn
        b.in_proj_weight.copy_(torch.cat([a.q.weight, a.kv.weight]))
        b.in_proj_bias.copy_(torch.cat([a.q.bias, a.kv.bias]))
        pairs = [(b.out_proj, a.out), (theirs.linear1, ours.mlp[0]), (theirs.linear2, ours.mlp[2])]
        for to, of in [*pairs, (theirs.norm1, ours.norm1), (theirs.norm2, ours.norm2)]:
            to.load_state_dict(of.state_dict())
    x = draw(3, 5, 8).double()
    assert torch.allclose(ours(x), theirs(x), atol=1e-10)


def test_layerscale_scales_the_branches_and_qk_norm_bounds_the_logits():
    x = draw(2, 5, 8)
    plain, scaled = Block(8, 2), Block(8, 2, layerscale=0.1)
    scaled.load_state_dict(plain.state_dict() | {"scale1": torch.zeros(8), "scale2": torch.zeros(8)})
    assert torch.equal(scaled(x), x)
    scaled.load_state_dict(plain.state_dict() | {"scale1": torch.ones(8), "scale2": torch.ones(8)})
    assert torch.equal(scaled(x), plain(x))
    assert torch.equal(Block(8, 2, layerscale=0.1).scale1, torch.full((8,), 0.1))
    attention = Attention(8, 2, bias=False, qk_norm=True)
    assert torch.allclose(attention(100 * x, context=x), attention(x, context=x), atol=1e-3)


def test_nothing_flows_back_through_a_causal_mask():
    trunk, x = nets.Transformer(8, 3, 2), draw(2, 6, 8)
    changed = x.clone()
    changed[:, 4] = draw(2, 8, seed=1)
    for prefix, first in ((0, 4), (3, 4), (5, 0)):  # a token inside the prefix is seen by all
        mask = nets.prefix_causal(6, torch.full((2,), prefix))
        same = torch.isclose(trunk(x, mask), trunk(changed, mask), atol=1e-6).all(2)
        assert same[:, :first].all() and not same[:, first:].any()
    assert len(trunk.layers(x)) == 4 and torch.equal(trunk.norm(trunk.layers(x)[-1]), trunk(x))


def test_a_token_cares_for_the_set_it_sees_and_not_for_its_order():
    net, x = nets.ViT((6, 6), (2, 2), width=16, depth=2, heads=2), draw(3, 3, 6, 6)
    index = torch.tensor([7, 0, 3])
    assert torch.allclose(net(x, index)[:, [1, 2, 0]], net(x, index[[1, 2, 0]]), atol=1e-5)
    assert torch.allclose(net(x, torch.arange(9)), net(x), atol=1e-6)
    changed = x.clone()
    changed[:, :, :2, 2:4] = 9.0  # patch 1, which is not seen
    assert torch.equal(net(changed, index), net(x, index))
    own = torch.stack([index, index + 1, index])
    assert torch.allclose(net(x, own)[1], net(x[1:2], index + 1)[0], atol=1e-5)


def test_vit_takes_clips_and_a_class_token():
    net = nets.ViT((4, 6, 6), (2, 3, 3), channels=1, width=18, depth=1, heads=2, cls=True, bias=False)
    assert net.grid == (2, 2, 2) and net.features == 18
    clip = draw(2, 1, 4, 6, 6)
    assert net(clip).shape == (2, 9, 18) and net(clip, torch.arange(3)).shape == (2, 4, 18)
    assert torch.allclose(net.tokens(clip)[:, 1:], net.embed(nets.patchify(clip, net.patch)) + net.position, atol=1e-6)
    assert torch.equal(net.tokens(clip)[1, 0], net.cls)
    assert not [n for n, _ in net.trunk.named_parameters() if "bias" in n and "norm" not in n]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_patches_in_half_precision_are_normalised_in_float32(dtype):
    x = (500 + 60 * draw(3, 4, 12)).to(dtype)
    found = nets.normalise_patches(x)
    assert found.dtype == dtype and torch.isfinite(found).all()
    assert torch.allclose(found.double(), nets.normalise_patches(x.double()), atol=0.02)
