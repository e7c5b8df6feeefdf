"""The channel-agnostic autoencoder: what it does not care for, and what it keeps apart."""

import pytest
import torch
from self_supervision.predictive.helpers import draw, vit

from labcode import nets
from labcode.self_supervision import predictive as P


def test_channel_encoder_does_not_care_for_the_order_or_number_of_channels():
    torch.manual_seed(0)
    encoder, x = P.ChannelViT((6, 6), (2, 2), 16, 2, 2), draw(2, 3, 6, 6, dtype=torch.float32)
    order = torch.tensor([2, 0, 1])
    out = encoder(x).unflatten(1, (3, 9))
    assert torch.allclose(encoder(x[:, order]).unflatten(1, (3, 9)), out[:, order], atol=1e-5)
    assert encoder(x[:, :1]).shape == (2, 9, 16) and encoder(x.repeat(1, 3, 1, 1)).shape == (2, 81, 16)
    assert torch.equal(encoder.patches(x)[:, 9:18], nets.patchify(x[:, 1:2], (2, 2)))
    index = torch.tensor([[0, 20], [13, 5]])
    tokens = encoder.single.embed(encoder.patches(x)) + encoder.single.position.repeat(3, 1)
    assert torch.allclose(encoder(x, index), encoder.single.trunk(nets.gather(tokens, index)), atol=1e-5)


def test_channel_decoder_paints_the_hidden_and_keeps_channels_apart():
    torch.manual_seed(0)
    mae = P.ChannelMAE(P.ChannelViT((6, 6), (2, 2), 16, 1, 2), 3, width=8, heads=2)
    x = draw(2, 3, 6, 6, dtype=torch.float32)
    assert torch.equal(mae.paint(mae.encoder.patches(x)), x)
    kept = torch.tensor([[0, 10, 20, 26]] * 2)
    painted = mae.decode(mae.encoder(x, kept), kept)
    assert painted.shape == (2, 27, 4)
    with torch.no_grad():
        for p in mae.decoders[1].parameters():
            p.add_(1.0)
    same = torch.isclose(mae.decode(mae.encoder(x, kept), kept), painted, atol=1e-6).all(2)
    assert same[:, :9].all() and same[:, 18:].all() and not same[:, 9:18].all()


def test_self_standardise_takes_away_gain_and_offset():
    x = draw(3, 2, 5, 5)
    y = P.self_standardise(4.0 * x + 7.0)
    assert torch.allclose(y, P.self_standardise(x), atol=1e-3)
    assert y.mean((2, 3)).abs().max() < 1e-6 and (y.var((2, 3), correction=0) - 1).abs().max() < 1e-4
    assert P.self_standardise(torch.full((1, 1, 4, 4), 0.3)).abs().max() < 1e-3


def test_perturbation_classifier_is_cross_entropy_of_its_own_images():
    torch.manual_seed(0)
    labels = torch.tensor([0, 2, 1, 2])
    model, x = P.PerturbationClassifier(vit(), labels), draw(2, 1, 6, 6, dtype=torch.float32)
    logits = model.head(model.encoder(x).mean(1))
    wanted = -(logits.log_softmax(1)[0, 2] + logits.log_softmax(1)[1, 0]) / 2
    assert logits.shape == (2, 3)
    assert float(model(x, torch.tensor([3, 0])).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_the_decoder_is_the_released_one():
    """No LayerNorm at the end of a channel's decoder; no biases in queries, keys and values."""
    model = P.ChannelMAE(P.ChannelViT((4, 4), (2, 2), 8, 1, 2), 2, width=8, heads=2)
    assert model.cross.q.bias is None and model.cross.kv.bias is None and model.cross.out.bias is not None
    seen, kept = draw(3, 2, 8).float(), torch.tensor([[0, 5], [1, 2], [3, 7]])
    with torch.no_grad():
        y = torch.zeros(3, 8, 8) + model.blank
        y = y.scatter(1, kept[:, :, None].expand(-1, -1, 8), model.into(seen))
        y = y + torch.cat([model.position + model.channel[c] for c in range(2)])
        context = model.context_norm(y)
        painted = []
        for c, decoder in enumerate(model.decoders):
            part = model.cross(model.query_norm(y[:, 4 * c : 4 * c + 4]), context=context)
            part = part + model.mlp(model.mlp_norm(part))
            for block in decoder.blocks:
                part = block(part)
            painted.append(part)
        assert torch.allclose(model.decode(seen, kept), model.out(torch.cat(painted, 1)), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_self_standardise_is_computed_in_float32(dtype):
    x = (300 + 40 * draw(2, 3, 8, 8)).to(dtype)
    found = P.self_standardise(x)
    assert found.dtype == dtype and torch.allclose(found.double(), P.self_standardise(x.double()), atol=0.02)


def test_perturbations_are_any_integers():
    x, names = draw(6, 1, 6, 6).float(), torch.tensor([10**9, -2, 5])
    losses = []
    for labels in (torch.tensor([2, 0, 1, 2, 0, 1]), names[torch.tensor([0, 1, 2, 0, 1, 2])]):
        torch.manual_seed(0)
        model = P.PerturbationClassifier(vit(), labels)
        assert model.head.out_features == 3
        losses.append(float(model(x, torch.arange(6)).detach()))
    assert losses[0] == losses[1], "classes in ascending order of their numbers"
