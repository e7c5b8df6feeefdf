"""Several small networks trained side by side: one batched product serves all class splits, folds or arms."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class StackedMLP(nn.Module):
    """r perceptrons of one shape, GELU between their linear layers: (r, n, d_in) to (r, n, d_out).

    widths  [input, hidden …, output]
    r       how many; ``copies`` starts all of them from one draw instead, so that arms share it
    """

    def __init__(self, widths: list[int], r: int, *, generator: torch.Generator, copies: bool = False):
        super().__init__()
        self.widths, device = list(widths), generator.device
        drawn = 1 if copies else r

        def make(*shape):
            return torch.randn(drawn, *shape, generator=generator, device=device).expand(r, *shape).clone()

        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.weights = nn.ParameterList([nn.Parameter(make(a, b) / a**0.5) for a, b in pairs])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(r, 1, b, device=device)) for _, b in pairs])

    def forward(self, x: Float[Tensor, "r n d"]) -> Float[Tensor, "r n e"]:
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(b, nn.functional.gelu(x) if i else x, w)
        return x


def draw_rows(allowed: Float[Tensor, "r n"], size: int, *, generator: torch.Generator) -> Int[Tensor, "r size"]:
    """``size`` places of each row's positive weights, drawn with replacement in proportion to them.

    Raises ValueError for a row without a positive weight on a CPU.
    """
    if allowed.device.type == "cpu" and not bool((allowed.sum(-1) > 0).all()):
        raise ValueError("allowed must have a positive weight in each row")
    return torch.multinomial(allowed, size, replacement=True, generator=generator)


def take(x: Float[Tensor, "*s n d"], index: Int[Tensor, "r b"]) -> Float[Tensor, "r b d"]:
    """Rows of one matrix (n, d) for all networks, or of one (r, n, d) for each."""
    return x[index] if x.ndim == 2 else x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
