"""How separable are the classes of a cloud of points, without labels: the bars of its connected components."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite


def persistence(x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n-1"]:
    """The lengths of the n - 1 finite H0 bars of the Vietoris–Rips filtration, ascending; clouds in one batch.

    All components are born at 0 and die where two merge: the lengths are the edges of the Euclidean minimum spanning
    tree, the heights of single linkage. Prim's algorithm, a vector operation a point: time O(n²d), memory O(nd).

    Raises ValueError for fewer than two points, and for coordinates that are not finite.
    """
    if x.ndim < 2 or x.shape[-2] < 2:
        raise ValueError(f"x must be (…, n, d) with at least two points, got {tuple(x.shape)}")
    check_finite(x=x)
    shape, x = x.shape, x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    x = x.reshape(-1, *shape[-2:])
    many, n = x.shape[:2]
    each = torch.arange(many, device=x.device)
    at = torch.zeros(many, dtype=torch.long, device=x.device)
    near = torch.full((many, n), torch.inf, dtype=x.dtype, device=x.device)
    left = torch.ones_like(near, dtype=torch.bool)
    edges = []
    for _ in range(n - 1):
        left[each, at] = False
        near = torch.minimum(near, (x - x[each, at][:, None]).square().sum(2))
        edge, at = torch.where(left, near, torch.inf).min(1)
        edges.append(edge)
    return torch.stack(edges, 1).sqrt().sort(1).values.view(*shape[:-2], n - 1)


def separability(bars: Float[Tensor, "*b m"], quantile: float = 1.0) -> Float[Tensor, "*b"]:
    """1 - mean(p) / max(p): near 1 where few long bars stand over many short ones, as between clusters; in [0, 1].

    After Ghalyan et al. (2023), who divide the persistence times by their maximum and summarise them in one number. We
    could not see their formula: this one is ours. It depends on the number of points, so compare clouds of equal size.

    quantile  of the bars that takes the maximum's place, in (0, 1]: 0.99 does not listen to a single far point; longer
              bars then count as that long

    Equal bars of length 0, all points in one place, give 0. Raises ValueError for a quantile outside (0, 1].
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be in (0, 1], got {quantile}")
    top = torch.quantile(bars, quantile, dim=-1, keepdim=True)
    share = torch.minimum(bars, top) / top.clamp_min(torch.finfo(bars.dtype).tiny)
    return torch.where(top[..., 0] > 0, 1 - share.mean(-1), 0.0)


def fisher_ratio(x: Float[Tensor, "*b n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "*b"]:
    """Fisher's discriminant ratio in trace form: scatter between the classes over scatter within them."""
    member = torch.nn.functional.one_hot(labels.unique(return_inverse=True)[1]).to(x.dtype)
    share = member / member.sum(0)
    means = share.T @ x
    within = (x - member @ means).square().sum((-2, -1))
    between = (member.sum(0)[:, None] * (means - x.mean(-2, keepdim=True)).square()).sum((-2, -1))
    return between / within.clamp_min(1e-12)


def thornton(x: Float[Tensor, "*b n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "*b"]:
    """Thornton's index: the share of points whose nearest other point is of their class."""
    distance = torch.cdist(x, x)
    distance.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    return (labels[distance.argmin(-1)] == labels).to(x.dtype).mean(-1)


def plateau(scores: list[float], patience: int = 4, gain: float = 0.0) -> int:
    """Where to stop: the first checkpoint after which the next ``patience`` bring no more than ``gain`` above it."""
    for i in range(len(scores) - patience):
        if max(scores[i + 1 : i + 1 + patience]) <= scores[i] + gain:
            return i
    return len(scores) - 1


class ManyMLPs(torch.nn.Module):
    """Independent two-layer perceptrons of one shape in one batch: inputs (m, n, d) give logits (m, n, classes).

    norm  layer normalisation of the hidden features, one flag a network
    """

    def __init__(self, d: int, width: int, classes: int, norm: list[bool], generator: torch.Generator):
        super().__init__()
        many = len(norm)

        def make(i, o):
            return torch.nn.Parameter(torch.randn(many, i, o, generator=generator) * (2 / i) ** 0.5)

        self.first, self.second, self.last = make(d, width), make(width, width), make(width, classes)
        self.bias = torch.nn.Parameter(torch.zeros(2, many, 1, width))
        self.register_buffer("norm", torch.tensor(norm)[:, None, None])

    def embed(self, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m n w"]:
        """The second layer's features, which the classifier sees."""
        h = torch.relu(torch.baddbmm(self.bias[0], x, self.first))
        h = torch.baddbmm(self.bias[1], h, self.second)
        return torch.where(self.norm, torch.nn.functional.layer_norm(h, h.shape[-1:]), h)

    def forward(self, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m n c"]:
        return torch.bmm(torch.relu(self.embed(x)), self.last)
