"""DDFA: classes found without labels from how their shares move between domains (Roberts et al., NeurIPS 2022).

Latent label shift: p(x | y) is the same in every domain, p(y | d) is not. With finite inputs this is topic modelling:
inputs are words, domains documents, labels topics. Continuous inputs become words by clustering p(d | x).

Everything is a stack of b problems: words and domains (b, n), matrices (b, m, r) for m words and r domains.
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor


def domain_marginals(
    classes: int, domains: int, alpha: float, *, generator: Generator, condition: float = 8.0, tries: int = 10_000
) -> Float[Tensor, "k r"]:
    """Label marginals p(y | d), one column a domain, drawn from a Dirichlet with ``alpha / classes`` for every class.

    Section 6: redrawn until the condition number is at most ``condition`` (4 to 8 for CIFAR-10), or else the best of
    ``tries``. Small ``alpha`` makes domains of nearly one class: diverse, and easy. As in the released code the paper's
    alpha is the sum of the Dirichlet's parameters.

    Raises ValueError for fewer domains than classes, and alpha not above 0.
    """
    if not 2 <= classes <= domains:
        raise ValueError(f"domains must be at least the classes, which are at least 2, got {domains} and {classes}")
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be positive, got {alpha}")
    shape = torch.full((min(tries, 200), domains, classes), alpha / classes, dtype=torch.float64)
    best, least = None, float("inf")
    for _ in range(-(-tries // len(shape))):
        drawn = torch._standard_gamma(shape, generator=generator).clamp_min(1e-12)
        drawn = (drawn / drawn.sum(2, keepdim=True)).mT
        numbers = torch.linalg.cond(drawn)
        fine = (numbers <= condition).nonzero()
        at = int(fine[0, 0]) if len(fine) else int(numbers.argmin())
        if float(numbers[at]) < least or best is None:
            best, least = drawn[at], float(numbers[at])
        if least <= condition:
            break
    return best.float()


def word_shares(words: Int[Tensor, "b n"], domains: Int[Tensor, "b n"], m: int, r: int) -> Float[Tensor, "b m r"]:
    """How often each of m words occurs in each of r domains; columns sum to 1: p(w | d).

    A domain without samples has a column of zeros. Raises ValueError for words or domains that are out of range.
    """
    for name, value, limit in (("words", words, m), ("domains", domains, r)):
        if value.numel() and not (0 <= int(value.min()) and int(value.max()) < limit):
            got = f"{int(value.min())} … {int(value.max())}"
            raise ValueError(f"{name} must lie in 0 … {limit - 1}, got {got}")
    counts = torch.zeros(len(words), m * r, device=words.device)
    counts.scatter_add_(1, words * r + domains, torch.ones_like(words, dtype=counts.dtype))
    counts = counts.view(-1, m, r)
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


def nmf(
    v: Float[Tensor, "b m r"], k: int, *, generator: Generator, restarts: int = 10, iterations: int = 300
) -> tuple[Float[Tensor, "b m k"], Float[Tensor, "b k r"]]:
    """v ≈ w h without negative entries: Lee and Seung's multiplicative updates of the squared error, batched.

    Starts are drawn as scikit-learn's ``init="random"`` draws them; of ``restarts`` the one with the least error is
    kept. Departure from the released code, which takes scikit-learn's default solver and one start: many problems and
    starts run at once, and the objective has local optima.

    Raises ValueError for negative entries, k or restarts below 1.
    """
    if k < 1 or restarts < 1 or iterations < 1:
        raise ValueError(f"k, restarts and iterations must be at least 1, got {k}, {restarts} and {iterations}")
    if v.numel() and float(v.min()) < 0:
        raise ValueError(f"v must not be negative, got {float(v.min()):.3g}")
    b, m, r = v.shape
    tiny = torch.finfo(v.dtype).eps
    scale = (v.mean((1, 2)) / k).sqrt().view(b, 1, 1, 1)
    draw = lambda *shape: torch.randn(shape, generator=generator, device=v.device).abs_().to(v)  # noqa: E731
    w, h = scale * draw(b, restarts, m, k), scale * draw(b, restarts, k, r)
    data = v[:, None]
    for _ in range(iterations):
        w = w * (data @ h.mT) / (w @ (h @ h.mT)).clamp_min(tiny)
        h = h * (w.mT @ data) / ((w.mT @ w) @ h).clamp_min(tiny)
    best = (data - w @ h).square().sum((2, 3)).argmin(1)
    at = torch.arange(b, device=v.device)
    return w[at, best], h[at, best]


def anchor_words(v: Float[Tensor, "b m r"], k: int, least: float = 0.0) -> Float[Tensor, "b k r"]:
    """p(y | d) by anchor words: exact where each class has a word that no other class uses (theorem for finite inputs).

    A word's row, scaled to sum 1, is p(d | w), a mixture of the k rows p(d | y) with weights p(y | w). Anchors are the
    corners of that simplex: the longest row, then in turn the longest after projecting out those found (successive
    projections). Then p(y | w) by least squares, and p(y | d) from it. Domains weigh alike.

    least  words that are rarer than this share of all are no anchors: with few samples p(d | w) is mostly noise
    """
    totals = v.sum(2, keepdim=True)
    rows = v / totals.clamp_min(1e-12)
    left, corners = rows.clone(), []
    for _ in range(k):
        size = torch.where(totals[..., 0] > least * v.shape[2], left.square().sum(2), -1)
        at = size.argmax(1)[:, None, None].expand(-1, 1, v.shape[2])
        corners.append(rows.gather(1, at))
        axis = left.gather(1, at)
        axis = axis / axis.norm(dim=2, keepdim=True).clamp_min(1e-12)
        left = left - (left @ axis.mT) @ axis
    corners = torch.cat(corners, 1)  # p(d | y), (b, k, r)
    mixing = rows @ torch.linalg.pinv(corners)  # p(y | w), (b, m, k)
    share = (mixing * totals).sum(1)[..., None] / v.shape[2]  # p(y)
    found = (corners * share * v.shape[2]).clamp_min(0)
    return found / found.sum(1, keepdim=True).clamp_min(1e-12)


def label_marginals(
    words: Int[Tensor, "b n"], domains: Int[Tensor, "b n"], m: int, r: int, k: int, *, generator: Generator, **options
) -> Float[Tensor, "b k r"]:
    """p(y | d) from words: factorise p(w | d) = Σ_y p(w | y) p(y | d), section 5. Columns sum to 1, in any order of y.

    The scale of a factor is free, so p(w | y) takes columns of sum 1 and its sums go to the other. ``options`` of
    ``nmf``.
    """
    w, h = nmf(word_shares(words, domains, m, r), k, generator=generator, **options)
    h = h * w.sum(1)[..., None]
    return h / h.sum(1, keepdim=True).clamp_min(1e-12)


def label_posteriors(
    p_domain: Float[Tensor, "b n r"], marginals: Float[Tensor, "b k r"], domains: Int[Tensor, "b n"] | None = None
) -> Float[Tensor, "b n k"]:
    """p(y | x), or with the samples' domains p(y | x, d): Bayes' rule for what the discriminator says, section 5.

    p_domain   p(d | x), rows sum to 1, for domains of equal size
    marginals  p(y | d), columns sum to 1
    domains    of each sample; None where it is not known

    p(d | x) = Σ_y p(d | y) p(y | x) is solved by the pseudo-inverse and, as in the released code, not clipped: entries
    may be negative. p(y | x, d) is proportional to p(d | y) p(y | x).
    """
    p_d_given_y = marginals / marginals.sum(2, keepdim=True).clamp_min(1e-12)  # (b, k, r)
    found = p_domain @ torch.linalg.pinv(p_d_given_y)
    if domains is None:
        return found
    return found * p_d_given_y.mT.gather(1, domains[..., None].expand(-1, -1, found.shape[2]))


def matched_error(found: Float[Tensor, "b k r"], truth: Float[Tensor, "b k r"]) -> Float[Tensor, " b"]:
    """Mean absolute error of p(y | d) after the permutation of classes that makes it least."""
    from scipy.optimize import linear_sum_assignment

    cost = (found[:, :, None] - truth[:, None]).abs().mean(3)  # (b, k, k)
    out = []
    for table in cost.double().cpu().numpy():
        rows, columns = linear_sum_assignment(table)
        out.append(table[rows, columns].mean())
    return torch.tensor(out, dtype=torch.float32)
