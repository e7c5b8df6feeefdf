"""ISAL: choose the rows whose labels would lower a reference loss most, by the influence function of a linear head."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .acquisition import Acquire, check_pool, largest
from .heads import with_bias

RIDGE = 0.01


def gradients(
    x: Float[Tensor, "n d"], p: Float[Tensor, "n c"], target: Float[Tensor, "n c"]
) -> Float[Tensor, "n dc"]:
    """Gradients of the cross entropy in the weights of a linear head, one a row: x ⊗ (p - target), flattened.

    target  distributions: one-hot rows for a label, anything else for an expected gradient
    """
    return (x[:, :, None] * (p - target)[:, None, :]).flatten(1)


def hessian(
    x: Float[Tensor, "m d"], p: Float[Tensor, "m c"], l2: float = RIDGE, weights: Float[Tensor, " m"] | None = None
) -> Float[Tensor, "dc dc"]:
    """Hessian of Σ weights · cross entropy + l2/2 · ‖W‖² in W, exactly: Σ xxᵀ ⊗ (diag p - ppᵀ) + l2·I.

    The default weights are 1/m. Raises ValueError for l2 <= 0: without it the Hessian of a softmax is singular.
    """
    if l2 <= 0:
        raise ValueError(f"l2 must be positive, got {l2}")
    (m, d), c = x.shape, p.shape[1]
    share = torch.full_like(x[:, 0], 1 / m) if weights is None else weights
    spread = share[:, None, None] * (torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    outer = (x[:, :, None] * x[:, None, :]).flatten(1).T @ spread.flatten(1)  # (d·d, c·c)
    whole = outer.view(d, d, c, c).permute(0, 2, 1, 3).reshape(d * c, d * c)
    return whole + l2 * torch.eye(d * c, dtype=x.dtype, device=x.device)


def solve(h: Float[Tensor, "k k"], g: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """H⁻¹ g by Cholesky."""
    return torch.cholesky_solve(g[:, None], torch.linalg.cholesky(h))[:, 0]


def lissa(
    product: Callable[[int, Tensor], Tensor], g: Float[Tensor, " k"], samples: int, *, generator: torch.Generator,
    iterations: int = 250, repeats: int = 4, damping: float = 0.01, scale: float = 25.0,
) -> Float[Tensor, " k"]:  # fmt: skip
    """An estimate of H⁻¹ g from Hessian-vector products of single rows (Agarwal et al. 2017): no matrix is made.

    ISAL, section 3.3: h ← g + (1 - damping) h - H_i h / scale, begun at g; h / scale after the last, the mean of
    several runs. It estimates (H + damping·scale·I)⁻¹ g.

    product  (i, v) -> H_i v with row i's own Hessian
    scale    must exceed the largest eigenvalue of any H_i, else it diverges. The released code has 1e4 for networks

    Raises ValueError for a scale that is not positive and counts below 1.
    """
    if scale <= 0 or min(iterations, repeats, samples) < 1:
        raise ValueError(f"scale, iterations, repeats and samples must be positive, got {scale}, {iterations}, …")
    found = torch.zeros_like(g)
    for _ in range(repeats):
        h = g
        for i in torch.randint(samples, (iterations,), generator=generator).tolist():
            h = g + (1 - damping) * h - product(i, h) / scale
        found += h / scale / repeats
    return found


def expected_target(
    p: Float[Tensor, "n c"], how: str = "argmax", features: Float[Tensor, "n d"] | None = None,
    labelled: Int[Tensor, " m"] | None = None, labels: Int[Tensor, " m"] | None = None,
) -> Float[Tensor, "n c"]:  # fmt: skip
    """The label distribution that UUIC puts in place of the unknown label.

    ISAL, section 3.2. An expected gradient is the gradient at an expected target, since it is linear in the target.

    how  "argmax": the model's own answer, what the released classification script calls; "nearest": the label of the
         nearest labelled row, which takes ``features``, ``labelled`` and its ``labels``; "top2": the two most probable
         classes in proportion. All classes in proportion would give a gradient of 0

    Raises ValueError for another ``how``.
    """
    if how == "argmax":
        return torch.zeros_like(p).scatter_(1, p.argmax(1, keepdim=True), 1)
    if how == "top2":
        top = p.topk(min(2, p.shape[1]), dim=1)
        return torch.zeros_like(p).scatter_(1, top.indices, top.values / top.values.sum(1, keepdim=True))
    if how == "nearest":
        near = torch.cdist(features, features[labelled]).argmin(1)
        return torch.nn.functional.one_hot(labels[near], p.shape[1]).to(p.dtype)
    raise ValueError(f"how must be 'argmax', 'top2' or 'nearest', got {how!r}")


def influence(
    x: Float[Tensor, "n d"], p: Float[Tensor, "n c"], target: Float[Tensor, "n c"], s: Float[Tensor, " dc"]
) -> Float[Tensor, " n"]:
    """I(x) = -sᵀ g(x) with s = H⁻¹ g_ref: the change of the reference loss for a unit more weight on each row.

    ISAL, eq. 4. Negative means a lower loss. As xᵀ S (p - target), no gradient is stored.
    """
    return -((x @ s.view(x.shape[1], -1)) * (p - target)).sum(1)


def reference_direction(
    x: Tensor, p: Tensor, labelled: Tensor, reference: Tensor, reference_labels: Tensor, l2: float = RIDGE,
    inverse: bool = True,
) -> Tensor:  # fmt: skip
    """s = H⁻¹ g_ref for the pool's rows x (with bias) and probabilities p; without the inverse, g_ref itself."""
    target = torch.nn.functional.one_hot(reference_labels, p.shape[1]).to(p.dtype)
    g = gradients(x[reference], p[reference], target).mean(0)
    return solve(hessian(x[labelled], p[labelled], l2), g) if inverse else g


def isal(
    reference: Int[Tensor, " q"], reference_labels: Int[Tensor, " q"], how: str = "argmax", *, l2: float = RIDGE,
    inverse: bool = True, all_labels: Int[Tensor, " n"] | None = None,
) -> Acquire:  # fmt: skip
    """ISAL as a strategy: the rows with the most negative influence on the loss of reference rows of the pool.

    reference   rows with known labels, which are never chosen. They cost labels, and a fair comparison counts them;
                the released script takes the *test* batch for it
    how         see ``expected_target``; "true" with ``all_labels``: the influence with the true label, a ceiling
    inverse     False ranks by the product of gradients alone, the ablation

    The Hessian is exact, of the head's own objective; the paper estimates it by LiSSA for a network. Without any
    label it chooses at random. "nearest" takes the reference's labels with those of labelled rows.
    """

    def acquire(features, probabilities, labelled, budget, *, generator) -> Int[Tensor, " budget"]:
        """The lowest influences."""
        free = check_pool(features, probabilities, labelled, budget)
        free[reference] = False
        if not len(labelled):
            return largest(torch.zeros_like(features[:, 0]), free, budget, generator)
        x, p = with_bias(features), probabilities
        s = reference_direction(x, p, labelled, reference, reference_labels, l2, inverse)
        if how == "true":
            target = torch.nn.functional.one_hot(all_labels, p.shape[1]).to(p.dtype)
        else:
            target = expected_target(p, how, features, reference, reference_labels)
        return largest(-influence(x, p, target, s), free, budget, generator)

    return acquire


def retrained_changes(
    x: Float[Tensor, "n d"], y: Int[Tensor, " n"], labelled: Int[Tensor, " m"], candidates: Int[Tensor, " k"],
    reference: Int[Tensor, " q"], classes: int, l2: float = RIDGE, newton: int = 12,
) -> tuple[Float[Tensor, " k"], Float[Tensor, "n c"]]:  # fmt: skip
    """What adding each candidate with its true label does to the reference loss, by training again; and p before it.

    x with the bias column, in float64. All candidates are trained at once by damped Newton steps from the present
    optimum; the objective is mean cross entropy over m rows plus l2/2 ‖W‖², a candidate adds 1/m of its own.
    """
    def train(extra: Tensor | None, w: Tensor) -> Tensor:
        rows = x[labelled].expand(len(w), -1, -1)
        target = torch.nn.functional.one_hot(y[labelled], classes).to(x.dtype).expand(len(w), -1, -1)
        if extra is not None:
            rows = torch.cat([rows, x[extra][:, None]], 1)
            target = torch.cat([target, torch.nn.functional.one_hot(y[extra], classes).to(x.dtype)[:, None]], 1)
        for _ in range(newton):
            p = torch.softmax(rows @ w, 2)
            g = (rows.mT @ (p - target)) / len(labelled) + l2 * w
            share = torch.full((rows.shape[1],), 1 / len(labelled), dtype=x.dtype)
            h = torch.stack([hessian(r, q, l2, share) for r, q in zip(rows, p, strict=True)])
            w = w - torch.linalg.solve(h, g.flatten(1)).view_as(w)
        return w

    def loss(w: Tensor) -> Tensor:
        return -(x[reference] @ w).log_softmax(2)[:, torch.arange(len(reference)), y[reference]].mean(1)

    w = train(None, x.new_zeros(1, x.shape[1], classes))
    after = train(candidates, w.expand(len(candidates), -1, -1))
    return loss(after) - loss(w), torch.softmax(x @ w[0], 1)
