"""Data in domains whose label shares differ, the pipeline of DDFA on them, and the clusterings it is held against."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ...clustering.gaussian_mixture import gaussian_mixture
from ...clustering.many_kmeans import many_kmeans
from ...evaluate import clustering_accuracy
from ...nets.stacked import draw_rows, take
from ..training import cross_entropy, predict, train
from .backbone import network, weak
from .lls_ddfa import domain_marginals, label_marginals, label_posteriors, matched_error
from .stage import images_of


@dataclass(frozen=True)
class Domains:
    """b problems: images or points, their true labels (for judging alone) and domains; the same for testing."""

    x: Float[Tensor, "b n p"]
    y: Int[Tensor, "b n"]
    domain: Int[Tensor, "b n"]
    test: Float[Tensor, "b t p"]
    y_test: Int[Tensor, "b t"]
    domain_test: Int[Tensor, "b t"]
    marginals: Float[Tensor, "b k r"]  # p(y | d)

    def to(self, device) -> "Domains":
        """The same on a device."""
        return Domains(*(getattr(self, f.name).to(device) for f in fields(self)))


def blobs(apart: float = 5.0) -> Float[Tensor, "3 2 2"]:
    """The two centres of each of three classes: three places 15 apart, at each two blobs of different classes."""
    corner = 15 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.866]])
    up = torch.tensor([0.0, apart / 2])
    first, second, third = corner
    return torch.stack([
        torch.stack([first - up, second + up]), torch.stack([first + up, third - up]),
        torch.stack([second - up, third + up]),
    ])  # fmt: skip


def misleading_mixture(
    alphas, domains: int = 6, each: int = 400, *, generator: Generator, noise: float = 1.0, apart: float = 5.0
) -> Domains:
    """Three classes in the plane, each made of two blobs far apart, each blob next to one of another class.

    alphas  the Dirichlet's concentration of every problem
    each    samples a domain, for training and again for testing
    apart   of two neighbouring blobs, of standard deviation ``noise``; the three places lie 15 apart
    """
    centres = blobs(apart)
    shares = torch.stack([domain_marginals(3, domains, a, generator=generator) for a in alphas])
    parts = []
    for _ in range(2):
        d = torch.arange(domains).repeat_interleave(each).expand(len(shares), -1)
        drawn = torch.rand(d.shape, generator=generator)
        y = (drawn[..., None] > shares.mT.gather(1, d[..., None].expand(-1, -1, 3)).cumsum(2)[..., :-1]).sum(2)
        which = torch.randint(2, y.shape, generator=generator)
        x = centres[y, which] + noise * torch.randn(*y.shape, 2, generator=generator)
        parts.append((x / 8, y, d))
    return Domains(*parts[0], *parts[1], shares)


def allot(y: Int[Tensor, " n"], shares: Float[Tensor, "k r"], size: int, *, generator: Generator):
    """Places and domains of ``size`` images a domain, its classes as shares says, no image twice."""
    order = torch.randperm(len(y), generator=generator)
    counts = (shares * size).round().long()
    places, domains = [], []
    for c, row in enumerate(counts):
        own = order[y[order] == c]
        if int(row.sum()) > len(own):
            raise ValueError(f"size must leave at most the {len(own)} images of class {c}, got {int(row.sum())}")
        places.append(own[: int(row.sum())])
        domains.append(torch.arange(len(row)).repeat_interleave(row))
    return torch.cat(places), torch.cat(domains)


def digit_domains(
    run, seed: int, alphas, domains: int, *, group: int = 1, draws: int = 1, source=None
) -> list[Domains]:
    """Digits in domains, a problem for each alpha and draw; problems differ in size, so each comes alone (b = 1).

    group   digits that make a class: 1, or 2 for classes of two digits drawn anew in each problem, which look no more
            alike than any other two do, as caterpillar and butterfly of a species
    source  split -> images as rows and digits; None for the scale's own
    """
    splits = [(source or images_of(run))(split) for split in run.splits]
    found = []
    for i, alpha in enumerate(a for a in alphas for _ in range(draws)):
        g = torch.Generator().manual_seed(100_000 + 1000 * seed + i)
        classes = 10 // group
        name = torch.randperm(10, generator=g) // group
        shares = domain_marginals(classes, domains, alpha, generator=g)
        parts = []
        for x, y in splits:
            y = name[y]
            most = float((torch.bincount(y, minlength=classes) / shares.sum(1)).min())
            places, d = allot(y, shares, int(0.97 * most) - 1, generator=g)
            parts += [x[places][None], y[places][None], d[None]]
        found.append(Domains(*(p.to(run.device) for p in parts), shares[None].to(run.device)))
    return found


def padded(problems: list[Domains]) -> tuple[Domains, Int[Tensor, " b"]]:
    """Problems of different sizes as one stack: training parts are filled up by drawing rows again, tests are cut."""
    n, t = max(p.x.shape[1] for p in problems), min(p.test.shape[1] for p in problems)
    rows = []
    for i, p in enumerate(problems):
        g = torch.Generator().manual_seed(i)
        m = p.x.shape[1]
        more = torch.cat([torch.randperm(m, generator=g), torch.randint(m, (n - m,), generator=g)]).to(p.x.device)
        few = torch.randperm(p.test.shape[1], generator=g)[:t].to(p.x.device)
        train_parts = (p.x[0, more], p.y[0, more], p.domain[0, more])
        rows.append((*train_parts, p.test[0, few], p.y_test[0, few], p.domain_test[0, few], p.marginals[0]))
    return Domains(*(torch.stack(part) for part in zip(*rows, strict=True)))


def discriminate(
    data: Domains, *, steps: int, generator: Generator, widths=(64, 64), start=None,
    images: bool = False, batch: int = 128, **options,
) -> torch.nn.Module:  # fmt: skip
    """Train p(d | x) for every problem: cross entropy on the index of the domain.

    start   a stack whose body is taken over, such as SCAN's
    images  rows are images, and seen moved by up to a pixel
    """
    b, r = len(data.x), data.marginals.shape[2]
    net = network(b, [data.x.shape[2], *widths, r], generator=generator)
    if start is not None:
        net.body.load_state_dict(start.body.state_dict())

    def loss(_: int) -> Tensor:
        rows = draw_rows(b, data.x.shape[1], batch, generator=generator)
        x = take(data.x, rows, own=True)
        return cross_entropy(net(weak(x, generator=generator) if images else x), take(data.domain, rows, own=True))

    train(net, loss, steps, **options)
    return net


def scan_clusters(
    data: Domains, *, steps: int, generator: Generator, widths=(64, 64), neighbours: int = 5, entropy: float = 5.0,
    batch: int = 128, **options,
) -> torch.nn.Module:  # fmt: skip
    """SCAN (Van Gansbeke et al., 2020) on pixels' neighbours: an image and its neighbour agree, clusters are even.

    The rival that goes by similarity: it sees the same images and no domains.
    """
    b, n, _ = data.x.shape
    near = torch.stack([torch.cdist(x, x).topk(neighbours + 1, largest=False).indices[:, 1:] for x in data.x])
    net = network(b, [data.x.shape[2], *widths, data.marginals.shape[1]], generator=generator)

    def loss(_: int) -> Tensor:
        rows = draw_rows(b, n, batch, generator=generator)
        pick = torch.randint(neighbours, (b, batch, 1), generator=generator, device=rows.device)
        other = take(near, rows, own=True).gather(2, pick)[..., 0]
        seen = [weak(take(data.x, at, own=True), generator=generator) for at in (rows, other)]
        one, two = net(torch.cat(seen, 1)).softmax(2).chunk(2, 1)
        mean = one.mean(1)
        return -(one * two).sum(2).clamp_min(1e-8).log().mean(1).sum() - entropy * torch.special.entr(mean).sum()

    train(net, loss, steps, **options)
    return net


def words_of(data: Tensor, test: Tensor, m: int, *, generator: Generator):
    """k-means words of the training rows and, by the nearest centre, of the test rows, for every problem.

    The best of five starts for as many words as classes, of two for many words, where local optima matter little.
    """
    found = [many_kmeans(x, m, restarts=5 if m < 10 else 2, iterations=40, generator=generator) for x in data]
    centres = torch.stack([f.centroids[f.best] for f in found])
    return torch.stack([f.labels[f.best] for f in found]), torch.cdist(test, centres).argmin(2)


def ddfa(net, data: Domains, *, words: int = 30, generator: Generator, given: Tensor | None = None) -> dict:
    """The pipeline on trained discriminators: "marginals", and labels of the test rows with and without their domain.

    given  rows to be cut into words in place of p(d | x): the ablation clusters x itself
    """
    k, r = data.marginals.shape[1:]
    p, p_test = predict(net, data.x), predict(net, data.test)
    cut = (p, p_test) if given is None else (given, given)
    vocabulary, _ = words_of(*cut, words, generator=generator)
    marginals = label_marginals(vocabulary, data.domain, words, r, k, generator=generator)
    return {
        "marginals": marginals,
        "known": label_posteriors(p_test, marginals, data.domain_test).argmax(2),
        "blind": label_posteriors(p_test, marginals).argmax(2),
    }


def judged(labels: Int[Tensor, "b t"], data: Domains) -> list[float]:
    """Hungarian accuracy of each problem's labels."""
    return [clustering_accuracy(a, b) for a, b in zip(labels, data.y_test, strict=True)]


def implied(labels: Int[Tensor, "b t"], data: Domains) -> list[float]:
    """Error of the marginals that clusters imply: each cluster's share in each domain."""
    k, r = data.marginals.shape[1:]
    shares = torch.zeros(len(labels), k * r, device=labels.device)
    shares.scatter_add_(1, labels * r + data.domain_test, torch.ones_like(labels, dtype=shares.dtype))
    shares = shares.view(-1, k, r)
    return matched_error(shares / shares.sum(1, keepdim=True).clamp_min(1), data.marginals).tolist()


def by_similarity(data: Domains, *, generator: Generator, mixture: bool = True, net=None) -> dict:
    """Labels of the test rows by k-means and a Gaussian mixture on x, and by k-means on p(d | x): no factorisation."""
    k = data.marginals.shape[1]
    found = {"k-means": words_of(data.x, data.test, k, generator=generator)[1]}
    if mixture:
        fitted = [gaussian_mixture(x, k, restarts=5, covariance="full", generator=generator) for x in data.x]
        found["Gaussian mixture"] = torch.stack(
            [f[f.best].responsibilities(t)[0].argmax(1) for f, t in zip(fitted, data.test, strict=True)]
        )
    if net is not None:
        p, p_test = predict(net, data.x), predict(net, data.test)
        found["k-means of p(d | x)"] = words_of(p, p_test, k, generator=generator)[1]
    return found


def oracle(data: Domains, x: Float[Tensor, "b n p"]) -> Float[Tensor, "b n r"]:
    """The true p(d | x) of ``misleading_mixture`` with its default blobs, domains of equal size."""
    mixed = torch.cdist(x * 8, blobs().flatten(0, 1).expand(len(x), -1, -1)).square().neg().div(2)
    p_x_given_y = mixed.softmax(2).unflatten(2, (3, 2)).sum(3)  # up to p(x), the same for all classes
    joint = p_x_given_y @ data.marginals
    return joint / joint.sum(2, keepdim=True)
