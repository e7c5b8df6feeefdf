"""Every clusterer of the chapter on one table."""

import torch

from ....evaluate.clusters import ari
from ...gaussian_mixture import gaussian_mixture
from ...many_kmeans import many_kmeans
from ..clam import clam
from ..ila_sdp import ila_sdp
from ..laundering import agglomerate
from ..leiden import leiden, neighbour_graph
from ..multicut import dense_gaec
from ..ppp import ppp
from ..tables import draws, table
from ..vmf_mixture import vmf_mixture
from .common import spectral


def contest(seed: int, steps: int, epochs: int) -> dict[str, float]:
    """Adjusted Rand index with the cultivars of wine, for every clusterer of the chapter; 100 rows a seed."""
    x, y = table("wine", seed, 100)
    g = draws(25, seed)
    plain = many_kmeans(x, 3, restarts=10, generator=g)

    def best(m):
        return m[m.best].predict(x)[0]

    def mixture(how):
        return best(gaussian_mixture(x, 3, restarts=10, covariance=how, generator=g, floor=1e-2))

    ila = ila_sdp(x, 3, plain.labels[:1], rounds=2, steps=steps)
    trained = clam(x, 3, beta=torch.full((6,), 1.0), generator=g, epochs=epochs, batch=128)
    unit = torch.nn.functional.normalize(x, dim=1)
    distance = torch.cdist(x, x).fill_diagonal_(torch.inf)
    sphere = vmf_mixture(unit, 3, restarts=6, generator=g)
    labels = {
        "one cluster": torch.zeros(len(x), dtype=torch.long),
        "k-means": plain.labels[plain.best],
        "Ward": agglomerate(x, 3),
        "spectral": spectral(x, 3, seed),
        "mixture, diagonal": mixture("diagonal"),
        "mixture, full": mixture("full"),
        "iLA-SDP": ila.labels[ila.value.argmax()],
        "ClAM": trained.labels(x.float())[trained.loss.argmin()],
        "PPP": ppp(x, 6, starts=10, generator=g).labels,
        "multicut": dense_gaec(unit, 0.2).labels,
        "Leiden": leiden(neighbour_graph(x, 15), generator=g),
        "von Mises–Fisher mixture": sphere.predict(unit)[sphere.best],
        "5 neighbours with labels": y[distance.topk(5, largest=False).indices].mode(1).values,
    }
    return {name: ari(row, y) for name, row in labels.items()}
