"""RePRI (Boudiaf et al., 2021): few-shot segmentation by fitting a linear pixel classifier to supports and query.

For one task, features of length 1, p = sigmoid(20 cos(w, z) - b), and only w and b are optimised:

    CE(supports) + λ_KL KL(mean p of the query || π) + λ_H mean H(p of the query),    λ_KL = λ_H = 1 / shots
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_finite, float32
from ...train import fit
from .episodes import check_floating
from .patterned import IGNORED, SegmentationTasks, coarse, segmentation_tasks

TEMPERATURE = 20.0


@float32
def repri_terms(
    p_support: Float[Tensor, "b s"],
    y_support: Int[Tensor, "b s"],
    p_query: Float[Tensor, "b q"],
    prior: Float[Tensor, " b"],
) -> dict[str, Float[Tensor, " b"]]:
    """The three terms of each task: "ce" of the support pixels, "kl" of the query's share to the prior, "entropy".

    p_support, p_query  probabilities of the foreground at the pixels; values outside [0, 1] are clamped
    y_support           1 foreground, 0 background, 255 left out of the mean
    prior               π, the foreground's share of the query, in [0, 1]

    KL(p̄ || π) and not the reverse. 1e-10 in the logarithms, as in the released code. Raises ValueError for shapes that
    do not fit and for no pixels.
    """
    if p_support.ndim != 2 or p_support.shape != y_support.shape or not p_support.numel():
        raise ValueError(
            "p_support must be (b, s) with labels of that shape, "
            f"got {tuple(p_support.shape)} and {tuple(y_support.shape)}"
        )
    if p_query.ndim != 2 or len(p_query) != len(p_support) or not p_query.numel():
        raise ValueError(f"p_query must be (b, q) with as many rows as p_support, got {tuple(p_query.shape)}")
    if prior.shape != p_query.shape[:1]:
        raise ValueError(f"prior must be one value a task, {len(p_query)}, got {tuple(prior.shape)}")
    check_floating(p_support=p_support, p_query=p_query, prior=prior)
    both = lambda p: torch.stack([1 - p.clamp(0, 1), p.clamp(0, 1)])  # noqa: E731
    known = y_support != IGNORED
    chosen = torch.where(y_support == 1, p_support, 1 - p_support).clamp(0, 1)
    ce = -((chosen + 1e-10).log() * known).sum(1) / known.sum(1).clamp_min(1)
    query = both(p_query)
    entropy = -(query * (query + 1e-10).log()).sum(0).mean(1)
    share, pi = both(p_query.clamp(0, 1).mean(1)), both(prior)
    kl = (share * ((share + 1e-10).log() - (pi + 1e-10).log())).sum(0)
    return dict(ce=ce, kl=kl, entropy=entropy)


def repri(
    support: Float[Tensor, "t s d h w"], support_mask: Int[Tensor, "t s h w"], query: Float[Tensor, "t d h w"], *,
    terms: tuple[str, ...] = ("ce", "kl", "entropy"), prior: Float[Tensor, " t"] | None = None, steps: int = 50,
    update: int | None = 10, lr: float = 0.025, weight: float | None = None, trace: list | None = None,
) -> Float[Tensor, "t h w"]:  # fmt: skip
    """The foreground's probability at every pixel of the queries, all tasks optimised at once.

    terms   which of the loss are there
    prior   π of each task, kept: the paper's oracle has the true share. None takes the query's mean prediction at the
            start and once more after ``update`` steps, when the weight of the KL rises by 1
    update  iteration of that; None never
    lr      of plain gradient descent on w and b, each task its own sum
    weight  of KL and entropy; None is 1 / shots
    trace   a list that gets the mean prediction of each query (t,) at every step

    Starts from w = mean foreground feature of the supports and b = mean logit of the query. Raises ValueError for other
    terms, shapes that do not fit, and supports without foreground.
    """
    if odd := set(terms) - {"ce", "kl", "entropy"}:
        raise ValueError(f"terms must be ce, kl or entropy, got {sorted(odd)}")
    if support.ndim != 5 or support_mask.shape != (*support.shape[:2], *support.shape[3:]):
        raise ValueError(
            "support_mask must be (t, s, h, w) of support's, "
            f"got {tuple(support_mask.shape)} and {tuple(support.shape)}"
        )
    check_finite(support=support, query=query)
    t, shots = support.shape[:2]
    zs = support.transpose(1, 2).flatten(2)  # (t, d, pixels)
    ys, zq = support_mask.flatten(1), query.flatten(2)
    inside = (ys == 1).to(zs.dtype)
    if not bool((inside.sum(1) > 0).all()):
        raise ValueError("support_mask must have a foreground pixel in every task")
    zs, zq = F.normalize(zs, dim=1), F.normalize(zq, dim=1)
    w = (zs @ inside[..., None])[..., 0] / inside.sum(1, keepdim=True)
    logit = lambda w, z: TEMPERATURE * (F.normalize(w, dim=1)[:, None] @ z)[:, 0]  # noqa: E731
    b = logit(w, zq).mean(1)
    pi = (logit(w, zq) - b[:, None]).sigmoid().mean(1) if prior is None else prior
    weights = dict(ce=1.0, kl=1 / shots if weight is None else weight, entropy=1 / shots if weight is None else weight)
    for step in range(1, steps):
        w, b = w.detach().requires_grad_(), b.detach().requires_grad_()
        p = (logit(w, zq) - b[:, None]).sigmoid()
        if trace is not None:
            trace.append(p.mean(1).detach())
        if step == update and prior is None:
            pi, weights["kl"] = p.mean(1).detach(), weights["kl"] + 1
        found = repri_terms((logit(w, zs) - b[:, None]).sigmoid(), ys, p, pi)
        loss = sum(weights[k] * found[k] for k in terms)
        grad_w, grad_b = torch.autograd.grad(loss.sum(), (w, b))
        w, b = w - lr * grad_w, b - lr * grad_b
    return (logit(w.detach(), zq) - b.detach()[:, None]).sigmoid().view(t, *query.shape[2:])


def prototype_masks(support: Tensor, support_mask: Tensor, query: Tensor) -> Float[Tensor, "t h w"]:
    """PANet's classifier (Wang et al., 2019): 20 cos to the mean fore- and background feature."""
    zs, ys = support.transpose(1, 2).flatten(2), support_mask.flatten(1)
    mean = torch.stack([(zs * (ys == k)[:, None]).sum(2) / (ys == k).sum(1).clamp_min(1)[:, None] for k in (0, 1)], 1)
    logits = TEMPERATURE * F.normalize(mean, dim=2) @ F.normalize(query.flatten(2), dim=1)
    return logits.softmax(1)[:, 1].view(len(query), *query.shape[2:])


def mean_iou(p: Float[Tensor, "t h w"], mask: Int[Tensor, "t s s"], classes: Int[Tensor, " t"]) -> float:
    """Foreground IoU at full resolution, added up over a class's tasks; the mean over classes."""
    size = mask.shape[-1]
    said = F.interpolate(p[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0] > 0.5
    known, true = mask != IGNORED, mask == 1
    both, either = ((said & true & known).sum((1, 2)), ((said | true) & known).sum((1, 2)))
    ious = [float(both[classes == c].sum() / either[classes == c].sum().clamp_min(1)) for c in classes.unique()]
    return sum(ious) / len(ious)


@torch.no_grad()
def seen(encoder: nn.Module, tasks: SegmentationTasks) -> tuple[Tensor, Tensor, Tensor]:
    """Features of supports, their masks at the features' size, and features of the query."""
    t, shots = tasks.support.shape[:2]
    z = torch.cat([encoder(part) for part in torch.cat([tasks.support.flatten(0, 1), tasks.query]).split(256)])
    zs = z[: t * shots].view(t, shots, *z.shape[1:])
    return zs, coarse(tasks.support_mask, z.shape[-1]), z[t * shots :]


def panet(make, seed: int, *, steps: int = 60, tasks: int = 16, lr: float = 5e-3, scenes: int = 600) -> nn.Module:
    """The episodic rival: the encoder trained on one-shot tasks of base classes through ``prototype_masks``.

    scenes  that its tasks are made of, two each: as many as ``pixel_training`` has
    """
    torch.manual_seed(seed)
    encoder, g = make(), torch.Generator().manual_seed(seed)
    device, pool = next(encoder.parameters()).device, segmentation_tasks("base", scenes // 2, 1, g)
    parts = [part.to(device) for part in (pool.support[:, 0], pool.query, pool.support_mask, pool.query_mask)]

    def step(index):
        support, query, mask, wanted = (part[index] for part in parts)
        z = encoder(torch.cat([support, query]))
        p = prototype_masks(z[:tasks, None], coarse(mask, z.shape[-1]), z[tasks:])
        return {"loss": F.binary_cross_entropy(p.clamp(1e-6, 1 - 1e-6), coarse(wanted, z.shape[-1]).to(p.dtype))}

    batches = lambda i: torch.randint(scenes // 2, (tasks,), generator=g).to(device)  # noqa: E731
    fit(encoder, step, batches, steps=steps, lr=lr, label=f"PANet, seed {seed}")
    return encoder.eval()
