"""The spectral loss, its descent, and its two minimisers."""

import pytest
import torch
from self_supervision.contrastive_theory.helpers import gen, randn

from labcode.self_supervision import contrastive_theory as T


def test_spectral_loss_is_the_loop_and_the_linear_form_its_expectation():
    a, b, y = randn(6, 3), randn(6, 3, seed=1), torch.arange(2).repeat(3)
    inner = [[float(a[i] @ b[j]) for j in range(6)] for i in range(6)]
    square = sum(v * v for row in inner for v in row) / 36
    same = [inner[i][j] for i in range(6) for j in range(6) if y[i] == y[j]]
    assert float(T.spectral_loss(a, b)) == pytest.approx(-2 * sum(inner[i][i] for i in range(6)) / 6 + square)
    assert float(T.spectral_loss(a, b, y[:, None] == y)) == pytest.approx(-2 * sum(same) / len(same) + square)
    assert torch.autograd.gradcheck(T.spectral_loss, (a.requires_grad_(), b.requires_grad_()))
    x, w = torch.randn(20, 7, generator=gen()), torch.randn(2, 7, generator=gen(1))
    labels = torch.arange(4).repeat(5)
    for who, positive in ((labels, labels[:, None] == labels), (None, None)):
        found = T.spectral_linear(w, *T.moments(x, who))
        assert torch.allclose(found, T.spectral_loss(x @ w.T, x @ w.T, positive), rtol=1e-4)


def test_descent_follows_the_gradient():
    x = torch.randn(20, 6, generator=gen())
    second, cross = T.moments(x, None, 0.1)
    start = T.descend(second, cross, 3, 0, start=0.1)
    w = start.clone().requires_grad_()
    slope = torch.autograd.grad(T.spectral_linear(w, second, cross), w)[0]
    assert torch.allclose(T.descend(second, cross, 3, 1, lr=0.01, start=0.1), start - 0.01 * slope, atol=1e-5)


def test_two_minimisers_share_loss_and_training_features_only():
    world = T.Features(120, (1.0, 0.6, 0.0))
    x, y, sub = world.draw(40, 0)
    fresh, _, fresh_sub = world.draw(2000, 1)
    low, high = T.two_minimisers(x.double(), y, torch.eye(120, dtype=torch.float64)[1])
    same = y[:, None] == y
    losses = [float(T.spectral_loss(x.double() @ w.T, x.double() @ w.T, same)) for w in (low, high)]
    assert losses == pytest.approx([-1, -1])
    read = [fresh.double() @ w.T for w in (low, high)]
    accuracy = [T.ridge_accuracy(z[:1000], fresh_sub[:1000], z[1000:], fresh_sub[1000:]) for z in read]
    assert accuracy[0] < 0.6 and accuracy[1] > 0.75 and high.norm() > 2 * low.norm()


def test_distractors_are_shared_as_often_as_asked():
    data = T.DigitsWithDistractor(torch.rand(400, 9, generator=gen()), kinds=8)
    for kept, share in ((1.0, 1.0), (0.0, 1 / 8)):
        a, b = data.views(torch.arange(400), gen(), kept)[:, 9:].chunk(2)
        assert float((a == b).all(1).float().mean()) == pytest.approx(share, abs=0.06)


def test_digits_are_read_where_they_are_large_only():
    y = torch.arange(400) % 10
    pixels = torch.eye(10)[y] + 0.05 * torch.randn(400, 10, generator=gen())
    train, test = (pixels[:300], y[:300]), (pixels[300:], y[300:])
    louder = lambda f: lambda x: torch.cat([f * x[:, :10], x[:, 10:]], 1)  # noqa: E731
    loud, faint = (T.read_beside(louder(f), train, test) for f in (30, 1e-3))
    assert loud["digit"] > 0.95 > 0.4 > faint["digit"] and loud["pattern"] < 0.4 < 0.95 < faint["pattern"]


def test_training_beside_reads_on_its_way_and_labels_lose_the_pattern():
    y = torch.arange(400) % 10
    pixels = torch.eye(10)[y] + 0.1 * torch.randn(400, 10, generator=gen())
    data = (pixels[:300], y[:300]), (pixels[300:], y[300:])
    found = T.train_beside(*data, 0, width=16, supervised=1.0, steps=100, lr=1e-2, looks=(0.0, 0.5))
    assert len(found) == 3 and found[-1]["digit"] > found[0]["digit"]
    assert found[-1]["pattern"] < found[0]["pattern"] - 0.3
