"""The attentive probe against torch's own attention, and on labels and tokens that others have tried."""

import math

import pytest
import torch
from torch import nn

from labcode.evaluate import AttentiveProbe, attentive_probe, linear_probe


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_probe_is_torchs_cross_attention_with_one_query():
    probe = AttentiveProbe(12, 5, heads=3).double().eval()
    theirs = nn.MultiheadAttention(12, 3, bias=False, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(12).double(), probe.kv.weight]))
        theirs.out_proj.weight.copy_(torch.eye(12))
    x, query = draw(4, 7, 12).double(), probe.query.view(1, 1, 12).expand(4, 1, 12)
    found, _ = theirs(query, *(2 * (x / math.sqrt(1 + 1e-5),)))
    assert torch.allclose(probe(x), probe.head(found[:, 0]), atol=1e-10)


def test_probe_finds_what_a_mean_over_tokens_dilutes():
    """The class lies in one token of twelve, marked by a flag; the probe learns to look at it. The seed decides all."""
    g = torch.Generator().manual_seed(0)
    tokens, y = 2 * torch.randn(1200, 12, 16, generator=g), torch.randint(4, (1200,), generator=g)
    at = torch.randint(12, (1200,), generator=g)
    tokens[torch.arange(1200), at, y] += 6
    tokens[torch.arange(1200), at, 15] += 12
    args = (tokens[:1000], y[:1000], tokens[1000:], y[1000:])
    before = torch.get_rng_state()
    found = attentive_probe(*args, steps=100)
    assert torch.equal(torch.get_rng_state(), before), "the probe leaves the global generator alone"
    assert found == attentive_probe(*args, steps=100)
    mean = [t.mean(1) if t.ndim == 3 else t for t in args]
    assert found > linear_probe(*mean).accuracy + 0.1
    shuffled = args[1][torch.randperm(1000, generator=g)]
    assert attentive_probe(args[0], shuffled, *args[2:], steps=100) < 0.4


def heaps(n=60):
    """Tokens of three classes that a straight line tells apart."""
    y = torch.arange(n) % 3
    return draw(n, 2, 8) + 6 * nn.functional.one_hot(y, 8)[:, None], y


def test_labels_are_any_integers_and_tokens_of_any_precision():
    x, y = heaps()
    plain = attentive_probe(x[:40], y[:40], x[40:], y[40:], steps=60)
    assert plain == 1
    ids = torch.tensor([-5, 10**8, 7])[y]
    assert attentive_probe(x[:40], ids[:40], x[40:], ids[40:], steps=60) == plain
    assert attentive_probe(x[:40].bfloat16(), y[:40], x[40:].bfloat16(), y[40:], steps=60) == plain
    new = ids.clone()
    new[40:50] = 99
    assert attentive_probe(x[:40], ids[:40], x[40:], new[40:], steps=60) == 0.5, "half of the test labels are unknown"


@pytest.mark.bad_input
def test_what_is_no_tokens_is_refused_by_name():
    x, y = heaps()
    odd = x.clone()
    odd[3, 1, 2] = float("nan")
    for args, message in [
        ((odd, y, x, y), "train must be finite"),
        ((x, y, odd, y), "test must be finite"),
        ((x, y[:-1], x, y), "train_y must be 60 integers"),
        ((x, y, x, y.float()), "test_y must be 60 integers"),
        ((x, y, x[:, :1], y), "train and test must be tokens"),
        ((x[:0], y[:0], x, y), "train and test must be tokens"),
    ]:
        with pytest.raises(ValueError, match=message):
            attentive_probe(*args, steps=1)
    with pytest.raises(ValueError, match="classes must be at least 3"):
        attentive_probe(x, y, x, y, classes=2, steps=1)
