"""Features without labels, and linear classifiers on them: what four of the chapter's papers start from."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...loss import check_positive, raised, unit_rows
from ..training import train
from .robust import forward_cross_entropy, generalised_cross_entropy
from .stage import Stage


def nt_xent(z: Float[Tensor, "n b2 d"], tau: float = 0.2) -> Float[Tensor, ""]:
    """SimCLR's loss for each network of a stack, summed (Chen et al. 2020, equation 1).

    z  rows i and i + b of a network are two views of one image; b at least 2

    The library's ``nt_xent`` for a stack: batches are small, all similarities are kept. Raises ValueError for an odd
    number of rows and a temperature that is not positive.
    """
    check_positive(tau=tau)
    n, rows, _ = z.shape
    if rows % 2 or rows < 4:
        raise ValueError(f"z must have two views of 2 images at least, got {tuple(z.shape)}")
    z = unit_rows(raised(z))
    logits = (z @ z.mT / tau).masked_fill(torch.eye(rows, dtype=torch.bool, device=z.device), -torch.inf)
    other = torch.arange(rows, device=z.device).roll(rows // 2).expand(n, rows)
    return F.cross_entropy(logits.flatten(0, 1), other.flatten()) * n


def simclr(stage: Stage, seed: int, *, steps: int, batch: int = 128, tau: float = 0.2, hidden: tuple = (256, 128)):
    """One network trained by SimCLR on all of the stage's training images, without labels; its head is the projection.

    ``net.features`` are the representation. Views are the stage's strong ones.
    """
    g = stage.generator(seed, 51)
    net = stage.net(1, 64, hidden, generator=g)
    x = stage.pool.x

    def loss(step: int) -> Tensor:
        rows = x[torch.randint(len(x), (batch,), generator=g, device=x.device)]
        return nt_xent(net(torch.cat([stage.views(rows, g), stage.views(rows, g)])[None]), tau)

    train(net, loss, steps, lr=3e-3)
    return net


@torch.no_grad()
def features(net, x: Float[Tensor, "N d"], block: int = 2000) -> Float[Tensor, "N f"]:
    """The representation of each row by the first network of a stack, in evaluation mode."""
    net.eval()
    return torch.cat([net.features(part)[0] for part in x.split(block)])


def fit_linear(
    z: Float[Tensor, "N f"], labels: Int[Tensor, "n N"], l2: list[float], classes: int, *, loss: str = "ni-erm",
    matrix: Tensor | None = None, weights: Float[Tensor, "n N"] | None = None, steps: int = 40,
) -> Float[Tensor, "n f1 k"]:  # fmt: skip
    """n multinomial logistic regressions on the same features, by L-BFGS: weights, and the bias as last row.

    l2      one penalty a regression, half of it times the squared weights, without the bias
    loss    "ni-erm": cross-entropy, as if no label were wrong; "forward" with the noise's matrix; "gce"
    weights of the samples, mean 1

    Begun at zero. Raises ValueError for an unknown loss and penalties that do not fit.
    """
    if loss not in ("ni-erm", "forward", "gce"):
        raise ValueError(f"loss must be 'ni-erm', 'forward' or 'gce', got {loss!r}")
    n = len(labels)
    if len(l2) != n:
        raise ValueError(f"l2 must have one penalty for each of the {n} rows of labels, got {len(l2)}")
    w = z.new_zeros(n, z.shape[1] + 1, classes).requires_grad_()
    penalty, y = z.new_tensor(l2), F.one_hot(labels.long(), classes).to(z.dtype)
    each = torch.ones_like(labels, dtype=z.dtype) if weights is None else weights.to(z.dtype)
    solver = torch.optim.LBFGS(
        [w], max_iter=steps, history_size=10, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        logits = z @ w[:, :-1] + w[:, -1:]
        if loss == "ni-erm":
            value = -((y * logits.log_softmax(-1)).sum(-1) * each).mean(1).sum()
        elif loss == "forward":
            value = forward_cross_entropy(logits, labels, matrix)
        else:
            value = generalised_cross_entropy(logits, labels)
        value = value + (penalty / 2 * w[:, :-1].square().sum((1, 2))).sum()
        value.backward()
        return value

    solver.step(objective)
    return w.detach()


def linear_logits(w: Float[Tensor, "n f1 k"], z: Float[Tensor, "N f"]) -> Float[Tensor, "n N k"]:
    return z @ w[:, :-1] + w[:, -1:]


def balanced_separator(
    z: Float[Tensor, "n N f"], noisy: Bool[Tensor, "n N"], steps: int = 5, ridge: float = 1e-2
) -> Float[Tensor, "n N"]:
    """Probability that a sample is noisy, by a class-balanced logistic regression on standardised features.

    noisy  provisional answers, one row a network
    steps  of Newton's method; a ``ridge`` keeps separable data finite (scikit-learn without a penalty stops at its
           number of iterations, which is what the released code does)

    A row of one kind gets 0.5 throughout.
    """
    z = raised(z)
    z = (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True).clamp_min(1e-6)
    z = torch.cat([z, torch.ones_like(z[..., :1])], -1)
    t = noisy.to(z.dtype)
    positive = t.mean(1, keepdim=True)
    each = 0.5 * (t / positive.clamp_min(1e-6) + (1 - t) / (1 - positive).clamp_min(1e-6)) / z.shape[1]
    w = z.new_zeros(len(z), z.shape[2])
    eye = ridge * torch.eye(z.shape[2], dtype=z.dtype, device=z.device)
    for _ in range(steps):
        p = torch.bmm(z, w[..., None])[..., 0].clamp(-15, 15).sigmoid()
        slope = torch.bmm(z.mT, (each * (p - t))[..., None])[..., 0] + ridge * w
        curved = torch.bmm(z.mT * (each * p * (1 - p))[:, None], z) + eye
        w = w - torch.linalg.solve(curved, slope)
    p = torch.bmm(z, w[..., None])[..., 0].sigmoid()
    both = (positive > 0) & (positive < 1)
    return torch.where(both, p, torch.full_like(p, 0.5))
