"""CRATE's layers against their equations, and the masked autoencoder's bookkeeping."""

import math

import pytest
import torch

from labcode.clustering import subspaces as S
from labcode.nets import patchify


def test_mssa_is_the_loop_over_heads():
    torch.manual_seed(0)
    layer, z = S.MSSA(6, 2).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    for n in range(2):
        heads = []
        for h in range(2):
            u = layer.u.weight[3 * h : 3 * h + 3].T  # (d, d_h)
            v = z[n] @ u
            heads.append(torch.softmax(v @ v.T / math.sqrt(3), dim=1) @ v)
        want = torch.cat(heads, 1) @ layer.out.weight.T + layer.out.bias
        assert torch.allclose(layer(z)[n], want, atol=1e-12)
    assert torch.allclose(layer.attention(z).sum(-1), torch.ones(2, 2, 5).double())
    with pytest.raises(ValueError, match="heads"):
        S.MSSA(6, 4)


def test_tokens_may_come_in_any_order():
    torch.manual_seed(0)
    layer, z, order = S.EncoderLayer(8, 2), torch.randn(1, 5, 8), torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(layer(z)[:, order], layer(z[:, order]), atol=1e-5)


def test_ista_lowers_its_objective_and_is_the_equation():
    g = torch.Generator().manual_seed(0)
    z, d = torch.rand(4, 6, dtype=torch.float64, generator=g), 0.3 * torch.randn(6, 6, dtype=torch.float64, generator=g)
    got = S.ista(z, d, 0.1, 0.5)
    for i in range(4):
        want = (z[i] + 0.1 * d.T @ (z[i] - d @ z[i]) - 0.05).clamp(min=0)
        assert torch.allclose(got[i], want)
    value = lambda s: 0.5 * (z - s @ d.T).square().sum() + 0.5 * s.abs().sum()  # noqa: E731
    assert value(got) < value(z)
    assert torch.autograd.gradcheck(S.ista, (z.requires_grad_(), d.requires_grad_()))
    assert torch.equal(S.ista(torch.zeros(2, 6), torch.eye(6)), torch.zeros(2, 6))
    with pytest.raises(ValueError, match="step"):
        S.ista(z, d, 0.0)


def test_parameters_are_counted_and_few():
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    encoder, decoder = S.EncoderLayer(16, 4), S.DecoderLayer(16, 4)
    assert count(encoder) == 3 * 256 + 16 + 4 * 16 == count(decoder)
    crate, vit = (count(S.MaskedAutoencoder(kind, width=48)) for kind in ("crate", "vit"))
    assert crate < 0.35 * vit


def test_the_decoder_layer_is_linear_less_attention():
    torch.manual_seed(0)
    layer, x = S.DecoderLayer(8, 2), torch.randn(2, 5, 8)
    y = layer.norm1(x) @ layer.linear.weight.T
    assert torch.allclose(layer(x), y - layer.mssa(layer.norm2(y)), atol=1e-6)


@pytest.mark.parametrize("kind", ["crate", "vit"])
def test_hidden_pixels_are_neither_seen_nor_forgotten(kind):
    torch.manual_seed(0)
    model, x = S.MaskedAutoencoder(kind, width=16, heads=2), torch.rand(3, 1, 16, 16)
    torch.nn.init.normal_(model.predict.weight)
    hidden = model.draw(3, torch.Generator().manual_seed(0))
    assert (hidden.sum(1) == 12).all()
    inside = torch.zeros(3, 1, 16, 16)
    tokens = patchify(torch.arange(256.0).view(1, 1, 16, 16), (4, 4)).long()
    flat = inside.view(3, -1)
    for i in range(3):
        flat[i, tokens[0][hidden[i]].flatten()] = 1.0
    changed = torch.where(inside.bool(), torch.rand_like(x), x)
    assert torch.allclose(model.rebuild(x, hidden), model.rebuild(changed, hidden), atol=1e-6)
    error = (model.rebuild(x, hidden) - patchify(x, (4, 4))).square().mean(2)[hidden].mean()
    assert torch.allclose(model(x, hidden), error)
    assert model.features(x[:1]).shape == (1, 16)
    for bad, name in ((dict(kind="mae"), "kind"), (dict(mask=1.0), "mask")):
        with pytest.raises(ValueError, match=name):
            S.MaskedAutoencoder(**bad)


def test_statistics_are_those_of_the_definition():
    torch.manual_seed(0)
    model, x = S.MaskedAutoencoder("crate", width=16, depth=2, heads=2), torch.rand(2, 1, 16, 16)
    found = S.layer_statistics(model, x)
    block, z = model.encoder.blocks[0], model.tokens(x)
    v = torch.nn.functional.normalize(block.mssa.subspaces(block.norm1(block.compress(z))), dim=-1)
    want = [torch.logdet(torch.eye(17) + 8 / (17 * 0.01) * v[n, h] @ v[n, h].T) / 2 for n in range(2) for h in range(2)]
    assert found["rate"][0] == pytest.approx(float(sum(want).detach()) / 2, rel=1e-4) and len(found["rate"]) == 2
    assert found["nonzero"][0] == pytest.approx(float((block(z) > 0).float().mean()))


def test_an_untrained_autoencoder_is_a_new_one_and_training_is_repeatable():
    x = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    shape = dict(batch_size=6, image=8, width=8, heads=2)
    bare = S.learn_autoencoder(x, "crate", 3, steps=0, **shape)
    torch.manual_seed(1003)
    new = S.MaskedAutoencoder("crate", image=8, width=8, heads=2)
    assert not bare.training and torch.equal(bare.embed.weight, new.embed.weight)
    one, two = (S.learn_autoencoder(x, "vit", 3, steps=2, **shape) for _ in range(2))
    assert torch.equal(one.embed.weight, two.embed.weight) and not torch.equal(one.embed.weight, bare.embed.weight)
