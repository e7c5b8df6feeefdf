"""A learned unsupervised update rule (Metz et al., 2019): weights change by what both ends of a connection know.

The base model is a perceptron with batch normalisation. From the top a signal comes down through separate backward
weights V. In every unit one small network, the same everywhere, reads the unit's state on each example and gives h; the
weight between units i and j changes by a learned mixture of normalised terms made of h_i, h_j and the weight. No label
is seen. What is meta-learnt, θ, is that network and the mixture: through unrolled updates, from the few-shot error of a
closed-form ridge regression on the features.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_positive, float32
from ...train import allowed
from .episodes import check_floating

ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "leaky relu": F.leaky_relu, "softplus": F.softplus}


@dataclass(frozen=True)
class State:
    """Weights of t base models: forward w (t, in, out), biases b (t, out), backward v (t, out, in), one a layer."""

    w: list[Tensor]
    b: list[Tensor]
    v: list[Tensor]

    def map(self, change) -> "State":
        """The same models with every tensor changed by a function."""
        return State(*([change(x) for x in part] for part in (self.w, self.b, self.v)))

    def detach(self) -> "State":
        return self.map(torch.Tensor.detach)


def new_state(tasks: int, sizes: tuple[int, ...], generator: torch.Generator) -> State:
    """Random weights of variance 1/in, forward and backward drawn apart; biases 0."""
    def draw(i, o):
        return torch.randn(tasks, i, o, generator=generator, device=generator.device) / math.sqrt(i)

    pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
    return State([draw(i, o) for i, o in pairs], [torch.zeros(tasks, o, device=generator.device) for _, o in pairs],
                 [draw(o, i) for i, o in pairs])  # fmt: skip


def permuted(state: State, order: Int[Tensor, " d"]) -> State:
    """The same base models for inputs in another order: the first layer's weights go along."""
    return State([state.w[0][:, order], *state.w[1:]], state.b, [state.v[0][:, :, order], *state.v[1:]])


def forward(state: State, x: Float[Tensor, "t n d"], activation: str = "relu") -> tuple[list[Tensor], list[Tensor]]:
    """Pre- and post-activations of every layer, the input's first: x W, standardised over the batch, plus b.

    Batch normalisation mixes the examples of a batch: one way in which the rule is not strictly local.
    """
    pre, post = [x], [x]
    for w, b in zip(state.w, state.b, strict=True):
        a = post[-1] @ w
        a = (a - a.mean(1, keepdim=True)) * torch.rsqrt(a.var(1, unbiased=False, keepdim=True) + 1e-3) + b[:, None]
        pre.append(a)
        post.append(ACTIVATIONS[activation](a))
    return pre, post


class Rule(nn.Module):
    """θ: the units' network and the mixture of terms.

    signals   channels of what comes down; 32 in the released code
    channels  of h, whose products make the low-rank terms
    hidden    width of the units' network
    rate      of the update, learnt, from this value

    Departures: no numbering of the units and no convolution across them, which the released code has and which break
    locality further; one linear map per term in place of deeper ones.
    """

    TERMS = ("h products", "h products × w", "h products × exp(-w²)", "Hebb", "decorrelation", "decay")

    def __init__(self, signals: int = 4, channels: int = 4, hidden: int = 16, rate: float = 0.1):
        super().__init__()
        self.signals, self.channels = signals, channels
        self.unit = nn.Sequential(nn.Linear(5 + signals, hidden), nn.Tanh(), nn.Linear(hidden, 2 * channels))
        self.top = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, signals))
        self.down = nn.Linear(2 * channels, signals, bias=False)
        self.products = nn.Parameter(torch.randn(3, channels) / channels**0.5)
        self.mixture = nn.Parameter(torch.tensor([0.3, 0.0, 0.0, 0.1, -0.1, 0.0]))
        self.bias = nn.Parameter(torch.zeros(2 * channels))
        self.backward_rate = nn.Parameter(torch.tensor(0.0))
        self.log_rate = nn.Parameter(torch.tensor(math.log(rate)))

    def states(self, state: State, pre: list[Tensor], post: list[Tensor]) -> list[Tensor]:
        """h of every layer, (t, n, units, 2 channels), from the top down."""
        signal = self.top(torch.stack([pre[-1], post[-1]], -1))
        found = []
        for layer in range(len(pre) - 1, -1, -1):
            w, b = (state.w[layer - 1], state.b[layer - 1]) if layer else (None, None)
            if layer:
                own = torch.stack([b, w.mean(1), w.square().mean(1).sqrt()], -1)[:, None].expand(*pre[layer].shape, 3)
            else:
                own = pre[0].new_zeros(*pre[0].shape, 3)
            h = self.unit(torch.cat([torch.stack([pre[layer], post[layer]], -1), own, signal], -1))
            found.insert(0, h)
            if layer:
                signal = (self.down(h).transpose(2, 3) @ state.v[layer - 1][:, None]).transpose(2, 3)
                signal = signal * torch.rsqrt(signal.square().mean((1, 2), keepdim=True) + 1e-6)
        return found

    def terms(self, w: Tensor, lower: Tensor, upper: Tensor, x: Tensor, z: Tensor) -> Float[Tensor, "k t i o"]:
        """The terms of one layer's change, each of unit mean square.

        lower, upper  h of the layer below and above, as much as makes products: (t, n, units, channels)
        x, z          post-activations below and above
        """
        n = x.shape[1]
        outer = (lower.permute(3, 0, 2, 1) @ upper.permute(3, 0, 1, 2)) / n  # (channels, t, i, o)
        product = (self.products @ outer.flatten(1)).view(3, *w.shape)
        gram = w.mT @ w
        apart = gram * (1 - torch.eye(gram.shape[1], dtype=w.dtype, device=w.device))
        made = [
            product[0],
            product[1] * w,
            product[2] * torch.exp(-w.square() * w.shape[1]),
            x.mT @ z / n,
            w @ apart,
            w,
        ]
        return unit_rms(torch.stack(made))

    def forward(self, state: State, x: Float[Tensor, "t n d"], activation: str = "relu") -> State:
        """One unsupervised update of all layers from a batch of each task."""
        pre, post = forward(state, x, activation)
        h, c, rate = self.states(state, pre, post), self.channels, self.log_rate.exp()
        new = State([], [], [])
        for layer, (w, b, v) in enumerate(zip(state.w, state.b, state.v, strict=True)):
            lower, upper = h[layer][..., :c], h[layer + 1][..., c:]
            terms = self.terms(w, lower, upper, post[layer], post[layer + 1])
            change = (self.mixture @ terms.flatten(1)).view_as(w)
            change = unit_rms(without_shrinking(change, w)) / math.sqrt(w.shape[1])
            grown = w + rate * change
            new.w.append(grown)
            new.b.append(b + rate * torch.tanh(h[layer + 1].mean(1) @ self.bias))
            back = unit_rms(terms[0].mT) / math.sqrt(v.shape[1])
            new.v.append(v + rate * self.backward_rate * back)
        return new


def unit_rms(x: Float[Tensor, "*t i o"]) -> Float[Tensor, "*t i o"]:
    """Each matrix over its root mean square: no term can explode or vanish in a long unroll."""
    return x * torch.rsqrt(x.square().mean((-1, -2), keepdim=True) + 1e-12)


def without_shrinking(change: Float[Tensor, "t i o"], w: Float[Tensor, "t i o"]) -> Float[Tensor, "t i o"]:
    """The change without what only makes a unit's incoming weights shorter."""
    along = (change * w).sum(1, keepdim=True) / (w.square().sum(1, keepdim=True) + 1e-12)
    return change - along.clamp(max=0) * w


@float32
def ridge_loss(
    z: Float[Tensor, "b n d"], y: Int[Tensor, "b n"], new: Float[Tensor, "b m d"], new_y: Int[Tensor, "b m"],
    ways: int = 2, l2: float = 0.1,
) -> Float[Tensor, ""]:  # fmt: skip
    """The meta-objective: fit a ridge regression to few labelled features, judge it on others, rows of length 1.

    The mean of ‖ŷ/‖ŷ‖ - y/‖y‖‖² over the new rows, ŷ and y one-hot labels less their mean 1/ways. Between 0 and 4.

    l2  weight of the ridge, > 0; 0.1 in the paper

    Raises ValueError for shapes that do not fit, labels out of range and l2 <= 0.
    """
    check_positive(l2=l2)
    if ways < 2:
        raise ValueError(f"ways must be at least 2, got {ways}")
    said = ridge(z, y, new, ways, l2)
    if new_y.shape != new.shape[:2] or not new_y.numel():
        raise ValueError(f"new_y must be (b, m), {tuple(new.shape[:2])}, got {tuple(new_y.shape)}")
    if new_y.device.type == "cpu" and not 0 <= int(new_y.min()) <= int(new_y.max()) < ways:
        raise ValueError(f"new_y must lie in 0 … {ways - 1}")
    wanted = F.one_hot(new_y, ways).to(said.dtype) - 1 / ways
    length = lambda v: v * torch.rsqrt(v.square().sum(2, keepdim=True) + 1e-8)  # noqa: E731
    return (length(said) - length(wanted)).square().sum(2).mean()


def ridge(
    z: Float[Tensor, "b n d"], y: Int[Tensor, "b n"], new: Float[Tensor, "b m d"], ways: int, l2: float = 0.1
) -> Tensor:
    """Scores (b, m, ways) of a ridge regression of one-hot labels less 1/ways, with intercept."""
    if z.ndim != 3 or new.ndim != 3 or z.shape[::2] != new.shape[::2] or not z.numel() or not new.numel():
        raise ValueError(f"new must be (b, m, d) like z (b, n, d), got {tuple(new.shape)} and {tuple(z.shape)}")
    if y.shape != z.shape[:2]:
        raise ValueError(f"y must be (b, n), {tuple(z.shape[:2])}, got {tuple(y.shape)}")
    if y.device.type == "cpu" and not 0 <= int(y.min()) <= int(y.max()) < ways:
        raise ValueError(f"y must lie in 0 … {ways - 1}")
    check_floating(z=z, new=new)
    middle = z.mean(1, keepdim=True)
    scale = torch.rsqrt((z - middle).square().mean((1, 2), keepdim=True) + 1e-8)
    a, b = ((part - middle) * scale for part in (z, new))
    a, b = F.pad(a, (0, 1), value=1.0), F.pad(b, (0, 1), value=1.0)
    target = F.one_hot(y, ways).to(a.dtype) - 1 / ways
    gram = a.mT @ a / a.shape[1] + l2 * torch.eye(a.shape[2], dtype=a.dtype, device=a.device)
    return b @ torch.linalg.solve_ex(gram, a.mT @ target / a.shape[1])[0]  # a GPU is not asked whether it went well


def meta_train(
    images: Float[Tensor, "c m d"], seed: int, *, steps: int = 100, unroll: int = 5, reset: int = 20, tasks: int = 8,
    ways: int = 5, batch: int = 40, shots: int = 10, sizes: tuple[int, ...] = (32, 16), lr: float = 5e-3,
    permuted: bool = True, rule: Rule | None = None, trace: list | None = None,
) -> Rule:  # fmt: skip
    """Learn θ by truncated unrolls: ``unroll`` updates, the loss, one step of Adam; the state goes on detached.

    images    (classes, samples, pixels) of what tasks are made of; labels are used here, by the outer loop only
    reset     inner updates after which all tasks begin anew: with other classes, weights and, if ``permuted``, pixels
    shots     labelled samples a class of the meta-loss, and as many to judge on
    trace     a list that gets the loss of every outer step, a tensor

    Outer gradients are clipped at norm 1.
    """
    torch.manual_seed(seed)
    g = torch.Generator(images.device).manual_seed(seed)
    rule = (rule or Rule()).to(images.device)
    optimizer = torch.optim.Adam(rule.parameters(), lr)
    for step in range(allowed(steps)):
        if step * unroll % reset == 0:
            x, y = draw_sets(images, tasks, ways, g, permuted)
            state = new_state(tasks, (images.shape[2], *sizes), g)
        for _ in range(unroll):
            state = rule(state, take(x, batch, g)[0])
        rows = torch.rand(len(x), ways, x.shape[1] // ways, generator=g, device=x.device).argsort(2)[:, :, : 2 * shots]
        rows = rows + torch.arange(ways, device=x.device)[:, None] * (x.shape[1] // ways)
        at = torch.arange(len(x), device=x.device)[:, None]
        first, second = rows[:, :, :shots].flatten(1), rows[:, :, shots:].flatten(1)
        _, post = forward(state, torch.cat([x[at, first], x[at, second]], 1))
        z, new = post[-1].split([first.shape[1], second.shape[1]], 1)
        loss = ridge_loss(z, y[at, first], new, y[at, second], ways)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rule.parameters(), 1.0)
        optimizer.step()
        state = state.detach()
        if trace is not None:
            trace.append(loss.detach())
    return rule


def draw_sets(images: Float[Tensor, "c m d"], tasks: int, ways: int, generator: torch.Generator, permuted: bool = True):
    """Data sets of ``ways`` classes, sorted by class, and labels; pixels in an order of their own."""
    c, m, d = images.shape
    classes = torch.rand(tasks, c, generator=generator, device=images.device).argsort(1)[:, :ways]
    x = images[classes].flatten(1, 2)
    if permuted:
        order = torch.rand(tasks, d, generator=generator, device=images.device).argsort(1)
        x = x.gather(2, order[:, None].expand_as(x))
    y = torch.arange(ways, device=images.device).repeat_interleave(m).expand(tasks, -1)
    return x, y


def take(x: Float[Tensor, "t n d"], count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``count`` rows of each set, drawn without replacement, and their places."""
    rows = torch.rand(x.shape[:2], generator=generator, device=x.device).argsort(1)[:, :count]
    return x[torch.arange(len(x), device=x.device)[:, None], rows], rows


@torch.no_grad()
def learn(
    rule: Rule | None, x: Float[Tensor, "t n d"], sizes: tuple[int, ...], seed: int, *, steps: int = 20,
    batch: int = 40, activation: str = "relu", looks: tuple[int, ...] | None = None, start: State | None = None,
) -> list[Float[Tensor, "t n f"]]:  # fmt: skip
    """Features of all rows after each number of updates in ``looks``, ``steps`` if None; no labels. None is no rule.

    Features are the top layer's, batch normalisation over all rows. ``start`` is drawn where none is given.
    """
    g = torch.Generator(x.device).manual_seed(seed)
    state, found = new_state(len(x), (x.shape[2], *sizes), g) if start is None else start, []
    looks = (steps,) if looks is None else looks
    for step in range(max(looks) + 1):
        if step in looks:
            found.append(forward(state, x, activation)[1][-1])
        if step < max(looks) and rule is not None:
            state = rule(state, take(x, batch, g)[0], activation)
    return found


def few_shot_ridge(
    z: Float[Tensor, "t n f"], y: Int[Tensor, "t n"], ways: int, shots: int, seed: int, draws: int = 5
) -> float:
    """Accuracy of the ridge from ``shots`` labelled rows a class on all others, over tasks and draws."""
    g, right = torch.Generator(z.device).manual_seed(seed), []
    at = torch.arange(len(z), device=z.device)[:, None]
    for _ in range(draws):
        order = torch.rand(y.shape, generator=g, device=z.device)
        rank = (
            (order[:, None] + (y[:, None] != torch.arange(ways, device=z.device)[:, None]) * 2)
            .argsort(2)[:, :, :shots]
            .flatten(1)
        )
        said = ridge(z[at, rank], y[at, rank], z, ways).argmax(2) == y
        unseen = torch.ones_like(said).scatter_(1, rank, False)
        right.append(float(said[unseen].float().mean()))
    return sum(right) / draws


def principal(x: Float[Tensor, "t n d"], d: int) -> Float[Tensor, "t n k"]:
    """Scores on the first d principal components of each set."""
    centred = x - x.mean(1, keepdim=True)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    return u[..., :d] * s[:, None, :d]


def vae(
    x: Float[Tensor, "t n d"], hidden: int, latent: int, seed: int, *, steps: int = 200,
    batch: int = 40, lr: float = 1e-2, beta: float = 1.0, looks: tuple[int, ...] | None = None,
) -> tuple[list[Float[Tensor, "t n k"]], list[float]]:  # fmt: skip
    """Variational autoencoders (Kingma and Welling, 2014), one a set, all trained together: latent means, and the loss.

    Encoder d - hidden - 2 latent and decoder latent - hidden - d with ReLU; squared error summed over pixels with unit
    variance, times 10, plus beta · KL, by Adam. ``looks`` as in ``learn``.
    """
    g, (t, _, d) = torch.Generator(x.device).manual_seed(seed), x.shape
    sizes = ((d, hidden), (hidden, 2 * latent), (latent, hidden), (hidden, d))
    weights = [
        (torch.randn(t, i, o, generator=g, device=x.device) * math.sqrt(2 / i)).requires_grad_() for i, o in sizes
    ]
    biases = [torch.zeros(t, 1, o, device=x.device, requires_grad=True) for _, o in sizes]
    optimizer = torch.optim.Adam([*weights, *biases], lr)
    looks, found, losses = (steps,) if looks is None else looks, [], []

    def encode(rows):
        h = F.relu(rows @ weights[0] + biases[0])
        return (h @ weights[1] + biases[1]).chunk(2, 2)

    def loss(rows):
        mean, log_var = encode(rows)
        z = mean + (log_var / 2).exp() * torch.randn(mean.shape, generator=g, device=x.device)
        back = F.relu(z @ weights[2] + biases[2]) @ weights[3] + biases[3]
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(2)
        return (5 * (back - rows).square().sum(2) + beta * kl).mean((1, 2) if kl.ndim == 3 else 1)

    for step in range(max(looks) + 1):
        if step in looks:
            with torch.no_grad():
                found.append(encode(x)[0])
                losses.append(float(loss(x).mean()))
        if step < max(looks):
            optimizer.zero_grad()
            loss(take(x, batch, g)[0]).sum().backward()
            optimizer.step()
    return found, losses
