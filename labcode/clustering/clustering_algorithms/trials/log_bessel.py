"""Experiments of the logarithm of Bessel functions: terms, seconds, concentrations, clusters on the sphere."""

import time

import torch
from torch import Tensor

from ....evaluate.clusters import ari
from ...many_kmeans import many_kmeans
from .. import log_bessel
from ..log_bessel import bessel_ratio, log_iv, log_kv, regions
from ..tables import bessel_table, digit_rows, draws, small_digits
from ..vmf_mixture import fit_kappa, log_vmf_constant, sample_cosines, sample_vmf, vmf_mixture


def truncated(terms: int) -> dict[str, float]:
    """log10 of the largest error against mpmath, in the order's region, with so many terms of its expansion."""
    t = bessel_table()
    t = t[regions(t[:, 0], t[:, 1])["order"]]
    whole = log_bessel.TERMS["order"]
    log_bessel.TERMS["order"] = terms
    try:
        errors = {
            name: (f(t[:, 0], t[:, 1]) - t[:, c]).abs() / torch.maximum(t[:, c].abs(), t[:, c + 1].abs())
            for name, f, c in (("log I", log_bessel.log_iv, 2), ("log K", log_bessel.log_kv, 4))
        }
    finally:
        log_bessel.TERMS["order"] = whole
    return {name: float(e.max().clamp_min(1e-17).log10()) for name, e in errors.items()}


def bessel_seconds(seed: int, n: int, device) -> dict[str, float]:
    """Microseconds for each of n elements: ours, SciPy's, and each expression alone on arguments of its own region."""
    import numpy as np
    from scipy import special

    g = draws(26, seed)
    v, x = (10 ** (8 * torch.rand(n, generator=g, dtype=torch.float64) - 4) for _ in range(2))
    there = v.to(device), x.to(device)
    clock = time.process_time if torch.device(device).type == "cpu" else time.perf_counter

    def seconds(function, *arguments):
        took = []
        for _ in range(3):
            begun = clock()
            value = function(*arguments)
            if isinstance(value, Tensor) and value.is_cuda:
                torch.cuda.synchronize()
            took.append(clock() - begun)
        return 1e6 * min(took) / n

    with np.errstate(all="ignore"):
        found = {
            "ours, I": seconds(log_iv, *there),
            "SciPy, I": seconds(lambda a, b: np.log(special.ive(a, b)) + b, v.numpy(), x.numpy()),
            "ours, K": seconds(log_kv, *there),
            "SciPy, K": seconds(lambda a, b: np.log(special.kve(a, b)) - b, v.numpy(), x.numpy()),
        }
    own = {"argument": (5.0, 100.0), "order": (100.0, 100.0), "series": (5.0, 10.0)}

    def fixed(value):
        return torch.full((n,), value, dtype=torch.float64, device=device)

    return found | {
        name: seconds(lambda a, b, e=name: log_iv(a, b, e), fixed(a), fixed(b)) for name, (a, b) in own.items()
    }


def recovered_kappa(p: int, seed: int, n: int = 400) -> dict[str, float]:
    """Relative error of κ = p/4 from the mean of n cosines, and whether SciPy's ratio is a number."""
    import numpy as np
    from scipy import special

    kappa = p / 4
    fitted = float(fit_kappa(sample_cosines(n, p, kappa, draws(27, seed, p)).mean(), p))
    with np.errstate(all="ignore"):
        ratio = special.ive(p / 2, kappa) / special.ive(p / 2 - 1, kappa)
    return {"error": abs(fitted / kappa - 1), "SciPy has it": float(np.isfinite(ratio) and ratio > 0)}


def feature_kappa(p: int, seed: int, n: int = 200) -> dict[str, float]:
    """Rectified random projections of digits to p dimensions as directions: length, κ, how far A(κ) is from it."""
    x, _ = small_digits()
    g = draws(28, seed)
    f = torch.relu(x[:n] @ torch.randn(x.shape[1], p, generator=g)).double()
    length = torch.nn.functional.normalize(f, dim=1).mean(0).norm()
    kappa = fit_kappa(length, p, steps=4)
    return {
        "length": float(length),
        "kappa": float(kappa),
        "miss": float((bessel_ratio(p / 2 - 1, kappa) - length).abs()),
    }


def mpmath_seconds(seed: int, p: int = 2048) -> dict[str, float]:
    """Milliseconds for a fit of κ by two Newton steps: alone, in a batch of 2,000, and with mpmath."""
    import mpmath

    lengths = torch.linspace(0.1, 0.6, 2000, dtype=torch.float64)
    found = {}
    for name, some in (("ours, one", lengths[seed % 100 :][:1]), ("ours, in a batch", lengths)):
        fit_kappa(some, p)
        begun = time.process_time()
        fit_kappa(some, p)
        found[name] = 1e3 * (time.process_time() - begun) / len(some)
    begun, each = time.process_time(), lengths[seed % 100 :: 100].tolist()
    for r in each:
        kappa = r * (p - r * r) / (1 - r * r)
        for _ in range(2):
            a = mpmath.besseli(p / 2, kappa) / mpmath.besseli(p / 2 - 1, kappa)
            kappa -= (a - r) / (1 - a * a - (p - 1) / kappa * a)
    return found | {"mpmath": 1e3 * (time.process_time() - begun) / len(each)}


def on_the_sphere(seed: int, split: tuple, n: int) -> dict[str, float]:
    """ARI of the mixture, of the mixture without normaliser and of k-means: planted groups and digits."""
    g, found = draws(29, seed), {}
    mu = torch.nn.functional.normalize(torch.randn(3, 6, generator=g, dtype=torch.float64), dim=1)
    mu[1] = torch.nn.functional.normalize(mu[0] + 0.5 * mu[1], dim=0)  # one tight group beside a loose one
    y = torch.arange(n) % 3
    planted = torch.cat(
        [sample_vmf(int((y == c).sum()), mu[c], kappa, g) for c, kappa in enumerate((5.0, 150.0, 40.0))]
    )
    for name, x, classes, k in (
        ("planted", planted, y.sort().values, 3),
        ("digits", *digit_rows(n, seed, split, 24, unit=True), 10),
    ):
        plain = many_kmeans(x, k, restarts=6, generator=g)
        found[f"k-means, {name}"] = ari(plain.labels[plain.best], classes)
        for arm, normaliser in (("mixture", True), ("no normaliser", False)):
            fitted = vmf_mixture(x, k, restarts=6, generator=g, normaliser=normaliser)
            joint = fitted.log_joint(x)[fitted.best]
            if not normaliser:
                joint = joint - log_vmf_constant(x.shape[1], fitted.kappa[fitted.best])
            found[f"{arm}, {name}"] = ari(joint.argmax(1), classes)
    return found
