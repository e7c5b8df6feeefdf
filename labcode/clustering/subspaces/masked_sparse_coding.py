"""Masking in sparse coding (Chidambaram et al., 2023): predict the entries of a signal that its code did not see.

Everything takes stacks of problems: dictionaries (m, p, d), signals (m, n, d), one training for all.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ...loss import check_positive
from ...train import allowed

Atoms = Float[Tensor, "m p d"]
Signals = Float[Tensor, "m n d"]


def planted_dictionary(p: int, d: int, generator: Generator) -> Float[Tensor, "p d"]:
    """A true dictionary: p atoms of length 1 in random directions of R^d."""
    return F.normalize(torch.randn(p, d, generator=generator), dim=1)


def sparse_signals(a: Float[Tensor, "p d"], n: int, k: int, noise: float, generator: Generator) -> Float[Tensor, "n d"]:
    """y = z A + ε: k atoms a signal with Gaussian weights, z of length 1, and noise of this deviation an entry.

    Section 4 of the paper. Raises ValueError for a k outside 1 … p and negative noise.
    """
    if not 1 <= k <= len(a):
        raise ValueError(f"k must be between 1 and the {len(a)} atoms of a, got {k}")
    if noise < 0:
        raise ValueError(f"noise must be at least 0, got {noise}")
    chosen = torch.rand(n, len(a), generator=generator).topk(k, dim=1).indices
    weights = F.normalize(torch.randn(n, k, generator=generator), dim=1)
    y = torch.zeros(n, len(a)).scatter_(1, chosen, weights) @ a
    return y + noise * torch.randn(y.shape, generator=generator)


@torch.no_grad()
def omp(y: Signals, b: Atoms, k: int) -> tuple[Tensor, Float[Tensor, "m n k"]]:
    """Orthogonal matching pursuit: k times the atom nearest to what is left, then all weights anew by least squares.

    Pati et al. (1993), for all signals of all problems at once.

    y  signals (m, n, d)
    b  atoms (m, p, d); those of length 0 are never taken. Others are taken as they are: a masked atom is shorter, and
       as in the paper's code and scikit-learn's it is not brought to length 1 again
    k  atoms a signal, 1 … p

    Returns the chosen atoms (m, n, k) and their weights. A signal that fewer atoms explain gets weights near 0.
    """
    if not 1 <= k <= b.shape[1]:
        raise ValueError(f"k must be between 1 and the {b.shape[1]} atoms of b, got {k}")
    match = y @ b.mT  # (m, n, p)
    taken, left, chosen = torch.zeros_like(match, dtype=torch.bool), y, []
    for _ in range(k):
        chosen.append((left @ b.mT).abs().masked_fill(taken, -1.0).argmax(2))
        taken.scatter_(2, chosen[-1][..., None], True)
        which = torch.stack(chosen, 2)
        atoms = pick(b, which)  # (m, n, j, d)
        gram = atoms @ atoms.mT + 1e-7 * torch.eye(len(chosen), dtype=b.dtype, device=b.device)
        weights = torch.linalg.solve_ex(gram, match.gather(2, which)[..., None]).result[..., 0]
        left = y - (weights[..., None] * atoms).sum(2)
    return which, weights


def pick(b: Atoms, which: Tensor) -> Float[Tensor, "m n k d"]:
    """The atoms named by ``which`` (m, n, k) of each problem's dictionary."""
    flat = which.flatten(1)[..., None].expand(-1, -1, b.shape[2])
    return b.gather(1, flat).view(*which.shape, b.shape[2])


def coding_loss(
    y: Signals, b: Atoms, k: int, seen: Bool[Tensor, "m d"] | None = None, hidden: Bool[Tensor, "m d"] | None = None
) -> Float[Tensor, " m"]:
    """Mean over signals of Σ over hidden entries of (y - z B)²; the code z is made from the seen entries alone.

    Eq. 4 (reconstruction: all entries are seen and all are counted) and eq. 5 (masking: hidden are those not seen).
    As in the paper's code the code z has no gradient, the atoms it weighs have.

    seen, hidden  which entries (m, d); None is all
    """
    inside = y if seen is None else y * seen[:, None]
    part = b if seen is None else b * seen[:, None]
    which, weights = omp(inside, part.detach(), k)
    error = (y - (weights[..., None] * pick(b, which)).sum(2)).square()
    return (error if hidden is None else error * hidden[:, None]).sum(2).mean(1)


def learn_dictionary(
    y: Signals, start: Atoms, k: int, keep: Float[Tensor, " m"], *, epochs: int, batch_size: int, lr: float,
    generator: Generator,
) -> Atoms:  # fmt: skip
    """Dictionaries learnt from a fixed set of signals by Adam, each atom brought to length 1 after every step.

    keep   for each problem the share of entries that its codes see: 0.9 in the paper, and 1 is plain reconstruction,
           which counts the entries that it saw
    lr     > 0; the paper's 1e-3. Problems do not share anything: Adam works entry by entry

    Departure: an epoch's batches are drawn anew; the paper's code keeps their order.
    Raises ValueError for shares outside (0, 1].
    """
    check_positive(lr=lr)
    if not bool(((keep > 0) & (keep <= 1)).all()):
        raise ValueError(f"keep must hold shares in (0, 1], got {keep.tolist()}")
    m, n, d = y.shape
    b = start.clone().requires_grad_()
    adam, count = torch.optim.Adam([b], lr=lr), (keep * d).round().to(torch.int64)[:, None]
    batches = (order[at : at + batch_size] for _ in range(allowed(epochs)) for order in
               [torch.randperm(n, generator=generator)] for at in range(0, n, batch_size))  # fmt: skip
    for index in batches:
        place = torch.rand(d, generator=generator).argsort().argsort().to(y.device)
        seen = place[None] < count  # one order of the entries for all problems
        hidden = ~seen | (count == d)
        adam.zero_grad(set_to_none=True)
        coding_loss(y[:, index], b, k, seen, hidden).sum().backward()
        adam.step()
        with torch.no_grad():
            b.copy_(b / b.norm(dim=2, keepdim=True).clamp_min(1e-12))  # a padded atom stays 0
    return b.detach()


def recovery_error(a: Float[Tensor, "p d"] | Atoms, b: Atoms, euclidean: bool = False) -> Float[Tensor, " m"]:
    """Mean over true atoms of the distance to the nearest learnt one, of either sign; 0 is perfect.

    Section 4: 1 - |cosine|, or the Euclidean distance min ‖a ∓ b‖ of atoms of length 1.
    """
    cosine = (F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT).abs().amax(-1).clamp(max=1)
    return (2 - 2 * cosine).sqrt().mean(-1) if euclidean else (1 - cosine).mean(-1)


def compare_objectives(
    seed: int, sizes: Sequence[int], noises: Sequence[float], *, p: int, d: int, k: int, n: int, epochs: int,
    lr: float = 5e-3, true_start: bool = False,
) -> dict[str, dict[str, list[float]]]:  # fmt: skip
    """Plant p atoms in R^d and learn them by reconstruction and by masking, for each size of dictionary and noise.

    All problems are one stack, two a size: a smaller dictionary is padded with atoms of length 0. Both objectives
    get the same signals and the same start.

    sizes, noises  learnt atoms and noise an entry, one a problem
    n, k           signals, and atoms a signal
    true_start     begin with the true atoms and noisy signals, in place of noisy signals alone

    Returns "cosine" and "euclidean", the recovery errors, and "loss", that of reconstruction on 200 signals; in each
    "reconstruct" and "mask" with one value a problem.
    """
    g = torch.Generator().manual_seed(seed)
    a, starts, signals = planted_dictionary(p, d, g), [], []
    for size, noise in zip(sizes, noises, strict=True):
        fresh = torch.Generator().manual_seed(1000 + seed)
        signals += 2 * [sparse_signals(a, n, k, noise, fresh)]
        b = F.normalize(sparse_signals(a, max(sizes), k, noise, fresh), dim=1)
        b[: p * true_start] = a[: p * true_start]
        starts += 2 * [b * (torch.arange(len(b)) < size)[:, None]]
    y, keep = torch.stack(signals), torch.tensor([1.0, 0.9] * len(sizes))
    b = learn_dictionary(y, torch.stack(starts), k, keep, epochs=epochs, batch_size=100, lr=lr, generator=g)
    found = {"cosine": recovery_error(a, b), "euclidean": recovery_error(a, b, True)}
    found["loss"] = coding_loss(y[:, :200], b, k)
    return {name: dict(zip(("reconstruct", "mask"), v.view(-1, 2).T.tolist(), strict=True))
            for name, v in found.items()}  # fmt: skip


def overfitting_dictionary(a: Float[Tensor, "p d"], copies: int, angle: float, generator: Generator) -> Tensor:
    """Each atom surrounded by copies that lean by this angle (radians) in random directions: (p · copies, d).

    A dictionary as in the paper's theorem 3.2: over-realised, without the true atoms, and better at reconstruction
    than they are, since with each signal it may take the copy that leans towards the noise. Ours for the illustration.
    """
    p, d = a.shape
    side = torch.randn(p, copies, d, generator=generator)
    side = F.normalize(side - (side @ a[:, :, None]) * a[:, None], dim=2)
    return (torch.cos(torch.tensor(angle)) * a[:, None] + torch.sin(torch.tensor(angle)) * side).reshape(-1, d)
