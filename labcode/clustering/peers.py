"""Generic solvers of the transport problems, from SciPy: slow, and knowing nothing of scaling."""

import time
import warnings

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .transport import Transport, partial_transport


def linear_programme(cost: Float[Tensor, "n k"]) -> float:
    """The smallest cost of a plan with rows 1/n and columns 1/k, without entropy: SeLa's problem as λ grows."""
    from scipy.optimize import linprog

    n, k = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones((1, k))), np.kron(np.ones((1, n)), np.eye(k))
    masses = np.r_[np.full(n, 1 / n), np.full(k, 1 / k)]
    return float(linprog(cost.cpu().numpy().ravel(), A_eq=np.vstack([rows, columns]), b_eq=masses).fun)


def convex_solution(found: Transport) -> tuple[float, Float[Tensor, "n k"]]:
    """The same problem as ``found`` by sequential quadratic programming (SciPy's SLSQP): its optimum and its plan."""
    from scipy.optimize import minimize

    cost, eps, rows, columns, weight = (t.cpu().numpy() if isinstance(t, Tensor) else t for t in found.problem)
    (n, k), soft = cost.shape, np.isfinite(weight)
    pull = np.where(soft, weight, 0)

    def value(p):
        p = np.maximum(p.reshape(n, k), 1e-300)
        kept = p.sum(0)
        kl = kept * np.log(kept / columns) - kept + columns
        return (p * cost).sum() + eps * (p * (np.log(p) - 1)).sum() + (pull * kl).sum()

    def slope(p):
        p = np.maximum(p.reshape(n, k), 1e-300)
        return (cost + eps * np.log(p) + pull * np.log(p.sum(0) / columns)).ravel()

    a = np.vstack([np.kron(np.eye(n), np.ones((1, k))), np.kron(np.ones((1, n)), np.eye(k))[~soft]])
    b = np.concatenate([rows, columns[~soft]])
    if not soft.any():  # the last follows from the others
        a, b = a[:-1], b[:-1]
    equal = dict(type="eq", fun=lambda p: a @ p - b, jac=lambda p: a)
    start = np.outer(rows, columns / columns.sum()).ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = minimize(value, start, jac=slope, method="SLSQP", bounds=[(1e-12, None)] * (n * k), constraints=equal,
                        options=dict(maxiter=500, ftol=1e-14))  # fmt: skip
    return float(done.fun), torch.from_numpy(done.x.reshape(n, k))


def solver_times(sizes: tuple[int, ...], k: int = 3, mass: float = 0.5) -> dict[str, list[float]]:
    """Processor seconds of scaling and of the generic solver for partial transport of n samples, for each n."""
    taken = {"scaling": [], "generic": []}
    for n in sizes:
        cost = -2 * torch.randn(n, k, generator=torch.Generator().manual_seed(n)).double().log_softmax(1)
        begin = time.process_time()
        found = partial_transport(cost, mass, tolerance=1e-7, rounds=20000)
        middle = time.process_time()
        convex_solution(found)
        for name, seconds in (("scaling", middle - begin), ("generic", time.process_time() - middle)):
            taken[name].append(seconds)
    return taken
