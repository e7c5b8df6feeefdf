"""Experiments of the pipeline against money laundering: which reducer is first, by which judge."""

import torch
from torch import Tensor

from ....evaluate.clusters import ari
from ..laundering import agglomerate, ica, indices, kernel_pca, locality_preserving, standardise, svd
from ..tables import draws

GAMMAS = (0.0005, 0.002, 0.01, 0.05)


def planted(data) -> Tensor:
    """The segments of customers, and the launderers as one more."""
    return torch.where(data.launders, len(data.segment.unique()), data.segment)


def reductions(x: Tensor, d: int, seed: int, kernel: Tensor) -> dict[str, Tensor]:
    """The rows in d components of the four reducers; the kernel's are given."""
    return {
        "KPCA": kernel[:, :d],
        "SVD": svd(x, d),
        "ICA": ica(x, d, draws(22, seed)),
        "LPP": locality_preserving(x, d),
    }


def pipelines(data, seed: int, dimensions: tuple, linkages: tuple, k: int, gamma: float = 0.002) -> list[dict]:
    """Every reducer × dimension × linkage: three indices where it clusters, the same in the input space, and ARI.

    "KPCA, γ by index" takes for each setting the γ with the best silhouette inside the embedding.
    """
    x, y = standardise(data.features), planted(data)
    kernels = {g: kernel_pca(x, max(dimensions), g) for g in {*GAMMAS, gamma}}
    rows = []
    for d in dimensions:
        spaces = reductions(x, d, seed, kernels[gamma])
        if d == dimensions[0]:
            spaces["none"] = x
        for how in linkages:
            tried = [(kernels[g][:, :d], agglomerate(kernels[g][:, :d], k, how)) for g in GAMMAS]
            best = max(tried, key=lambda pair: indices(*pair)["silhouette"])
            for name, z in [*spaces.items(), ("KPCA, γ by index", best[0])]:
                labels = agglomerate(z, k, how)
                rows.append(
                    {
                        "reducer": name,
                        "dimension": d,
                        "linkage": how,
                        "labels": labels,
                        "ARI": ari(labels, y),
                        "inside": indices(z, labels),
                        "input": indices(x, labels),
                    }
                )
    return rows


def winner_share(rows: list[dict], where: str, reducer: str = "KPCA") -> float:
    """Share of settings (dimension, linkage, index) in which a reducer is first, beside SVD, ICA and LPP."""
    some = [r for r in rows if r["reducer"] in (reducer, "SVD", "ICA", "LPP")]
    first = []
    for setting in sorted({(r["dimension"], r["linkage"]) for r in some}):
        here = [r for r in some if (r["dimension"], r["linkage"]) == setting]
        for index in here[0]["inside"]:
            values = [r["ARI"] if where == "ARI" else r[where][index] for r in here]
            first.append(here[values.index(max(values))]["reducer"] == reducer)
    return sum(first) / len(first)


def pipelines_at(data, gamma: float, k: int) -> dict[str, float]:
    """KPCA with five components and Ward at one γ: index inside, on the features, ARI, share of the largest cluster."""
    x, y = standardise(data.features), planted(data)
    z = kernel_pca(x, 5, gamma)
    labels = agglomerate(z, k)
    return {
        "silhouette inside": indices(z, labels)["silhouette"],
        "silhouette on features": indices(x, labels)["silhouette"],
        "ARI": ari(labels, y),
        "largest cluster": float(torch.bincount(labels).max() / len(labels)),
    }


def by_k(data, seed: int, k: int) -> dict[str, float]:
    """Silhouette of all features, and inside each embedding of five components; Ward cut at k clusters."""
    x = standardise(data.features)
    spaces = reductions(x, 5, seed, kernel_pca(x, 5, 0.002)) | {"none": x}
    return {name: indices(z, agglomerate(z, k))["silhouette"] for name, z in spaces.items()}


def riskiest(data, k: int, least: int = 4) -> dict[str, float]:
    """Share of launderers in the riskiest of k clusters, over their share in all; clusters of at least so many rows."""
    x, found = standardise(data.features), {}
    for name, z in {"KPCA": kernel_pca(x, 5, 0.002), "none": x}.items():
        labels = agglomerate(z, k)
        count = torch.bincount(labels)
        share = torch.bincount(labels, data.launders.float()) / count
        found[name] = float(share[count >= least].max() / data.launders.float().mean())
    return found
