"""ProtAugment: the prototypical loss of the loop, its schedule, paraphrases that obey, BLEU by hand."""

import math
import random

import pytest
import torch

from labcode.clustering import few_shot as F


def points(b=2, q=4, k=3, d=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)  # noqa: E731
    return draw(b, q, d), draw(b, k, d), torch.randint(k, (b, q), generator=g)


def test_loss_is_the_loop():
    z, c, y = points()
    for b in range(2):
        want = 0.0
        for i in range(4):
            e = [math.exp(-float((z[b, i] - c[b, k]).square().sum())) for k in range(3)]
            want -= math.log(e[int(y[b, i])] / sum(e)) / 4
        assert float(F.prototypical(z, c, y)[b]) == pytest.approx(want, rel=1e-9)


def test_loss_gradient_invariance_edges():
    z, c, y = points()
    assert torch.autograd.gradcheck(lambda z, c: F.prototypical(z, c, y), (z.requires_grad_(), c.requires_grad_()))
    assert torch.allclose(F.prototypical(z + 3, c + 3, y), F.prototypical(z, c, y))
    assert (
        float(F.prototypical(z[:, :1], c[:, :1], 0 * y[:, :1]).detach().abs().max()) == 0
    )  # one prototype: nothing to tell
    assert torch.allclose(F.prototypical(0 * z, 0 * c, y), torch.tensor(math.log(3), dtype=torch.float64))
    assert torch.isfinite(F.prototypical(1e3 * z, 1e3 * c, y)).all()
    assert F.prototypical(z.detach().half(), c.detach().half(), y).dtype == torch.float32
    with pytest.raises(ValueError, match="labels"):
        F.prototypical(z, c, y + 3)
    with pytest.raises(ValueError, match="prototypes"):
        F.prototypical(z, c[:1], y)


def test_share_falls_from_one_to_zero():
    assert [F.share(t, 4) for t in (0, 1, 4)] == [1, 0.75, 0] and F.share(3, 4, math.inf) == 1
    assert F.share(1, 4, 2) == 1 - 1 / 16
    with pytest.raises(ValueError, match="p must"):
        F.share(0, 4, 0.0)


def test_bleu_by_hand():
    assert F.bleu("a b c", "a b c") == pytest.approx(1)
    assert F.bleu("a b d", "a b c") == pytest.approx(math.sqrt(2 / 3 * 1 / 2))
    assert F.bleu("a b", "a b c d") == pytest.approx(math.exp(-1))
    assert F.bleu("x y", "a b") == 0 and F.bleu("a a a", "a b c", 1) == pytest.approx(1 / 3)


def test_paraphrases_obey_what_is_forbidden():
    g = random.Random(0)
    for _ in range(200):
        s = F.request(("cancel", "flight"), g)
        p = F.paraphrase(s, g, 1.0)
        assert p.verb != s.verb and p.noun != s.noun
        p = F.paraphrase(s, g, 0.0, bigrams=True)
        assert p.template != s.template and (p.verb != s.verb or p.noun != s.noun)
        assert set(F.eda(s, g, 0.0).split()) == set(str(s).split())
    plain = [F.paraphrase(s, g, 0.0) for _ in range(200)]
    assert sum(p.verb == s.verb for p in plain) > 160
    right = [F.paraphrase(s, g, 1.0, drift=0.0).noun for _ in range(200)]
    assert set(right) <= {"flight", "plane ticket", "air travel", "trip by air", "plane"}


def test_intents_of_the_parts_share_no_thing():
    known, new = F.intents(3)
    assert len(known) == len(new) == 24 and not {o for _, o in known} & {o for _, o in new}
    with pytest.raises(ValueError, match="sizes"):
        F.intents(0, (99, 1))


def test_encoder_is_the_weighted_mean():
    words = F.vocabulary(["b a", "c"])
    assert words == {"a": 1, "b": 2, "c": 3}
    ids = F.tokens(["b a", "c c b", "unknown"], words, 4)
    assert ids.tolist() == [[2, 1, 0, 0], [3, 3, 2, 0], [1, 0, 0, 0]]
    first = torch.randn(4, 6)
    model = F.Encoders(2, first)
    with torch.no_grad():
        model.weights[1] = torch.tensor([0.0, 1.0, 2.0, 0.5])
    z = model(ids.expand(2, -1, -1))
    assert torch.allclose(z[0, 1], (2 * first[3] + first[2]) / 3, atol=1e-6)
    w = torch.tensor([2.0, 1.0]).softmax(0)
    assert torch.allclose(z[1, 0], w[0] * first[2] + w[1] * first[1], atol=1e-6)


def test_arms_are_trained_on_the_same_episodes_apart_from_each_other():
    known, new = torch.randint(1, 20, (6, 12, 5)), torch.randint(1, 20, (9, 5))
    copies, first = torch.randint(1, 20, (9, 2, 5)), torch.randn(20, 4)
    arms = {"a": F.Arm(labelled=8), "b": F.Arm(copies, labelled=8), "c": F.Arm(copies, (1.0,), 8)}
    made = F.protaugment(known, new, arms, first, 0, steps=4, queries=3)
    assert torch.allclose(made.words[0], made.words[2])  # a constant weight of 1 is no second term
    assert not torch.allclose(made.words[0], made.words[1])
    alone = F.protaugment(known, new, {"b": arms["b"]}, first, 0, steps=4, queries=3)
    assert torch.allclose(alone.words[0], made.words[1], atol=1e-5)
