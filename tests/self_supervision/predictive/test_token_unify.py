"""TokenUnify against the loop over all pairs; what it knows, and what it is fed."""

import pytest
import torch
from self_supervision.predictive.helpers import draw, vit

from labcode import nets
from labcode.self_supervision import predictive as P


def test_next_all_loss_is_the_loop():
    n, r, k, p = 2, 3, 4, 2
    predicted, patches, after = draw(n, r, k, p), draw(n, k, p, seed=1), torch.tensor([[0, 1, 3], [2, 2, 0]])
    errors = [float((predicted[i, s, j, c] - patches[i, j, c]) ** 2)
              for i in range(n) for s in range(r) for j in range(k) for c in range(p) if j > after[i, s]]  # fmt: skip
    assert float(P.next_all_loss(predicted, patches, after)) == pytest.approx(sum(errors) / len(errors), rel=1e-12)
    last = torch.full((n, r), k - 2)  # only the next one follows: the next-token loss
    shifted = torch.cat([torch.zeros(n, k - 2, p), predicted[:, 0, k - 1 :], torch.zeros(n, 1, p)], 1)
    next_token = P.autoregressive_loss(shifted, patches, torch.full((n,), k - 1), normalise=False)
    alone = P.next_all_loss(predicted[:, :1], patches, last[:, :1])
    assert float(next_token) == pytest.approx(float(alone), rel=1e-9)


def test_next_and_next_all_answers_know_only_the_past():
    model, x = P.TokenUnify(vit()), draw(2, 1, 6, 6, dtype=torch.float32)
    shown = P.rollout(model, x, 4, feed_back=False)
    patches = nets.patchify(x, (2, 2)).clone()
    patches[:, 4:] = 9.0
    other = nets.unpatchify(patches, (2, 2), (3, 3))
    for feed_back in (True, False):
        assert torch.allclose(P.rollout(model, other, 4, feed_back), P.rollout(model, x, 4, feed_back), atol=1e-5)
    assert torch.equal(shown[:, :4], nets.patchify(x, (2, 2))[:, :4])


def test_rollout_feeds_back_what_it_said():
    model, x = P.TokenUnify(vit()), draw(3, 1, 6, 6, dtype=torch.float32)
    said = P.rollout(model, x, 5, feed_back=True)
    patches = nets.patchify(x, (2, 2)).clone()
    with torch.no_grad():
        for j in range(5, 9):  # by hand, with a sequence that is only as long as what is known
            h = model.encoder.embed(patches[:, :j]) + model.encoder.position[:j]
            h = model.encoder.trunk(h, nets.prefix_causal(j, torch.full((3,), 5)))[:, -1]
            patches[:, j] = model.answer(h, torch.tensor(j))
    assert torch.allclose(said, patches, atol=1e-4)
    first = P.rollout(model, x, 5, feed_back=False)[:, 5]
    assert torch.allclose(said[:, 5], first, atol=1e-5), "the next patch is the first of those that follow"


def test_objectives_take_turns_and_each_trains_the_trunk():
    model, x = P.TokenUnify(vit(), ("random", "next", "next-all")), draw(4, 1, 6, 6, dtype=torch.float32)
    seen = []
    model.loss = lambda x, objective, full=model.loss: seen.append(objective) or full(x, objective)
    for _ in range(4):
        model.zero_grad()
        model(x).backward()
        assert model.encoder.embed.weight.grad.abs().sum() > 0 and model.know.weight.grad.abs().sum() > 0
    assert seen == ["random", "next", "next-all", "random"]


def test_hidden_patches_stay_hidden():
    torch.manual_seed(0)
    model, x = P.TokenUnify(vit(), ("random",)), draw(2, 1, 6, 6, dtype=torch.float32)
    noted = {}
    model.encoder.trunk.register_forward_pre_hook(lambda module, args: noted.update(tokens=args[0]))
    torch.manual_seed(1)
    model(x)
    blank = (noted["tokens"] - model.encoder.position - model.blank).abs().amax(2) < 1e-6
    assert (blank.sum(1) == 9 - model.keep).all() and model.keep == 2
