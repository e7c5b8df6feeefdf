"""The fully connected autoencoder that DEC, DEPICT and TELL start from, and the loop that trains all small networks.

Hinton and Salakhutdinov (2006) stacked it layer by layer; Vincent et al. (2010) added the noise.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...train import allowed

Rows = Float[Tensor, "n d"]


def batches(n: int, steps: int, batch_size: int, generator: Generator) -> Iterator[Int[Tensor, " b"]]:
    """Rows of every step, four times as many at long scale: shuffled epochs, each without its last incomplete batch."""
    size, order = min(batch_size, n), None
    for step in range(allowed(steps)):
        if (at := step % (n // size)) == 0:
            order = torch.randperm(n, generator=generator, device=generator.device)
        yield order[at * size : (at + 1) * size]


def adam(parameters: Iterable[Tensor], lr: float) -> torch.optim.Adam:
    """Adam in one kernel: for networks this small the optimiser is most of a step."""
    return torch.optim.Adam(parameters, lr=lr, fused=True)


def descend(
    parameters: Iterable[Tensor], loss: Callable[[Int[Tensor, " b"], int], Tensor], n: int, *, generator: Generator,
    steps: int, batch_size: int = 128, lr: float = 2e-3, optimizer: str = "adam",
) -> Tensor:  # fmt: skip
    """Gradient steps on shuffled batches of n rows; returns the losses (steps,).

    loss       ``loss(rows of the batch, step)``, a scalar
    optimizer  "adam", or "sgd" with momentum 0.9; the rate is constant, as the chapter's papers have it
    steps      four times as many at long scale, as in ``labcode.train.fit``
    """
    parameters = list(parameters)
    make = {"adam": adam, "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)}[optimizer]
    optim, losses = make(parameters, lr=lr), []
    for step, rows in enumerate(batches(n, steps, batch_size, generator)):
        value = loss(rows, step)
        optim.zero_grad(set_to_none=True)
        value.backward()
        optim.step()
        losses.append(value.detach())
    return torch.stack(losses)


class Autoencoder(nn.Module):
    """Encoder and decoder of the same widths in reverse.

    widths  [inputs, hidden …, code]; [784, 500, 500, 2000, 10] in DEC
    code    "linear" as in DEC, "tanh" as in DEPICT, "unit" for rows of length 1 as in TELL
    slope   of the hidden layers below 0: 0 is ReLU, 0.01 DEPICT's leaky one
    """

    def __init__(self, widths: Sequence[int], code: str = "linear", slope: float = 0.0):
        super().__init__()
        if len(widths) < 2 or code not in ("linear", "tanh", "unit"):
            raise ValueError(f"widths must name inputs and code, code be linear, tanh or unit, got {widths}, {code!r}")
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.up = nn.ModuleList(nn.Linear(b, a) for a, b in reversed(pairs))
        self.code, self.slope, self.features = code, slope, widths[-1]

    def layers(self, x: Rows, dropout: float = 0.0) -> list[Rows]:
        """Activations of all encoder layers, the code last; dropout corrupts the input and every hidden layer."""
        found = []
        for i, layer in enumerate(self.down):
            x = layer(F.dropout(x, dropout) if dropout else x)
            if i < len(self.down) - 1:
                x = F.leaky_relu(x, self.slope)
            elif self.code == "tanh":
                x = x.tanh()
            elif self.code == "unit":
                x = F.normalize(x, dim=1)
            found.append(x)
        return found

    def forward(self, x: Rows) -> Rows:
        """The code, without noise."""
        return self.layers(x)[-1]

    def decode(self, z: Rows) -> list[Rows]:
        """Activations of all decoder layers, the reconstruction last."""
        found = []
        for i, layer in enumerate(self.up):
            z = layer(z)
            z = F.leaky_relu(z, self.slope) if i < len(self.up) - 1 else z
            found.append(z)
        return found


def reconstruction(net: Autoencoder, x: Rows, dropout: float = 0.0, inner: float = 0.0) -> Float[Tensor, ""]:
    """Mean squared error of the reconstruction from a corrupted pass.

    inner  weight of the same error at every hidden layer, decoder against the *clean* encoder: DEPICT has 0.1, and 0
           is the ordinary denoising autoencoder
    """
    return reconstruction_of(net, x, net.layers(x, dropout)[-1], inner)


def reconstruction_of(net: Autoencoder, x: Rows, code: Rows, inner: float = 0.0) -> Float[Tensor, ""]:
    """``reconstruction`` for a code that has been computed before."""
    back = net.decode(code)
    total = (back[-1] - x).square().mean()
    if inner:
        clean = net.layers(x)[:-1]
        total = total + inner * sum((b - c).square().mean() for b, c in zip(back, reversed(clean), strict=False))
    return total


def pretrain(net: Autoencoder, x: Rows, *, generator: Generator, steps: int, dropout: float = 0.2, inner: float = 0.0,
             lr: float = 2e-3) -> Tensor:  # fmt: skip
    """All layers together, as DEPICT and TELL do. Returns the losses."""
    return descend(net.parameters(), lambda b, _: reconstruction(net, x[b], dropout, inner), len(x),
                   generator=generator, steps=steps, lr=lr)  # fmt: skip


def pretrain_layerwise(net: Autoencoder, x: Rows, *, generator: Generator, steps: int, dropout: float = 0.2,
                       lr: float = 2e-3) -> Tensor:  # fmt: skip
    """DEC's start: each layer a denoising autoencoder of the one below, half of the steps; then all without noise.

    A layer's target is the clean activation below it; its own output is dropped too before it is decoded. Departure:
    Adam instead of SGD whose rate falls tenfold.
    """
    share, below = max(1, steps // (2 * len(net.down))), x
    for i in range(len(net.down)):
        down, up, last = net.down[i], net.up[-1 - i], i == len(net.down) - 1

        def loss(b, _, down=down, up=up, last=last, below=below, first=i == 0):
            hidden = down(F.dropout(below[b], dropout))
            hidden = hidden if last else F.dropout(F.leaky_relu(hidden, net.slope), dropout)
            back = up(hidden)
            back = back if first else F.leaky_relu(back, net.slope)
            return (back - below[b]).square().mean()

        descend([*down.parameters(), *up.parameters()], loss, len(x), generator=generator, steps=share, lr=lr)
        with torch.no_grad():
            below = down(below) if last else F.leaky_relu(down(below), net.slope)
    return pretrain(net, x, generator=generator, steps=max(1, steps // 2), dropout=0.0, lr=lr)
