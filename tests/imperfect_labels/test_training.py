import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labcode.imperfect_labels.images import digits
from labcode.imperfect_labels.training import accuracies, cross_entropy, predict, train
from labcode.nets.stacked import StackedMLP, draw_rows, take

N, B, K = 3, 8, 4


def g(seed=0):
    return torch.Generator().manual_seed(seed)


def test_cross_entropy_is_the_sum_of_each_networks_mean():
    z = torch.randn(N, B, K, generator=g()).double().requires_grad_()
    y, soft = torch.randint(K, (N, B), generator=g(1)), torch.rand(N, B, K, generator=g(2)).double().softmax(-1)
    w = torch.rand(N, B, generator=g(3)).double()
    assert cross_entropy(z, y).dtype == torch.float64
    for weights in (None, w, w[0]):
        wanted_hard = wanted_soft = 0.0
        for i in range(N):
            for j in range(B):
                one = 1.0 if weights is None else weights.expand(N, B)[i, j]
                logp = z[i, j] - z[i, j].exp().sum().log()
                wanted_hard -= one * logp[y[i, j]] / B
                wanted_soft -= one * (soft[i, j] * logp).sum() / B
        torch.testing.assert_close(cross_entropy(z, y, weights), wanted_hard)
        torch.testing.assert_close(cross_entropy(z, soft, weights), wanted_soft)
    torch.testing.assert_close(cross_entropy(z, y[0]), cross_entropy(z, y[:1].expand(N, -1)))
    torch.testing.assert_close(cross_entropy(z, soft[0]), cross_entropy(z, soft[:1].expand(N, -1, -1)))
    torch.testing.assert_close(cross_entropy(z, y.to(torch.uint8)), cross_entropy(z, y))
    assert torch.autograd.gradcheck(lambda a, b, c: cross_entropy(a, b, c), (z, soft.requires_grad_(), w))
    hot = cross_entropy(1e4 * z.detach().sign().half(), y)
    assert hot.dtype == torch.float32 and hot.isfinite()
    assert cross_entropy(z[:, :0], y[:, :0]) == 0


def test_training_a_stack_is_training_each_alone():
    x, y = digits("test", 4)

    def trained(stack, which):
        rows = g(5)

        def loss(step):
            own = draw_rows(N, len(x), 16, generator=rows)[which]
            return cross_entropy(stack(take(x, own, own=False).double()), take(y, own, own=False))

        return train(stack, loss, 12, weight_decay=0.5)

    stack = StackedMLP(N, [16, 8, 10], generator=g()).double()
    ones = []
    for i in range(N):
        one = StackedMLP(1, [16, 8, 10], generator=g()).double()
        one.load_state_dict({name: value[i : i + 1] for name, value in stack.state_dict().items()})
        ones.append(one)
    history = trained(stack, slice(None))
    assert history.steps == 12 and not stack.training and history.losses[-1] < history.losses[0]
    for i, one in enumerate(ones):
        trained(one, slice(i, i + 1))
        torch.testing.assert_close(stack(x.double())[i], one(x.double())[0], rtol=0, atol=1e-9)


def test_only_matrices_decay():
    def after(net, decay):
        train(net, lambda i: sum(p.sum() for p in net.parameters()) * 0, 5, lr=0.1, weight_decay=decay)
        return {name: p.detach().clone() for name, p in net.named_parameters()}

    def make():
        stack = StackedMLP(2, [3, 4, 5], generator=g())
        torch.manual_seed(0)
        return nn.ModuleList([stack, StackedMLP(2, [3, 5], cosine=True, generator=g()), nn.Linear(3, 2)])

    before = {name: p.detach() for name, p in make().named_parameters()}
    kept, decayed = after(make(), 0.0), after(make(), 0.9)
    for name, p in before.items():
        torch.testing.assert_close(kept[name], p, rtol=0, atol=0)
        matrix = name in ("0.body.0.weight", "0.head.weight", "1.head.weight", "2.weight")
        assert bool((decayed[name] != p).any()) == matrix, name


def test_steps_follow_the_scale(monkeypatch):
    net = StackedMLP(1, [2, 2], generator=g())
    loss = lambda i: net(torch.ones(3, 2)).sum()  # noqa: E731
    monkeypatch.setenv("LABCODE_STRETCH", "4")
    assert train(net, loss, 3).steps == 12 and train(net, loss, 3, stretch=False).steps == 3
    monkeypatch.setenv("LABCODE_MAX_STEPS", "2")
    seen = []
    assert train(net, lambda i: seen.append(i) or loss(i), 3, ema=0.5).ema is not None
    assert seen == [0, 1]


def test_predictions_are_probabilities_whatever_the_block_and_leave_the_net():
    stack = StackedMLP(N, [16, 8, 8, K], generator=g())
    x = torch.rand(11, 16, generator=g(1))
    stack(x)  # running statistics that are not those of the start
    before = [p.clone() for p in stack.state_dict().values()]
    stack.body[1].eval()  # one module in a mode of its own
    modes = [m.training for m in stack.modules()]
    found = predict(stack, x, block=4)
    assert found.shape == (N, 11, K) and not found.requires_grad
    torch.testing.assert_close(found, predict(stack, x.expand(N, -1, -1), block=1))
    assert [m.training for m in stack.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(before, stack.state_dict().values(), strict=True))
    torch.testing.assert_close(found, F.softmax(stack.eval()(x), -1).detach())
    y = torch.randint(K, (N, 11), generator=g(2))
    wanted = [(found[i].argmax(1) == y[i]).double().mean().item() for i in range(N)]
    assert accuracies(stack, x, y) == pytest.approx(wanted)
    assert accuracies(stack, x, y[0])[0] == pytest.approx(wanted[0])


def test_digits_are_learnt():
    (x, y), (tested, wanted) = digits("train", 7), digits("test", 7)
    g1 = g(1)
    stack = StackedMLP(2, [49, 32, 10], generator=g1)

    def loss(step):
        rows = draw_rows(2, len(x), 64, generator=g1)
        return cross_entropy(stack(take(x, rows)), take(y, rows))

    before = accuracies(stack, tested, wanted)
    train(stack, loss, 150, lr=1e-2)
    assert max(before) < 0.3 and min(accuracies(stack, tested, wanted)) > 0.88


Z = torch.zeros(N, B, K)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "work, words",
    [
        (lambda: cross_entropy(Z[0], Z[0]), r"logits must be .* got \(8, 4\)"),
        (lambda: cross_entropy(Z, torch.zeros(N).long()), r"targets must be classes \(3, 8\) or \(8,\), got \(3,\)"),
        (lambda: cross_entropy(Z, Z[0, 0]), r"targets must be shares \(3, 8, 4\) or \(8, 4\), got \(4,\)"),
        (lambda: cross_entropy(Z, torch.full((B,), K)), "targets must lie in 0 … 3, got 4 … 4"),
        (lambda: cross_entropy(Z, torch.full((B,), -1)), "targets must lie in 0 … 3, got -1 … -1"),
        (lambda: cross_entropy(Z, Z, torch.ones(N)), r"weights must be \(3, 8\) or \(8,\), got \(3,\)"),
        (lambda: predict(nn.Identity(), Z, 0), "block must be at least 1, got 0"),
        (lambda: accuracies(nn.Identity(), Z, torch.zeros(N)), r"y must be \(3, 8\) or \(8,\), got \(3,\)"),
        (lambda: train(nn.Linear(1, 1), lambda i: None, 1, clip=1.0), "clip must be None: .* got 1.0"),
        (lambda: train(nn.Linear(1, 1), lambda i: None, 0), "steps must be at least 1, got 0"),
        (lambda: train(nn.Linear(1, 1), lambda i: None, 1, weight_decay=-1), "weight_decay must be at least 0, got -1"),
    ],
)
def test_bad_input_is_named(work, words):
    with pytest.raises(ValueError, match=words):
        work()
