"""AIM against slow loops written from its equation: the loss, the mask, what it learns."""

import math

import pytest
import torch
from self_supervision.predictive.helpers import draw, vit

from labcode import nets
from labcode.self_supervision import predictive as P


@pytest.mark.parametrize("normalise", [True, False])
def test_autoregressive_loss_is_the_loop(normalise):
    n, k, p = 3, 5, 4
    predicted, patches, prefix = draw(n, k, p), 3 + draw(n, k, p, seed=1), torch.tensor([1, 3, 4])
    errors = []
    for i in range(n):
        for j in range(int(prefix[i]), k):  # patch j, predicted from patches 0 … j - 1
            x = patches[i, j].numpy()
            if normalise:
                x = (x - x.mean()) / math.sqrt(x.var(ddof=1) + 1e-6)
            errors += [(float(predicted[i, j - 1, c]) - x[c]) ** 2 for c in range(p)]
    found = float(P.autoregressive_loss(predicted, patches, prefix, normalise))
    assert found == pytest.approx(sum(errors) / len(errors), rel=1e-9)
    if normalise:
        assert float(P.autoregressive_loss(predicted, 5 * patches + 2, prefix)) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_aim_never_sees_what_it_predicts(causal):
    """Change patch j: predictions of patches up to j stay, unless j is in the prefix, which is no target."""
    model, x = P.AIM(vit(), causal=causal), draw(2, 1, 6, 6, dtype=torch.float32)
    for prefix in (1, 3, 8):
        lengths = torch.full((2,), prefix)
        for j in range(prefix, 9):
            patches = nets.patchify(x, (2, 2)).clone()
            patches[:, j] = draw(2, 4, seed=j, dtype=torch.float32)
            changed = nets.unpatchify(patches, (2, 2), (3, 3))
            same = torch.isclose(model.predict(x, lengths), model.predict(changed, lengths), atol=1e-6).all(2)
            assert same[:, :j].all(), "row j - 1 predicts patch j"
            assert not same[:, j:].any()


def test_aims_prefix_sees_itself_in_both_directions():
    model, x = P.AIM(vit()), draw(1, 1, 6, 6, dtype=torch.float32)
    whole, first = model.predict(x, torch.tensor([8])), model.predict(x, torch.tensor([1]))
    assert not torch.isclose(whole[:, 0], first[:, 0], atol=1e-4).all()
    assert torch.allclose(P.AIM(vit(), causal=True).predict(x, torch.tensor([8])),
                          P.AIM(vit(), causal=True).predict(x, torch.tensor([1])))  # fmt: skip


def test_aim_learns_a_rule_and_its_validation_loss_is_fixed():
    """Every patch repeats the first one: after a few steps the next patch is known."""
    torch.manual_seed(0)
    tile = torch.randn(64, 1, 2, 2)
    x, model = tile.repeat(1, 1, 3, 3), P.AIM(vit(32), depth=1)
    before = model.validation_loss(x)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        model(x).backward()
        optimiser.step()
    assert model.validation_loss(x) < 0.2 < before and model.validation_loss(x) == model.validation_loss(x)


def test_block_average_is_the_mean_of_the_last_blocks():
    encoder, x = vit(depth=3), draw(2, 1, 6, 6, dtype=torch.float32)
    layers = encoder.trunk.layers(encoder.tokens(x))
    assert torch.allclose(P.block_average(encoder, x, 2), (layers[-1] + layers[-2]) / 2)


def test_grey_digits_are_bright_and_kept_apart_by_split():
    x, y = P.grey_digits(200, "fit", seed=3)
    assert x.shape == (200, 1, 16, 16) and y.shape == (200,)
    assert x.min() > -0.1 and 1 < x.max() < 2.5
    assert not torch.equal(P.grey_digits(200, "validation", seed=3)[0], x)
    assert P.grey_digits(2, "fit", size=12, texture=0.5)[0].shape == (2, 1, 12, 12)
