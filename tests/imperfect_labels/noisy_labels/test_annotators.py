"""Annotators: the likelihood, its ambiguity, the regularisers and Dawid and Skene."""

import math

import pytest
import torch

from labcode.imperfect_labels.label_sets import annotators, confusion
from labcode.imperfect_labels.noisy_labels import (
    Confusions,
    annotator_loss,
    dawid_skene,
    entropy,
    majority,
    mean_trace,
    same_likelihood,
)  # fmt: skip


def made(n=2, b=5, a=3, k=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    p = torch.randn(n, b, k, dtype=torch.float64, generator=g).softmax(-1)
    t = torch.randn(n, b, a, k, k, dtype=torch.float64, generator=g).softmax(-2)
    return p, t, torch.randint(-1, k, (n, b, a), generator=g)


def test_likelihood_against_a_loop():
    p, t, y = made()
    got = annotator_loss(p, t, y)
    for n in range(2):
        terms = [
            -math.log(sum(float(t[n, i, r, y[n, i, r], c] * p[n, i, c]) for c in range(4)))
            for i in range(5) for r in range(3) if y[n, i, r] >= 0
        ]  # fmt: skip
        assert float(got[n]) == pytest.approx(sum(terms) / len(terms))
    shared = annotator_loss(p, t[:, :1], y)
    assert torch.allclose(shared, annotator_loss(p, t[:, :1].expand_as(t), y))
    assert torch.autograd.gradcheck(lambda q: annotator_loss(q, t, y), p.clone().requires_grad_())


def test_perfect_annotators_give_cross_entropy():
    p, _, y = made()
    y = y.clamp_min(0)
    eye = torch.eye(4, dtype=torch.float64).expand(2, 1, 3, 4, 4)
    want = -p[:, :, None].expand(-1, -1, 3, -1).gather(3, y[..., None]).log().mean((1, 2, 3))
    assert torch.allclose(annotator_loss(p, eye, y), want)
    with pytest.raises(ValueError, match="answers"):
        annotator_loss(p, eye, y[:, :, :2])


def test_nobody_asked():
    p, t, y = made()
    assert annotator_loss(p, t, torch.full_like(y, -1)).tolist() == [0, 0]


def test_matrices_are_stochastic_and_begin_diagonal():
    g = torch.Generator().manual_seed(0)
    for width in (None, 6):
        net = Confusions(2, 3, 4, from_features=width, generator=g)
        t = net(torch.randn(2, 5, 6, generator=g))
        assert t.shape == (2, 5 if width else 1, 3, 4, 4)
        assert torch.allclose(t.sum(-2), torch.ones(()), atol=1e-6)
        assert bool((t.argmax(-2) == torch.arange(4)).all())


def test_entropy_and_trace():
    p = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    assert float(entropy(p)) == pytest.approx(math.log(2) / 2)
    assert float(mean_trace(torch.eye(3).expand(1, 2, 2, 3, 3))) == pytest.approx(1)


def test_the_ambiguity():
    p, t, _ = made()
    s = torch.eye(4, dtype=torch.float64) + 0.1
    assert same_likelihood(p[0], t[0, 0, 0], s) < 1e-12


def test_dawid_skene_recovers_truth_and_matrices():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(900) % 3
    matrices = confusion([0.8, 0.7, 0.75, 0.6], 3, generator=g)
    said = annotators(y, matrices, 0.9, generator=g)
    truth, found = dawid_skene(said, 3)
    ours, votes = truth.argmax(1), majority(said, 3, generator=g)
    assert float((ours == y).double().mean()) > float((votes == y).double().mean()) - 0.01
    assert float((found - matrices).abs().mean()) < 0.05


def test_majority():
    said = torch.tensor([[0, 0, 1], [2, -1, -1], [1, 2, 1]])
    assert majority(said, 3, generator=torch.Generator().manual_seed(0)).tolist() == [0, 2, 1]
