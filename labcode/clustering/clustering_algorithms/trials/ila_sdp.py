"""Experiments of iLA-SDP: groups of different shape, a start that traps, the relaxation's theorem."""

import torch
from torch import Tensor

from ...gaussian_mixture import gaussian_mixture
from ...many_kmeans import many_kmeans
from ..ila_sdp import ila_sdp, kmeans_sdp, likelihood_affinity, solve_lifted
from ..tables import blobs, draws, shapes
from .common import mistakes, spectral


def shaped(x: Tensor, y: Tensor, k: int, seed: int, starts: int, steps: int, known=None) -> dict[str, float]:
    """Mis-clustering error of six ways from the same rough starts; mean and spread over the starts."""
    g = draws(5, seed)
    rough = many_kmeans(x, k, restarts=starts, generator=g, iterations=2).labels
    em = gaussian_mixture(x, k, restarts=starts, covariance="full", generator=g, start=rough, floor=1e-2)
    ila = ila_sdp(x, k, rough, rounds=3, steps=steps)
    plain = many_kmeans(x, k, restarts=starts, generator=g)
    lifted = kmeans_sdp(x, k, steps)
    rows = many_kmeans(lifted.z[0].float(), k, restarts=3, generator=g)
    em_labels = em.predict(x)
    errors = {
        name: torch.tensor([mistakes(row, y) for row in some])
        for name, some in (("EM", em_labels), ("iLA-SDP", ila.labels))
    }
    found = {
        "k-means": mistakes(plain.labels[plain.best], y),
        "k-means SDP": mistakes(rows.labels[rows.best], y),
        "EM": float(errors["EM"][em.best]),
        "iLA-SDP": float(errors["iLA-SDP"][ila.value.argmax()]),
    }
    found |= {f"{name}, mean of starts": float(e.mean()) for name, e in errors.items()}
    found |= {f"{name}, spread": float(e.std(correction=0)) for name, e in errors.items()}
    if known is None:
        found["spectral"] = mistakes(spectral(x, k, seed), y)
    else:
        found["LA-SDP, known"] = mistakes(solve_lifted(likelihood_affinity(x, known), steps=2 * steps).labels, y)
    return found


def trapped(n: int, d: int, gap: float, seed: int, steps: int) -> dict[str, float]:
    """All methods from one bad start: both centroids in the same group, the other group goes with one of them."""
    x, y, _ = shapes(n, d, gap, seed)
    start = torch.where((y == 0) & (torch.arange(n) % 4 == 0), 1, 0)[None]  # half of group 0 against all the rest
    g = draws(6, seed)
    centres = torch.stack([x[start[0] == c].mean(0) for c in (0, 1)])[None]
    em = gaussian_mixture(x, 2, restarts=1, covariance="full", generator=g, start=start, floor=1e-2)
    return {
        "k-means": mistakes(many_kmeans(x, 2, restarts=1, generator=g, start=centres).labels[0], y),
        "EM": mistakes(em.predict(x)[0], y),
        "iLA-SDP": mistakes(ila_sdp(x, 2, start, rounds=6, steps=steps).labels[0], y),
    }


def recovered(n: int, d: int, gap: float, seed: int, steps: int) -> dict[str, float]:
    """With covariances known: the error, and how far the rounded labels are from the dual bound, as a share of it."""
    x, y, known = shapes(n, d, gap, seed)
    a = likelihood_affinity(x, known)
    solved = solve_lifted(a, steps=steps, tolerance=1e-6)
    member = torch.nn.functional.one_hot(solved.labels, 2).double().T
    value = torch.einsum("ki,kij,kj->k", member, a, member) / member.sum(1).clamp(min=1)
    return {"error": mistakes(solved.labels, y), "gap": float((solved.bound - value.sum()) / solved.bound.abs())}


def equal_shapes(n: int, d: int, gap: float, seed: int, steps: int) -> float:
    """With equal covariances: relative difference of the lifted programme's value and Peng and Wei's."""
    x, _ = blobs(n, 2, d, gap, seed)
    x = x - x.mean(0)
    eye = torch.eye(d, dtype=torch.float64).expand(2, d, d)
    lifted = solve_lifted(likelihood_affinity(x, eye), steps=steps, tolerance=1e-6)
    one = solve_lifted(likelihood_affinity(x, eye[:1]), (2.0,), steps, 1e-6)
    return float((lifted.value - one.value).abs() / one.value.abs())
