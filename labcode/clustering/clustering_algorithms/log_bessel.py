"""log I_v(x) and log K_v(x) for real orders, without ever leaving the logarithm; vectorised, with gradients."""

import functools
import math
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

SMALL_ORDER, SMALL_ARGUMENT = 20.0, 30.0  # below both, no expansion is good to the last digits
TERMS = {"argument": 20, "order": 13, "series": 75, "nodes": 64}

# 1/Γ(1 + z) = Σ c_j z^j, computed with mpmath; twenty suffice for |z| ≤ 1/2
RECIPROCAL_GAMMA = (
    1.0, 0.5772156649015329, -0.6558780715202539, -0.04200263503409524, 0.16653861138229148, -0.04219773455554433,
    -0.009621971527876973, 0.0072189432466631, -0.0011651675918590652, -0.00021524167411495098, 0.0001280502823881162,
    -2.013485478078824e-05, -1.2504934821426706e-06, 1.133027231981696e-06, -2.056338416977607e-07,
    6.116095104481416e-09, 5.002007644469223e-09, -1.18127457048702e-09, 1.0434267116911005e-10, 7.782263439905071e-12,
)  # fmt: skip


def log_iv(v: Float[Tensor, "*any"] | float, x: Float[Tensor, "*any"] | float, expression: str | None = None) -> Tensor:
    """log I_v(x), the modified Bessel function of the first kind, in float64.

    Plesner, Sørensen and Hauberg (2024): the region of (v, x) chooses the expression.

    v, x        orders and arguments ≥ 0, real, broadcast; x up to 1e300 or v up to 1e150
    expression  "argument", "order" or "series": this one everywhere, instead of the best for each element

    Backward error a few units in the last place: the result is that of an argument as near to x. Differentiable in x
    and in v, any number of times. Departs from the paper: the expansion for large orders is written in √(v² + x²), so
    that it also serves small orders at large arguments, and the power series is summed by the ratio of its terms, all
    positive, before one logarithm is taken.

    Raises ValueError for negative or NaN orders and arguments, and for an unknown expression.
    """
    return _by_region(v, x, {"argument": _argument_i, "order": _order_i, "series": _series_i}, expression)


def log_kv(v: Float[Tensor, "*any"] | float, x: Float[Tensor, "*any"] | float, expression: str | None = None) -> Tensor:
    """log K_v(x), the modified Bessel function of the second kind, in float64; arguments as for ``log_iv``.

    Where no expansion is good the paper integrates ∫ exp(-x cosh t) cosh(vt) dt on log scale, and so do we for x > 1;
    at x ≤ 1 we take Temme's series (1975) for |v| ≤ 1/2 and the recurrence of ratios upwards, which needs no longer
    interval as x shrinks. x from 1e-300. Infinite at 0.
    """
    return _by_region(v, x, {"argument": _argument_k, "order": _order_k, "series": _between_k}, expression)


def bessel_ratio(v: Float[Tensor, "*any"] | float, x: Float[Tensor, "*any"] | float) -> Tensor:
    """I_{v+1}(x) / I_v(x) in float64, without the difference of two large logarithms; in [0, 1).

    It is the derivative of log(I_v(x) x^-v): term by term of the same expansions. x/(v + √(v² + x²)) leads at large
    orders. The mean resultant length of a von Mises–Fisher distribution in p dimensions is this at v = p/2 - 1.
    """
    v, x = _pair(v, x)
    small = _small(v, x) | (x == 0)

    def order(v, x):
        r = torch.hypot(v, x)
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            slope = torch.autograd.grad(_order_sum(v.detach(), torch.hypot(v.detach(), at), 1).log().sum(), at)[0]
        return x / (v + r) - x / (2 * r.square()) + slope

    def series(v, x):
        first, second = _power_sums(v, x)
        return second * 2 / x.clamp_min(1e-300)

    return _assemble(v, x, [(~small, order), (small, series)])


# ---- large arguments: Hankel's expansion, few operations


def _argument_sum(v: Tensor, x: Tensor, sign: int) -> Tensor:
    """Σ_k (∓1)^k a_k(v) / x^k with a_k = Π_j (4v² - (2j-1)²) / (k! 8^k)."""
    term = total = torch.ones_like(x)
    four = 4 * v.square()
    for k in range(1, TERMS["argument"] + 1):
        term = term * (four - (2 * k - 1) ** 2) / (8 * k * x) * (-sign)
        total = total + term
    return total


def _argument_i(v: Tensor, x: Tensor) -> Tensor:
    return x - 0.5 * torch.log(2 * math.pi * x) + _argument_sum(v, x, 1).log()


def _argument_k(v: Tensor, x: Tensor) -> Tensor:
    return -x + 0.5 * torch.log(math.pi / (2 * x)) + _argument_sum(v, x, -1).log()


# ---- large orders: Debye's expansion, uniform in x


@functools.cache
def debye_polynomials(terms: int) -> tuple[tuple[float, ...], ...]:
    """Coefficients of p_k with u_k(t) = t^k p_k(t²), k = 0 … terms, from exact fractions.

    u_{k+1} = t²(1 - t²)/2 u_k' + 1/8 ∫_0^t (1 - 5s²) u_k(s) ds, u_0 = 1 (Abramowitz and Stegun 9.3.10).
    """
    u, found = [Fraction(1)], []
    for k in range(terms + 1):
        found.append(tuple(float(c) for c in u[k::2]))
        new = [Fraction(0)] * (len(u) + 3)
        for power, c in enumerate(u):
            new[power + 1] += c * power / 2 + c / (8 * (power + 1))
            new[power + 3] -= c * power / 2 + 5 * c / (8 * (power + 3))
        u = new
    return tuple(found)


def _order_sum(v: Tensor, r: Tensor, sign: int) -> Tensor:
    """Σ_k (±1)^k u_k(t) / v^k with t = v/r: since u_k has the factor t^k, it is Σ_k (±1)^k p_k(t²) / r^k."""
    t2, step = (v / r).square(), sign / r
    total = torch.zeros_like(r)
    for coefficients in reversed(debye_polynomials(TERMS["order"])):
        value = torch.full_like(t2, coefficients[-1])
        for c in coefficients[-2::-1]:
            value = torch.addcmul(torch.full_like(t2, c), value, t2)
        total = torch.addcmul(value, total, step)
    return total


def _order_i(v: Tensor, x: Tensor) -> Tensor:
    r = torch.hypot(v, x)
    return r - v * torch.asinh(v / x) - 0.5 * torch.log(2 * math.pi * r) + _order_sum(v, r, 1).log()


def _order_k(v: Tensor, x: Tensor) -> Tensor:
    r = torch.hypot(v, x)
    return v * torch.asinh(v / x) - r + 0.5 * torch.log(math.pi / (2 * r)) + _order_sum(v, r, -1).log()


# ---- neither large: a series and an integral


def _power_sums(v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_{m>0} t_m and (Σ m t_m) / (1 + Σ t_m), t_m = (x²/4)^m / (m! (v+1)…(v+m)): all positive, no digit is lost."""
    quarter = x.square() / 4
    term = torch.ones_like(x)
    total = counted = torch.zeros_like(x)
    for m in range(1, TERMS["series"] + 1):
        term = term * quarter / (m * (v + m))
        total, counted = total + term, counted + m * term
    return total, counted / (1 + total)


def _series_i(v: Tensor, x: Tensor) -> Tensor:
    return torch.xlogy(v, x / 2) - _lgamma1p(v) + _power_sums(v, x)[0].log1p()


def _lgamma1p(z: Tensor) -> Tensor:
    """log Γ(1 + z), to the last digits of a small z too."""
    near = z.clamp_max(0.5)
    tail = torch.zeros_like(z)
    for c in reversed(RECIPROCAL_GAMMA[1:]):
        tail = tail * near + c
    return torch.where(z < 0.5, -torch.log1p(near * tail), torch.lgamma(z + 1))


def _between_k(v: Tensor, x: Tensor) -> Tensor:
    near = (x <= 1) & (x > 0)

    def infinite(v, x):
        return torch.full_like(x, torch.inf)

    return _assemble(v, x, [(near, _temme_k), (x > 1, _integral_k), (x == 0, infinite)])


def _integral_k(v: Tensor, x: Tensor) -> Tensor:
    """log ∫_0^∞ exp(-x cosh t) cosh(vt) dt by the trapezoidal rule, which converges geometrically here."""
    with torch.no_grad():  # beyond ``end`` the integrand is below e^-40 of its largest value
        end = torch.acosh(1 + 40 / x)
        for _ in range(3):
            end = torch.acosh(1 + (40 + v * end) / x)
    step = end / TERMS["nodes"]
    t = step[:, None] * torch.arange(TERMS["nodes"] + 1, dtype=x.dtype, device=x.device)
    value = torch.exp(-2 * x[:, None] * torch.sinh(t / 2).square()) * torch.cosh(v[:, None] * t)
    return (step * (value.sum(1) - value[:, 0] / 2)).log() - x


def _temme_k(v: Tensor, x: Tensor) -> Tensor:
    """Temme's series for K_μ and K_{μ+1}, |μ| ≤ 1/2, then log K_{μ+n} = log K_μ + Σ log(K_{μ+j+1} / K_{μ+j})."""
    n = torch.floor(v.detach() + 0.5)
    mu = v - n
    c = RECIPROCAL_GAMMA
    squares = mu.square()
    odd = sum(-c[j] * squares ** ((j - 1) // 2) for j in range(len(c) - 1, 0, -2))
    even = sum(c[j] * squares ** (j // 2) for j in range(len(c) - 2, -1, -2))
    plus, minus = even - mu * odd, even + mu * odd  # 1/Γ(1 + μ) and 1/Γ(1 - μ)
    log = torch.log(2 / x)
    e = mu * log
    safe = torch.where(e.abs() < 1e-5, torch.ones_like(e), e)
    sinhc = torch.where(e.abs() < 1e-5, 1 + e.square() / 6, torch.sinh(safe) / safe)
    f = (torch.cosh(e) * odd + sinhc * log * even) / torch.sinc(mu)
    p, q, weight = 0.5 * e.exp() / plus, 0.5 * (-e).exp() / minus, torch.ones_like(x)
    first, second = f, p
    for i in range(1, 15):
        f = (i * f + p + q) / (i * i - squares)
        p, q = p / (i - mu), q / (i + mu)
        weight = weight * x.square() / (4 * i)
        first, second = first + weight * f, second + weight * (p - i * f)
    ratio = second / first * 2 / x
    total = first.log()
    for j in range(int(n.max()) if len(n) else 0):
        total = torch.where(j < n, total + ratio.log(), total)
        ratio = 1 / ratio + 2 * (mu + j + 1) / x
    return total


# ---- which expression where


def regions(v: Tensor, x: Tensor) -> dict[str, Tensor]:
    """Boolean masks of where each expression is used: the cheapest that is good to the last digits."""
    argument = (x >= SMALL_ARGUMENT) & (x >= v.square() / 2)
    small = _small(v, x) | (x == 0)
    return {"argument": argument & ~small, "order": ~argument & ~small, "series": small}


def _small(v: Tensor, x: Tensor) -> Tensor:
    return (v < SMALL_ORDER) & (x < SMALL_ARGUMENT)


def _pair(v, x) -> tuple[Tensor, Tensor]:
    device = next((t.device for t in (v, x) if isinstance(t, Tensor)), None)
    v, x = (torch.as_tensor(t, dtype=torch.float64, device=device) for t in (v, x))
    for name, t in (("v", v), ("x", x)):
        if t.numel() and not bool((t.detach() >= 0).all()):
            raise ValueError(f"{name} must be non-negative, got {float(t.detach().min())}")
    return torch.broadcast_tensors(v, x)


def _by_region(v, x, expressions: dict, only: str | None) -> Tensor:
    if only is not None and only not in expressions:
        raise ValueError(f"expression must be one of {', '.join(expressions)}, got {only!r}")
    v, x = _pair(v, x)
    if only is not None:
        return expressions[only](v.reshape(-1), x.reshape(-1)).view(v.shape)
    return _assemble(v, x, [(mask, expressions[name]) for name, mask in regions(v.detach(), x.detach()).items()])


def _assemble(v: Tensor, x: Tensor, parts) -> Tensor:
    """Each function on the elements of its mask: an expression costs only where it is used."""
    shape, v, x = v.shape, v.reshape(-1), x.reshape(-1)
    out = torch.zeros_like(x)
    for mask, function in parts:
        where = mask.reshape(-1).nonzero()[:, 0]
        if len(where):
            out = out.index_put((where,), function(v[where], x[where]))
    return out.view(shape)
