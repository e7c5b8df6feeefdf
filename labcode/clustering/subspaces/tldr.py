"""TLDR (Kalantidis et al., 2022): a linear map of features, learnt from nearest neighbours with Barlow Twins' loss."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import shuffled
from ...loss import check_matrix, raised, unit_rows
from ...nets import mlp
from ...self_supervision.redundancy.barlow_twins import barlow_twins
from ...train import fit

Rows = Float[Tensor, "n d"]


@torch.no_grad()
def nearest_neighbours(x: Rows, k: int, chunk: int = 2048) -> Int[Tensor, "n k"]:
    """The k nearest other rows of each row by cosine, nearest first: TLDR's pairs, made once and offline.

    Raises ValueError for k outside 1 … n - 1. Memory chunk × n.
    """
    check_matrix("x", x, rows=2)
    if not 1 <= k < len(x):
        raise ValueError(f"k must be between 1 and {len(x) - 1}, got {k}")
    x, found = unit_rows(x), []
    for at in range(0, len(x), chunk):
        near = x[at : at + chunk] @ x.T
        near[torch.arange(len(near)), torch.arange(at, at + len(near))] = -torch.inf
        found.append(near.topk(k).indices)
    return torch.cat(found)


@torch.no_grad()
def quantise(x: Rows, parts: int, words: int, seed: int = 0) -> Rows:
    """Each row replaced by its product quantisation (Jégou et al., 2011): ``parts`` slices, each its nearest word.

    What TLDR searches neighbours in when the set is large. Raises ValueError where parts do not divide the columns.
    """
    from ...cluster import kmeans

    check_matrix("x", x)
    if x.shape[1] % parts:
        raise ValueError(f"parts must divide the {x.shape[1]} columns of x, got {parts}")
    books = (kmeans(piece.contiguous(), words, seed, iterations=8) for piece in x.chunk(parts, 1))
    return torch.cat([centre[which] for centre, which in books], 1)


class TLDR(nn.Module):
    """The encoder, linear as in the paper, and the projector in front of the loss, which is thrown away afterwards.

    features  width of what comes in
    dim       of the code
    hidden    width of the projector's layers; () is no projector. 2048 twice in the library, 8192 in the paper
    encoder   widths between features and code: () is linear, (64,) a perceptron; with ``bend`` False a factorised map
    """

    def __init__(self, features: int, dim: int, hidden: tuple = (256, 256), encoder: tuple = (), bend: bool = True):
        super().__init__()
        if bend or not encoder:
            self.encoder = mlp([features, *encoder, dim])
        else:
            widths = [features, *encoder, dim]
            self.encoder = nn.Sequential(*(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)))
        self.projector = mlp([dim, *hidden]) if hidden else nn.Identity()

    def forward(self, x: Rows) -> Rows:
        return self.projector(self.encoder(x))


def learn_tldr(
    x: Rows, partner, dim: int, seed: int, *, loss=None, lam: float = 0.0039, steps: int = 150, batch_size: int = 256,
    lr: float = 3e-3, **shape,
) -> nn.Module:  # fmt: skip
    """Train a TLDR and return its encoder, in evaluation mode.

    x        training features, standardised
    partner  (n, k) indices, of which one is drawn each time; or a function ``(index, generator) -> rows``
    loss     of two projections; Barlow Twins with ``lam`` if None, here over its off-diagonal terms as TLDR's code
             weighs them, 0.0039. ``reconstruction`` takes the input for the second projection
    shape    of ``TLDR``

    Departure: Adam with weight decay for LARS, and one forward of both rows, so BatchNorm sees the pair together.
    """
    torch.manual_seed(1000 + seed)
    model = TLDR(x.shape[1], dim, **shape).to(x.device)
    generator = torch.Generator(x.device).manual_seed(seed)
    loss = loss or (lambda a, b, _: barlow_twins(a, b, lam) / 32)

    def step(index):
        if callable(partner):
            other = partner(index, generator)
        else:
            at = torch.randint(partner.shape[1], index.shape, generator=generator, device=x.device)
            other = x[partner[index, at]]
        a, b = model(torch.cat([x[index], other])).chunk(2)
        return {"loss": loss(a, b, x[index])}

    batches = shuffled(len(x), min(batch_size, len(x)), seed, x.device)
    fit(model, step, batches, steps=steps, lr=lr, weight_decay=1e-6, generators=[generator])
    return model.encoder


class PCA(nn.Module):
    """The ceiling of linear reconstruction: centre, rotate, and with ``whiten`` bring each direction to variance 1.

    With rows brought to length 1 afterwards: the strong baseline of retrieval. Raises ValueError for a dim that is too
    large.
    """

    def __init__(self, x: Rows, dim: int, whiten: bool = True):
        super().__init__()
        check_matrix("x", x, rows=2)
        if not 1 <= dim <= min(x.shape):
            raise ValueError(f"dim must be between 1 and {min(x.shape)}, got {dim}")
        x = raised(x)
        self.mean = x.mean(0)
        _, values, vectors = torch.linalg.svd(x - self.mean, full_matrices=False)
        scale = len(x) ** 0.5 / values[:dim].clamp_min(1e-6) if whiten else torch.ones_like(values[:dim])
        self.map = vectors[:dim].T * scale

    def forward(self, x: Rows) -> Rows:
        return (x - self.mean) @ self.map


class LPP(nn.Module):
    """Locality preserving projections (He and Niyogi, 2004): the linear map whose codes vary least along the graph.

    min tr(Vᵀ Xᵀ L X V) with Vᵀ Xᵀ D X V = I, for the graph of the given neighbours, symmetrised.

    ridge  added to Xᵀ D X, as a share of its mean diagonal
    """

    def __init__(self, x: Rows, near: Int[Tensor, "n k"], dim: int, ridge: float = 1e-3):
        super().__init__()
        x = raised(x)
        self.mean = x.mean(0)
        x = x - self.mean
        w = x.new_zeros(len(x), len(x)).scatter_(1, near, 1.0)
        w = torch.maximum(w, w.T)
        degree = w.sum(1)
        inside = x.T @ (degree[:, None] * x)
        inside += ridge * inside.diagonal().mean() * torch.eye(len(inside), device=x.device)
        half = torch.linalg.inv(torch.linalg.cholesky(inside))
        along = half @ (x.T @ (w @ x)) @ half.T  # the largest of W is the smallest of L = D - W
        self.map = half.T @ torch.linalg.eigh((along + along.T) / 2).eigenvectors[:, -dim:].flip(1)

    def forward(self, x: Rows) -> Rows:
        return (x - self.mean) @ self.map


@torch.no_grad()
def mean_average_precision(z: Rows, labels: Int[Tensor, " n"]) -> float:
    """Retrieval among all others by cosine: the mean over queries of average precision for rows of the same label.

    In [0, 1]. Queries whose label nobody shares are left out. Raises ValueError for labels that are not one a row.
    """
    check_matrix("z", z, rows=2)
    if labels.shape != (len(z),):
        raise ValueError(f"labels must be one integer a row ({len(z)},), got {tuple(labels.shape)}")
    z = unit_rows(z)
    order = (z @ z.T).fill_diagonal_(-torch.inf).argsort(1, descending=True)[:, :-1]
    hit = (labels[order] == labels[:, None]).double()
    place = torch.arange(1, len(z), device=z.device, dtype=torch.float64)
    precise = (hit.cumsum(1) / place * hit).sum(1) / hit.sum(1).clamp_min(1)
    return float(precise[hit.sum(1) > 0].mean())
