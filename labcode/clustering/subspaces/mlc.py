"""MLC (Ding et al., 2023): features and a doubly stochastic n × n membership are learnt together by coding rates."""

import copy
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...data import shuffled
from ...loss import check_matrix, check_positive, float32, raised, unit_rows
from ...nets import mlp
from ...train import fit
from .coding_rate import coding_rate, segmented_rate

Rows = Float[Tensor, "n d"]


def doubly_stochastic(scores: Float[Tensor, "n n"], eta: float = 0.175, half_steps: int = 5) -> Float[Tensor, "n n"]:
    """The entropic projection of scores onto matrices whose rows and columns sum to 1; gradients pass through it.

    MLC, eq. 6: argmax ⟨Π, S⟩ + η H(Π), by Sinkhorn's half-steps in logarithms: rows, columns, rows, …

    scores      S (n, n), any real numbers; half precision is raised to float32
    eta         η > 0, the entropy's weight. Towards 0 the answer is a permutation, towards infinity 1/n everywhere
    half_steps  >= 1; with an odd number the rows are exact and the columns nearly so. 5 is CPP's

    Raises ValueError for scores that are not square, eta that is not positive and half_steps below 1.
    Departure: CPP's code gives a gradient to its last two half-steps only, since it detaches a potential; here to all.
    """
    check_matrix("scores", scores)
    check_positive(eta=eta)
    if scores.shape[0] != scores.shape[1]:
        raise ValueError(f"scores must be square, got shape {tuple(scores.shape)}")
    if half_steps < 1:
        raise ValueError(f"half_steps must be at least 1, got {half_steps}")
    log_p = raised(scores) / eta
    for i in range(half_steps):
        log_p = log_p - log_p.logsumexp(1 - i % 2, keepdim=True)
    return log_p.exp()


def membership(c: Rows, eta: float = 0.175, signed: bool = False, half_steps: int = 5) -> Float[Tensor, "n n"]:
    """Π = Sinkhorn_η(|C Cᵀ|) of cluster codes: which sample goes with which. Rows of c are brought to length 1.

    signed  leave the absolute value out, as the paper MLC writes it. Its idea is subspaces, where c and -c lie in the
            same one, and CPP's code takes the absolute value
    """
    check_matrix("c", c)
    c = unit_rows(c)
    scores = c @ c.T
    return doubly_stochastic(scores if signed else scores.abs(), eta, half_steps)


@float32
def mlc(
    z: Rows, c: Rows, eps2: float = 0.1, eta: float = 0.175, gamma: float = 0.0, signed: bool = False
) -> Float[Tensor, ""]:
    """Minus rate reduction, -(R(Z) - Rc(Z, Π)) + γ ‖Π‖²: features spread as a whole and gather with their own kind.

    MLC (Ding et al., 2023), eq. 5 and CPP (Chu et al., 2024), eq. 3. Gradients flow through Z and, through Sinkhorn, C.

    z, c    features and cluster codes (n, d) of the same n samples; rows are brought to length 1
    gamma   γ >= 0 of the squared norm of Π: 0 in the paper MLC; CPP's code has 0.025
    others  see ``coding_rate`` and ``membership``

    Raises ValueError for matrices of unlike rows and for values out of range.
    """
    check_matrix("z", z)
    check_matrix("c", c)
    if len(z) != len(c):
        raise ValueError(f"c must have the {len(z)} rows of z, got {len(c)}")
    if gamma < 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    z, p = unit_rows(z), membership(c, eta, signed)
    loss = segmented_rate(z, p, eps2) - coding_rate(z, eps2)
    return loss + gamma * p.square().sum() if gamma else loss


@float32
def mlc_views(
    z1: Rows, z2: Rows, c1: Rows, c2: Rows, eps2: float = 0.1, eta: float = 0.175, lam: float = 0.0
) -> Float[Tensor, ""]:
    """``mlc`` of two views: features are the views' mean brought to length 1, memberships the mean of both views'.

    Section 4.2, with A = 2 augmentations; λ · mean(1 - z₁ · z₂) keeps the views together, as in the first stage.

    Raises ValueError for unlike views and negative lam.
    """
    check_matrix("z1", z1)
    check_matrix("c1", c1)
    for name, z, like in (("z2", z2, z1), ("c2", c2, c1)):
        check_matrix(name, z, like=like)
    if len(c1) != len(z1):
        raise ValueError(f"c1 must have the {len(z1)} rows of z1, got {len(c1)}")
    if lam < 0:
        raise ValueError(f"lam must be at least 0, got {lam}")
    z1, z2 = unit_rows(z1), unit_rows(z2)
    z, p = unit_rows(z1 + z2), (membership(c1, eta, True) + membership(c2, eta, True)) / 2
    return segmented_rate(z, p, eps2) - coding_rate(z, eps2) + lam * (1 - (z1 * z2).sum(1)).mean()


@float32
def nmce(z1: Rows, z2: Rows, logits: Float[Tensor, "n k"], eps2: float = 0.1, lam: float = 0.0) -> Float[Tensor, ""]:
    """The rival NMCE (Li et al., 2022): the same rate reduction with an n × K softmax membership, so K is an input.

    logits  of the K clusters for each sample, of the views' mean

    Departure: a plain softmax for its Gumbel softmax.
    """
    check_matrix("z1", z1)
    check_matrix("z2", z2, like=z1)
    check_matrix("logits", logits)
    if len(logits) != len(z1):
        raise ValueError(f"logits must have the {len(z1)} rows of z1, got {len(logits)}")
    if lam < 0:
        raise ValueError(f"lam must be at least 0, got {lam}")
    z1, z2 = unit_rows(z1), unit_rows(z2)
    z = unit_rows(z1 + z2)
    return segmented_rate(z, logits.softmax(1), eps2) - coding_rate(z, eps2) + lam * (1 - (z1 * z2).sum(1)).mean()


@float32
def tcr(z1: Rows, z2: Rows, eps2: float = 0.1, lam: float = 1.0) -> Float[Tensor, ""]:
    """Total coding rate of the mean of two views, and agreement of the views: -R((Z₁ + Z₂)/2) + λ · mean(1 - z₁ · z₂).

    MLC, section 4.3 (its stage 1, from Li et al., 2022, NMCE). Rows are brought to length 1.

    lam  λ >= 0; ours is a mean over rows, the papers' a sum

    Raises ValueError for unlike views and negative lam.
    """
    check_matrix("z1", z1)
    check_matrix("z2", z2, like=z1)
    if lam < 0:
        raise ValueError(f"lam must be at least 0, got {lam}")
    z1, z2 = unit_rows(z1), unit_rows(z2)
    return lam * (1 - (z1 * z2).sum(1)).mean() - coding_rate(unit_rows(z1 + z2), eps2)


class TwoHeads(nn.Module):
    """A trunk on frozen features and two linear heads of it: features Z and cluster codes C, rows of length 1.

    features  width of what comes in
    width     of the trunk's two hidden layers; CPP's has 4096
    dim       of both heads; 128 in both papers
    clusters  give the second head this many logits instead, as NMCE has them
    """

    def __init__(self, features: int, width: int = 128, dim: int = 20, clusters: int | None = None):
        super().__init__()
        self.trunk = nn.Sequential(*mlp([features, width, width]), nn.ReLU())
        self.z, self.c = nn.Linear(width, dim), nn.Linear(width, clusters or dim)
        self.logits = clusters is not None

    def forward(self, x: Float[Tensor, "n f"]) -> tuple[Rows, Rows]:
        y = self.trunk(x)
        return unit_rows(self.z(y)), self.c(y) if self.logits else unit_rows(self.c(y))

    @torch.no_grad()
    def copy_head(self) -> None:
        """The cluster head takes the feature head's weights, once: samples near in Z start as each other's kind."""
        self.c.load_state_dict(self.z.state_dict())


def learn_heads(
    views: Float[Tensor, "v n f"], stage: Callable, seed: int, *, steps: int, start: TwoHeads | None = None,
    dim: int = 20, width: int = 128, clusters: int | None = None, batch_size: int = 160, lr: float = 3e-3,
) -> TwoHeads:  # fmt: skip
    """One stage of training two heads on frozen features; MLC and CPP have two, with a copied head between them.

    views  features of v augmentations of n samples; with v > 1 two are drawn each step and stacked
    stage  the loss, a function (z, c) of the batch's rows
    start  goes on from a copy of these heads, or from new ones

    The encoder stays frozen: departure from MLC, which trains its ResNet-18, not from CPP.
    """
    torch.manual_seed(1000 + seed)
    model = copy.deepcopy(start) if start else TwoHeads(views.shape[2], width, dim, clusters).to(views.device)
    generator = torch.Generator(views.device).manual_seed(seed)

    def step(index: Tensor) -> dict[str, Tensor]:
        if len(views) == 1:
            return {"loss": stage(*model(views[0, index]))}
        pair = torch.randperm(len(views), generator=generator, device=views.device)[:2]
        return {"loss": stage(*model(views[pair[:, None], index].flatten(0, 1)))}

    batches = shuffled(views.shape[1], min(batch_size, views.shape[1]), seed, views.device)
    fit(model, step, batches, steps=steps, lr=lr, generators=[generator])
    return model


def learn_mlc(
    views: Float[Tensor, "v n f"], seed: int, *, first: int = 60, second: int = 80, eps2: float = 0.5,
    lam: float = 20.0, copied: bool = True, start: TwoHeads | None = None, **options,
) -> tuple[TwoHeads, TwoHeads]:  # fmt: skip
    """Both stages on frozen features: ``tcr`` of the views alone, one copy of the head, ``mlc_views``; after each.

    MLC, sections 4.2 and 4.3.

    views   features of augmentations (v, n, f), two or more
    first   steps of the first stage, ``second`` of the second
    copied  False draws the cluster head anew in place of the copy: the ablation
    start   heads after a first stage, which is then not trained again
    options of ``learn_heads``
    """
    if start is None:
        start = learn_heads(views, lambda z, c: tcr(*z.chunk(2), eps2, lam), seed, steps=first, **options)
    begin = copy.deepcopy(start)
    if copied:
        begin.copy_head()
    else:
        begin.c.reset_parameters()
    stage = lambda z, c: mlc_views(*z.chunk(2), *c.chunk(2), eps2, lam=lam)  # noqa: E731
    return start, learn_heads(views, stage, seed + 1, steps=second, start=begin, **options)


@torch.no_grad()
def heads(model: TwoHeads, x: Float[Tensor, "n f"]) -> tuple[Rows, Rows]:
    """Features Z and cluster codes C of rows, without a gradient."""
    return model(x)
