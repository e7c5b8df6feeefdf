"""How separable are the classes of a cloud of points, without labels: the bars of its connected components."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_finite


def persistence(x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n-1"]:
    """The lengths of the n - 1 finite H0 bars of the Vietoris–Rips filtration, ascending; clouds in one batch.

    All components are born at 0 and die where two merge: the lengths are the edges of the Euclidean minimum spanning
    tree, the heights of single linkage. Prim's algorithm, one matrix-vector product a point that joins: time O(n²d),
    memory O(nd). Products choose the edges, differences measure them, so equal points are at distance 0.

    Raises ValueError for fewer than two points, and for coordinates that are not finite.
    """
    if x.ndim < 2 or x.shape[-2] < 2:
        raise ValueError(f"x must be (…, n, d) with at least two points, got {tuple(x.shape)}")
    check_finite(x=x)
    shape, x = x.shape, x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    x = x.reshape(-1, *shape[-2:])
    x = x - x.mean(1, keepdim=True)  # near the origin, products keep their digits
    begin, end = (
        x.gather(1, points[..., None].expand(-1, -1, x.shape[2])) for points in _spanning_tree(x).unbind(1)
    )
    return (begin - end).square().sum(2).sqrt().sort(1).values.view(*shape[:-2], shape[-2] - 1)


def _spanning_tree(x: Float[Tensor, "b n d"]) -> Int[Tensor, "b 2 e"]:
    """The two points of each of the n - 1 edges of each cloud's minimum spanning tree, in Prim's order."""
    many, n, d = x.shape
    each = torch.arange(many, device=x.device)
    at = torch.zeros(many, dtype=torch.long, device=x.device)  # who joins, as a place among ``out``
    name = torch.arange(n, device=x.device).repeat(many, 1)
    parent = torch.zeros_like(name)
    out, half = x, x.square().sum(2) / 2  # the points outside the tree; ‖x‖² / 2, infinite for one that has joined
    near = torch.full_like(half, torch.inf)  # half the squared distance from the tree, less that
    edges = []
    for left in range(n - 1, 0, -1):
        joined = name[each, at]
        half[each, at] = torch.inf
        point = x[each, joined]
        reach = torch.baddbmm(point.square().sum(1)[:, None, None] / 2, out, point[:, :, None], alpha=-1)[..., 0]
        parent = torch.where(reach < near, joined[:, None], parent)
        near = torch.minimum(near, reach)
        at = (near + half).argmin(1)
        edges.append(torch.stack([name[each, at], parent[each, at]], 1))
        if 2 * left < out.shape[1] and left > 64:  # half have joined: go on with the rest alone
            stay = half.isfinite().nonzero()[:, 1].view(many, left)
            at = (stay == at[:, None]).int().argmax(1)
            out = out.gather(1, stay[..., None].expand(-1, -1, d))
            half, near, parent, name = (t.gather(1, stay) for t in (half, near, parent, name))
    return torch.stack(edges, 2)


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
