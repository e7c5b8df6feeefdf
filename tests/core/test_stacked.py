import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labcode.nets.stacked import StackedCosine, StackedLinear, StackedMLP, StackedNorm, draw_rows, take

N, B, WIDTHS = 3, 16, [7, 6, 5, 4]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def alone(stack: StackedMLP, i: int) -> nn.Sequential:
    """Network i, made of torch's own layers."""
    layers = []
    for layer in [*stack.body, stack.head]:
        if isinstance(layer, StackedLinear):
            made = nn.Linear(layer.inputs, layer.outputs, bias=layer.bias is not None)
        elif isinstance(layer, StackedNorm):
            made = nn.BatchNorm1d(layer.width)
        else:
            made = nn.ReLU()
        own = {name: value[i] for name, value in layer.state_dict().items()}
        made.load_state_dict(own | {k: v for k, v in made.state_dict().items() if k == "num_batches_tracked"})
        layers.append(made)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("norm", [True, False])
def test_each_network_trains_as_it_would_alone(norm):
    stack = StackedMLP(N, WIDTHS, norm, generator=generator()).double()
    nets = [alone(stack, i) for i in range(N)]
    optims = [torch.optim.AdamW(x.parameters(), lr=0.02) for x in (stack, *nets)]
    g = generator(1)
    for _ in range(8):
        x, y = torch.randn(N, B, 7, generator=g).double(), torch.randint(4, (N, B), generator=g)
        for optim in optims:
            optim.zero_grad()
        F.cross_entropy(stack(x).flatten(0, 1), y.flatten(), reduction="sum").div(B).backward()
        for net, own, target in zip(nets, x, y, strict=True):
            F.cross_entropy(net(own), target).backward()
        for optim in optims:
            optim.step()
    x = torch.randn(N, 5, 7, generator=g).double()
    for _ in range(2):  # in training, then in evaluation with the running statistics
        wanted = torch.stack([net(own) for net, own in zip(nets, x, strict=True)])
        torch.testing.assert_close(stack(x), wanted, rtol=0, atol=1e-10)
        for net in (stack, *nets):
            net.eval()


def test_a_shared_batch_is_the_same_batch_for_all():
    for norm, cosine in ((True, False), (False, True), (False, False)):  # the last has a bias in its first layer
        stack = StackedMLP(N, WIDTHS, norm, generator=generator(), cosine=cosine).double().eval()
        x = torch.randn(9, 7, generator=generator(1)).double()
        torch.testing.assert_close(stack(x), stack(x.expand(N, -1, -1)), rtol=0, atol=1e-12)
        assert stack(x).shape == (N, 9, 4) and stack.features(x).shape == (N, 9, 5)
        torch.testing.assert_close(stack.head(stack.features(x)), stack(x))


def test_a_change_of_one_network_leaves_the_others():
    stack = StackedMLP(N, WIDTHS, generator=generator())
    x = torch.randn(N, B, 7, generator=generator(1))
    before = stack(x).detach()
    with torch.no_grad():
        for p in stack.parameters():
            p[1].add_(1)
    moved = (stack(x) - before).abs().amax((1, 2))
    assert moved[1] > 0.01 and moved[0] == 0 and moved[2] == 0


def test_two_widths_are_a_head_alone():
    stack = StackedMLP(N, [7, 4], generator=generator())
    x = torch.randn(B, 7)
    assert stack.features(x) is x and stack(x).shape == (N, B, 4)


def test_weights_begin_like_those_of_a_linear_layer_and_alike_where_asked():
    layer = StackedLinear(200, 16, 8, generator=generator())
    for p in (layer.weight.detach(), layer.bias.detach()):
        assert p.abs().max() <= 0.25 and p.std() == pytest.approx(0.25 / 3**0.5, rel=0.03)
        assert abs(float(p.mean())) < 0.01
    torch.testing.assert_close(layer.weight, StackedLinear(200, 16, 8, generator=generator()).weight)
    for cosine in (False, True):
        stack = StackedMLP(4, WIDTHS, generator=generator(), same=True, cosine=cosine)
        for p in stack.parameters():
            assert torch.equal(p, p[:1].expand_as(p))
        pairs = StackedMLP(4, WIDTHS, generator=generator(), same=2, cosine=cosine)
        assert torch.equal(pairs.head.weight[:2], pairs.head.weight[2:])
        assert not torch.equal(pairs.head.weight[0], pairs.head.weight[1])
        assert not torch.equal(pairs.body[0].weight[0], pairs.body[0].weight[1])


def test_cosine_head_is_scale_times_cosine():
    head = StackedCosine(N, 5, 4, scale=7, generator=generator()).double()
    x = torch.randn(N, B, 5, generator=generator(1)).double()
    wanted = torch.stack([7 * F.cosine_similarity(x[i][:, None], head.weight[i][None], dim=2) for i in range(N)])
    torch.testing.assert_close(head(x), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(head(3 * x), wanted, rtol=0, atol=1e-12)
    assert head.half()(x.half() * 0).eq(0).all()
    assert len(list(head.parameters())) == 1


def test_draws_are_uniform_with_replacement_and_paired_where_asked():
    rows = draw_rows(4, 5, 5000, generator=generator())
    assert rows.shape == (4, 5000) and not torch.equal(rows[0], rows[1])
    share = torch.stack([row.bincount(minlength=5) for row in rows]) / 5000
    assert (share - 0.2).abs().max() < 0.03
    same = draw_rows(4, 50, 20, generator=generator(), same=True)
    assert torch.equal(same, same[:1].expand(4, -1))
    two = draw_rows(4, 50, 20, generator=generator(), same=2)
    assert torch.equal(two[:2], two[2:]) and not torch.equal(two[0], two[1])


@pytest.mark.parametrize("tail", [(), (3,), (2, 2)])
def test_take_is_indexing(tail):
    rows = draw_rows(N, 11, 6, generator=generator())
    shared = torch.randn(11, *tail, generator=generator(1))
    assert torch.equal(take(shared, rows), shared[rows])
    own = torch.randn(N, 11, *tail, generator=generator(1))
    assert torch.equal(take(own, rows), torch.stack([x[r] for x, r in zip(own, rows, strict=True)]))
    square, few = torch.randn(N, N, *tail, generator=generator(1)), draw_rows(N, N, 6, generator=generator())
    assert torch.equal(take(square, few, own=False), square[few])
    assert torch.equal(take(square, few, own=True), take(square, few))
    assert torch.equal(take(square.transpose(0, 1), few), take(square.transpose(0, 1).contiguous(), few))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "work, words",
    [
        (lambda g: StackedLinear(0, 2, 2, generator=g), "n must be a whole number of at least 1, got 0"),
        (lambda g: StackedLinear(2, 2, 2.0, generator=g), "outputs must be a whole number .* got 2.0"),
        (lambda g: StackedLinear(2, 2, 2, generator=3), "generator must be a torch.Generator, got int"),
        (lambda g: StackedLinear(2, 2, 2, generator=g, same=3), r"same must be a bool or .* 0 … 2, got 3"),
        (lambda g: StackedCosine(2, 2, 2, scale=0, generator=g), "scale must be positive, got 0"),
        (lambda g: StackedNorm(2, 0), "width must be at least 1, got 0"),
        (lambda g: StackedNorm(2, 3)(torch.ones(2, 1, 3)), r"x must have 2 rows .* got \(2, 1, 3\)"),
        (lambda g: StackedNorm(2, 3)(torch.ones(4, 3)), r"x must be \(2, b, 3\), got \(4, 3\)"),
        (lambda g: StackedMLP(2, [3], generator=g), r"widths must name an input and an output, got \[3\]"),
        (lambda g: StackedMLP(2, [3, 2], generator=g)(torch.ones(3, 5, 3)), r"x must be \(2, b, 3\) or \(b, 3\)"),
        (lambda g: StackedCosine(2, 3, 2, generator=g)(torch.ones(5, 4)), r"x must be .* got \(5, 4\)"),
        (lambda g: draw_rows(2, 0, 4, generator=g), "rows must be a whole number of at least 1, got 0"),
        (lambda g: draw_rows(2, 3, 4, generator=g, same=-1), "same must be .* got -1"),
        (lambda g: take(torch.ones(4, 3), torch.zeros(5, dtype=torch.long)), r"rows must be .* got \(5,\)"),
        (lambda g: take(torch.ones(4, 3), torch.zeros(2, 5, dtype=torch.long), own=True), r"x must be \(2, N, …\)"),
    ],
)
def test_bad_input_is_named(work, words):
    with pytest.raises(ValueError, match=words):
        work(generator())
