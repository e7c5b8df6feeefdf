"""Probabilistic partitive partitioning: keep what k-means and a Gaussian mixture say alike from every start."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..gaussian_mixture import gaussian_mixture
from ..many_kmeans import Partitions, many_kmeans


def matched(labels: Int[Tensor, "r n"], reference: Int[Tensor, " n"], k: int) -> Int[Tensor, "r n"]:
    """Each partition with its clusters renamed to agree with the reference on as many rows as can be (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    one_hot = torch.nn.functional.one_hot
    table = one_hot(labels, k).float().mT @ one_hot(reference, k).float()  # (r, k, k) rows that two clusters share
    names = torch.empty(len(labels), k, dtype=torch.long)
    for names_of, shared in zip(names, table.cpu().numpy(), strict=True):
        rows, columns = linear_sum_assignment(shared, maximize=True)
        names_of[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return names.to(labels.device).gather(1, labels)


@dataclass(frozen=True)
class Agreement:
    """What all runs say: the reference's labels, which rows all runs agree on, and the share of starts that agree.

    labels     (n,) those of the reference, the k-means run with the least inertia
    core       (n,) rows on which every run agrees
    confirmed  (r,) for each k-means run the share of rows on which the mixture that grew out of it says the same
    k          number of clusters
    """

    labels: Int[Tensor, " n"]
    core: Bool[Tensor, " n"]
    confirmed: Float[Tensor, " r"]
    partitions: Int[Tensor, "r n"]
    k: int

    @property
    def kept(self) -> float:
        """Share of the rows in the core."""
        return float(self.core.float().mean())


def agreement(
    x: Float[Tensor, "n d"], k: int, *, starts: int = 20, generator: torch.Generator, validate: bool = True,
    covariance: str = "diagonal", tries: int = 5,
) -> Agreement:  # fmt: skip
    """k-means from many random starts, each validated by a Gaussian mixture, and the rows on which all of them agree.

    Our reading of Sultan (2020), whose abstract says that a mixture *validates* the partitions of k-means and that what
    comes back is repeatable and most separable; its rule could not be read. Starts are drawn at random: with a fixed
    start repeatability would be empty.

    validate    False leaves the mixtures out: agreement of the k-means runs alone
    covariance  of the mixtures
    tries       k-means++ seeds of which a run keeps the one with the least inertia: a run is what one would use
    """
    parts = many_kmeans(x, k, restarts=starts * tries, generator=generator)
    best = parts.inertia.view(starts, tries).argmin(1) + tries * torch.arange(starts, device=x.device)
    parts = Partitions(parts.labels[best], parts.centroids[best], parts.inertia[best])
    reference = parts.labels[parts.best]
    runs = matched(parts.labels, reference, k)
    confirmed = torch.ones(starts)
    if validate:
        mixture = gaussian_mixture(
            x, k, restarts=starts, covariance=covariance, generator=generator, start=parts.labels, floor=1e-3,
            iterations=30,
        )  # fmt: skip
        said = matched(mixture.predict(x), reference, k)
        confirmed = (said == runs).float().mean(1)
        runs = torch.cat([runs, said])
    return Agreement(reference, (runs == reference).all(0), confirmed, parts.labels, k)


def ppp(
    x: Float[Tensor, "n d"], largest: int = 8, *, starts: int = 20, share: float = 0.9, generator: torch.Generator,
    validate: bool = True, covariance: str = "diagonal",
) -> Agreement:  # fmt: skip
    """The largest k from 2 on at which the agreed core still holds a share of the rows; no k is given.

    largest  where the search ends
    share    of the rows, in (0, 1]

    With no k agreed on to that share, the k with the largest core. Raises ValueError for largest below 2 or above n.
    """
    if not 2 <= largest <= len(x):
        raise ValueError(f"largest must be between 2 and the {len(x)} rows of x, got {largest}")
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    options = dict(starts=starts, generator=generator, validate=validate, covariance=covariance)
    tried = [agreement(x, k, **options) for k in range(2, largest + 1)]
    good = [a for a in tried if a.kept >= share]
    return good[-1] if good else max(tried, key=lambda a: a.kept)
