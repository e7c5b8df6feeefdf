"""Many small networks as one module: n of them side by side, every layer one batched product.

Seeds, draws of labels and arms of a comparison are trained together for little more than the price of one. Network i
computes what it would alone: no layer mixes the networks, so with a loss that is *summed* over the stack and an
optimiser that works on each entry by itself (AdamW, SGD; no clipping of the whole gradient) its training is its own.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Generator, Tensor, nn

from ..loss import check_positive, unit_rows


def _check(generator: Generator, **counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not isinstance(generator, Generator):
        raise ValueError(f"generator must be a torch.Generator, got {type(generator).__name__}")


def _starts(n: int, same: bool | int) -> int:
    """How many different starts n networks have."""
    if not 0 <= same <= n:
        raise ValueError(f"same must be a bool or a number of starts in 0 … {n}, got {same}")
    return int(same) or n


def _repeated(x: Tensor, n: int) -> Tensor:
    """The starts (s, …) one after another until there are n: network i has start i mod s."""
    return x if len(x) == n else x[torch.arange(n, device=x.device) % len(x)]


def _check_stack(x: Tensor, n: int, width: int, shared: bool = True) -> None:
    fits = x.ndim == 3 and x.shape[0] == n or shared and x.ndim == 2
    if not fits or x.shape[-1] != width:
        one = f" or (b, {width})" if shared else ""
        raise ValueError(f"x must be ({n}, b, {width}){one}, got {tuple(x.shape)}")


class StackedLinear(nn.Module):
    """n linear layers: (n, b, inputs), or (b, inputs) for all of them, to (n, b, outputs).

    n, inputs, outputs  1 at least
    bias                add one
    generator           the weights are drawn from it and lie on its device
    same                networks that begin alike: True for all of them, or a number s of different starts, network i
                        beginning as network i mod s does. Arms that are stacked above each other are then paired

    ``weight`` is (n, outputs, inputs) and ``bias`` (n, outputs), each network's those of an ``nn.Linear``, uniform in
    ±1 / √inputs. Raises ValueError for counts below 1, ``same`` out of range, and an x of another shape.
    """

    def __init__(
        self, n: int, inputs: int, outputs: int, bias: bool = True, *, generator: Generator, same: bool | int = False
    ):
        super().__init__()
        _check(generator, n=n, inputs=inputs, outputs=outputs)
        starts, bound = _starts(n, same), inputs**-0.5

        def drawn(*shape: int) -> nn.Parameter:
            values = torch.rand(starts, *shape, generator=generator, device=generator.device)
            return nn.Parameter(_repeated(values.mul_(2 * bound).sub_(bound), n))

        self.n, self.inputs, self.outputs = n, inputs, outputs
        self.weight = drawn(outputs, inputs)
        self.bias = drawn(outputs) if bias else None

    def forward(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b o"]:
        _check_stack(x, self.n, self.inputs)
        if x.ndim == 2:  # one wide product
            bias = None if self.bias is None else self.bias.view(-1)
            return F.linear(x, self.weight.flatten(0, 1), bias).view(len(x), self.n, -1).transpose(0, 1)
        if self.bias is None:
            return torch.bmm(x, self.weight.mT)
        return torch.baddbmm(self.bias[:, None], x, self.weight.mT)


class StackedCosine(nn.Module):
    """n cosine classifiers: ``scale`` times the cosine of each row with each class's direction (Gidaris and Komodakis
    2018, equation 5, with a scale that is not learnt). No class is favoured by the length of its weights.

    scale       > 0; logits lie in ±scale
    same        as for ``StackedLinear``

    ``weight`` (n, outputs, inputs), directions uniform on the sphere. A row of zeros has logits of zero. Arithmetic is
    float32 at least. Raises ValueError for counts below 1, a scale that is not positive, and an x of another shape.
    """

    def __init__(
        self, n: int, inputs: int, outputs: int, scale: float = 10, *, generator: Generator, same: bool | int = False
    ):
        super().__init__()
        _check(generator, n=n, inputs=inputs, outputs=outputs)
        check_positive(scale=scale)
        self.n, self.inputs, self.outputs, self.scale = n, inputs, outputs, scale
        values = torch.randn(_starts(n, same), outputs, inputs, generator=generator, device=generator.device)
        self.weight = nn.Parameter(_repeated(unit_rows(values), n))

    def forward(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b o"]:
        _check_stack(x, self.n, self.inputs)
        rows, directions = unit_rows(x), unit_rows(self.weight)
        return self.scale * (rows @ directions.mT)


class StackedNorm(nn.Module):
    """n BatchNorms of ``width`` features (Ioffe and Szegedy 2015), each over its own network's batch.

    As ``nn.BatchNorm1d``: the batch's statistics in training, running ones (momentum 0.1) in evaluation, a slope and an
    offset a feature. ``weight``, ``bias``, ``running_mean``, ``running_var`` are (n, width).

    Raises ValueError for counts below 1, an x of another shape, and a batch of one in training.
    """

    def __init__(self, n: int, width: int, *, device=None):
        super().__init__()
        for name, value in (("n", n), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.n, self.width = n, width
        self.weight = nn.Parameter(torch.ones(n, width, device=device))
        self.bias = nn.Parameter(torch.zeros(n, width, device=device))
        self.register_buffer("running_mean", torch.zeros(n, width, device=device))
        self.register_buffer("running_var", torch.ones(n, width, device=device))

    def forward(self, x: Float[Tensor, "n b w"]) -> Float[Tensor, "n b w"]:
        _check_stack(x, self.n, self.width, shared=False)
        if self.training and x.shape[1] < 2:
            raise ValueError(f"x must have 2 rows a network at least in training, got {tuple(x.shape)}")
        rows = x.transpose(0, 1).reshape(x.shape[1], -1)  # a feature of a network is a column of its own
        mean, var, slope, offset = (
            values.view(-1) for values in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        y = F.batch_norm(rows, mean, var, slope, offset, self.training, 0.1, 1e-5)
        return y.view(x.shape[1], self.n, self.width).transpose(0, 1)


class StackedMLP(nn.Module):
    """n perceptrons: linear, BatchNorm, ReLU for each hidden width, then a linear or cosine head.

    widths     [input, hidden …, output], two at least; two give a head alone
    norm       BatchNorm between the layers
    cosine     the head is a ``StackedCosine`` of scale 10, not a ``StackedLinear``
    generator  the weights are drawn from it and lie on its device
    same       as for ``StackedLinear``: True, and all n begin at the same weights

    x (n, b, d), or (b, d) for all networks, to (n, b, out). ``head`` is the last layer, ``features`` what it is given;
    ``n`` and ``widths`` are kept. Raises ValueError for fewer than two widths and for what the layers refuse.
    """

    def __init__(
        self, n: int, widths: list[int], norm: bool = True, *, generator: Generator, cosine: bool = False,
        same: bool | int = False,
    ):  # fmt: skip
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"widths must name an input and an output, got {widths}")
        self.n, self.widths = n, list(widths)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-2], widths[1:-1], strict=True):
            layers += [StackedLinear(n, inputs, outputs, bias=not norm, generator=generator, same=same)]
            layers += [StackedNorm(n, outputs, device=generator.device)] if norm else []
            layers += [nn.ReLU()]
        self.body = nn.Sequential(*layers)
        make = StackedCosine if cosine else StackedLinear
        self.head = make(n, widths[-2], widths[-1], generator=generator, same=same)

    def features(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "*m b f"]:
        """The layer before the head, (n, b, widths[-2]); x itself where there is no hidden layer."""
        return self.body(x)

    def forward(self, x: Float[Tensor, "*n b d"]) -> Float[Tensor, "n b o"]:
        return self.head(self.body(x))


def draw_rows(n: int, rows: int, batch: int, *, generator: Generator, same: bool | int = False) -> Int[Tensor, "n b"]:
    """A batch's places for each of n networks: (n, batch) in 0 … rows - 1, uniform and with replacement.

    rows   number of samples; the batch may be larger
    same   True for the same places in every network, or a number s of different draws, network i having that of
           network i mod s: paired arms see the same batches

    On the generator's device. Raises ValueError for counts below 1 and ``same`` out of range.
    """
    _check(generator, n=n, rows=rows, batch=batch)
    drawn = torch.randint(rows, (_starts(n, same), batch), generator=generator, device=generator.device)
    return _repeated(drawn, n)


def take(x: Shaped[Tensor, "..."], rows: Int[Tensor, "n b"], own: bool | None = None) -> Shaped[Tensor, "..."]:
    """The rows of each network: (n, b, …) from x (N, …), which all share, or from x (n, N, …), their own.

    own  whether x is (n, N, …). None looks whether x has n as its first size: say False where a shared x may have
         exactly n rows

    Raises ValueError for rows that are no matrix and an own x of another number of networks.
    """
    if rows.ndim != 2:
        raise ValueError(f"rows must be (networks, batch), got {tuple(rows.shape)}")
    n, batch = rows.shape
    own = x.ndim > 1 and len(x) == n if own is None else own
    if not own:
        return x.index_select(0, rows.reshape(-1)).view(n, batch, *x.shape[1:])
    if x.ndim < 2 or len(x) != n:
        raise ValueError(f"x must be ({n}, N, …) for rows of {n} networks, got {tuple(x.shape)}")
    flat = rows + x.shape[1] * torch.arange(n, device=rows.device)[:, None]
    return x.reshape(-1, *x.shape[2:]).index_select(0, flat.view(-1)).view(n, batch, *x.shape[2:])
