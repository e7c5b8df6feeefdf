"""PA-CGCD (Kim et al., 2023): proxies for old classes tell what is new, and keep what was old."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ...loss import check_index, check_matrix, check_positive, float32, unit_rows
from ...train import allowed
from .protocol import Problem
from .stacked import StackedMLP


@float32
def proxy_anchor(
    z: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    proxies: Float[Tensor, "c d"],
    alpha: float = 32.0,
    margin: float = 0.1,
) -> Float[Tensor, ""]:
    """Each proxy pulls the rows of its class and pushes all others, the hardest most.

    Proxy Anchor (Kim et al., 2020), eq. 4:
    1/|C⁺| Σ_{c ∈ C⁺} log(1 + Σ_{i ∈ c} exp(-α (cos - δ))) + 1/|C| Σ_c log(1 + Σ_{i ∉ c} exp(α (cos + δ))),
    C⁺ the classes present among the rows.

    z, proxies  brought to length 1
    labels      0 … c - 1
    alpha       > 0, how much the hardest rows count
    margin      δ

    In the logarithm, so any alpha. Raises ValueError for labels or proxies of another shape.
    """
    check_matrix("z", z)
    check_matrix("proxies", proxies)
    check_positive(alpha=alpha)
    if labels.shape != (len(z),) or proxies.shape[1] != z.shape[1]:
        raise ValueError(
            f"labels must be ({len(z)},) and proxies as wide as z, got {tuple(labels.shape)}, {tuple(proxies.shape)}"
        )
    cosine = unit_rows(z) @ unit_rows(proxies).T
    own = labels[:, None] == torch.arange(len(proxies), device=z.device)
    present = own.any(0)
    pull = torch.where(own, -alpha * (cosine - margin), -torch.inf)
    push = torch.where(own, -torch.inf, alpha * (cosine + margin))
    zero = torch.zeros_like(cosine[:1])
    pulled = torch.cat([zero, pull]).logsumexp(0) * present
    return pulled.sum() / present.sum().clamp_min(1) + torch.cat([zero, push]).logsumexp(0).mean()


class ProxyNet(nn.Module):
    """Embedding of frozen features, and a proxy for each class that is known."""

    def __init__(self, d: int, classes: int, *, generator: Generator, hidden: int = 128, out: int = 32):
        super().__init__()
        self.net = StackedMLP([d, hidden, out], 1, generator=generator)
        self.proxies = nn.Parameter(torch.randn(classes, out, generator=generator, device=generator.device))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        return self.net(x[None])[0]

    def similar(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Cosine of every row with every proxy."""
        return unit_rows(self(x)) @ unit_rows(self.proxies).T


def _train(model: nn.Module, step, steps: int, lr: float, proxies: nn.Parameter | None = None) -> None:
    ours = [p for p in model.parameters() if p is not proxies]
    groups = [{"params": ours, "lr": lr}] + ([{"params": [proxies], "lr": 10 * lr}] if proxies is not None else [])
    adam = torch.optim.AdamW(groups, weight_decay=1e-4, fused=True)
    for _ in range(allowed(steps)):
        loss = step()
        adam.zero_grad()
        loss.backward()
        adam.step()


def train_proxies(
    p: Problem,
    *,
    generator: Generator,
    steps: int = 100,
    batch: int = 64,
    lr: float = 3e-3,
    loss=proxy_anchor,
    out: int = 32,
) -> ProxyNet:
    """The first session: embedding and proxies from labelled rows. Proxies learn ten times as fast (paper: a hundred).

    loss  ``loss(z, labels, proxies)``: ``proxy_anchor``, or a rival with the same arguments
    """
    model = ProxyNet(p.x.shape[1], p.old, generator=generator, out=out)
    rows = p.labelled.nonzero()[:, 0]
    source = p.x[None] if p.views is None else p.views

    def step():
        at = rows[torch.randint(len(rows), (batch,), generator=generator, device=rows.device)]
        view = torch.randint(len(source), (batch,), generator=generator, device=rows.device)
        return loss(model(source[view, at]), p.y[at], model.proxies)

    _train(model, step, steps, lr, model.proxies)
    return model


@float32
def softmax_proxies(
    z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], proxies: Float[Tensor, "c d"], tau: float = 0.1
) -> Float[Tensor, ""]:
    """Cross entropy of cosines with the proxies over τ: a normalised softmax classifier, Proxy Anchor's plain rival."""
    check_matrix("z", z)
    check_matrix("proxies", proxies)
    check_positive(tau=tau)
    if labels.shape != (len(z),) or proxies.shape[1] != z.shape[1]:
        raise ValueError(
            f"labels must be ({len(z)},) and proxies as wide as z, got {tuple(labels.shape)}, {tuple(proxies.shape)}"
        )
    check_index("labels", labels, len(proxies))
    return F.cross_entropy(unit_rows(z) @ unit_rows(proxies).T / tau, labels.long())


@torch.no_grad()
def first_split(model: ProxyNet, x: Float[Tensor, "n d"], threshold: float = 0.0) -> Bool[Tensor, " n"]:
    """True for rows that are taken for old: their largest cosine with a proxy is at or above the threshold, 0."""
    return model.similar(x).amax(1) >= threshold


def refine_split(
    model: ProxyNet,
    x: Float[Tensor, "n d"],
    *,
    generator: Generator,
    threshold: float = 0.0,
    band: float = 0.03,
    rounds: int = 3,
    steps: int = 30,
    batch: int = 64,
    lr: float = 1e-2,
) -> Bool[Tensor, " n"]:
    """The second split: a small net learns old from new on the first split's noisy labels, twice rid of doubtful ones.

    PA-CGCD, section 3.3, as released: rows within ``band`` of the threshold are left out at first; SplitNet, two hidden
    sigmoid layers, trains on the others; between rounds a mixture of two Gaussians on the rows' cross entropy towards
    "old", scaled to [0, 1], keeps what it is sure of: posterior of the low component >= 0.95 for old, < 0.05 for new.

    The released net has a copy of the encoder below; here it stands on the embedding (ours). Returns True for old.
    """
    with torch.no_grad():
        z, cosine = unit_rows(model(x)), model.similar(x).amax(1)
    torch_state = torch.Generator().manual_seed(
        int(torch.randint(2**31, (), generator=generator, device=generator.device))
    )
    net = SplitNet(z.shape[1], generator=torch_state).to(z.device)
    old, sure = cosine >= threshold, (cosine - threshold).abs() > band
    for at in range(rounds):
        if bool(sure.any()) and len(old[sure].unique()) == 2:
            _fit_split(net, z, old, sure, steps, batch, lr, generator)
        with torch.no_grad():
            loss = F.cross_entropy(net(z), torch.zeros(len(z), dtype=torch.int64, device=z.device), reduction="none")
        old = net_says(net, z) if at == rounds - 1 else old
        posterior = _low_component((loss - loss.min()) / (loss.max() - loss.min()).clamp_min(1e-12))
        if at < rounds - 1:
            sure, old = (posterior >= 0.95) | (posterior < 0.05), posterior >= 0.5
    return old


class SplitNet(nn.Module):
    """Two hidden sigmoid layers with BatchNorm; class 0 is old."""

    def __init__(self, d: int, *, generator: Generator, hidden: int = 32):
        super().__init__()
        first = [nn.Linear(d, hidden), nn.BatchNorm1d(hidden), nn.Sigmoid()]
        second = [nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.Sigmoid()]
        self.layers = nn.Sequential(*first, *second, nn.Linear(hidden, 2))
        with torch.no_grad():
            for p in (q for q in self.parameters() if q.ndim == 2):
                p.copy_(torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5)

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
        return self.layers(z)


def _fit_split(net, z, old, sure, steps, batch, lr, generator):
    rows, net = sure.nonzero()[:, 0], net.train()

    def step():
        at = rows[torch.randint(len(rows), (batch,), generator=generator, device=rows.device)]
        return F.cross_entropy(net(z[at]), (~old[at]).long())

    _train(net, step, steps, lr)
    net.eval()


@torch.no_grad()
def net_says(net: SplitNet, z: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
    """True where the trained net says old."""
    return net.eval()(z).argmax(1) == 0


def _low_component(loss: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Posterior of the lower of two Gaussians."""
    from ..gaussian_mixture import gaussian_mixture

    g = torch.Generator(loss.device).manual_seed(0)
    found = gaussian_mixture(loss[:, None], 2, restarts=1, covariance="full", generator=g, floor=5e-4, iterations=20)
    low = int(found.means[0, :, 0].argmin())
    return found.responsibilities(loss[:, None])[0, :, low]


def affinity_clusters(
    z: Float[Tensor, "n d"], preference: float | None = None, seed: int = 0
) -> tuple[Int[Tensor, " n"], Float[Tensor, "k d"]]:
    """Affinity propagation (Frey and Dueck, 2007): clusters and their exemplars, with no number of clusters given.

    preference  a sample's readiness to be an exemplar: None is the median of the similarities -‖zᵢ - zⱼ‖², the default
                of scikit-learn and of the released code; a negative number is that many times the median

    Where it does not converge all rows are one cluster. On the CPU, by scikit-learn; memory O(n²).
    """
    import warnings

    from sklearn.cluster import AffinityPropagation

    x = z.detach().cpu().double()
    if preference is not None:
        preference = float(-torch.cdist(x, x).square().median() * abs(preference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = AffinityPropagation(preference=preference, random_state=seed, damping=0.8, max_iter=200).fit(x.numpy())
    labels = torch.from_numpy(found.labels_).long()
    if not len(found.cluster_centers_indices_) or int(labels.min()) < 0:
        return torch.zeros(len(x), dtype=torch.int64, device=z.device), z.mean(0, keepdim=True)
    return labels.to(z.device), z[torch.from_numpy(found.cluster_centers_indices_).to(z.device)]


def discover(
    p: Problem,
    model: ProxyNet,
    old: Bool[Tensor, " n"],
    *,
    generator: Generator,
    steps: int = 80,
    batch: int = 64,
    lr: float = 1e-3,
    replay: bool = True,
    distil: float = 10.0,
    preference: float | None = None,
    clusters: int | None = None,
) -> tuple[ProxyNet, int]:
    """The second session, without labels: new proxies from the clusters of what is new, and joint training.

    Rows taken for old get their nearest proxy's label, the others their cluster; the loss is Proxy Anchor on these,
    with
    as many features replayed from N(old proxy, the labelled rows' spread per dimension), and ``distil`` times the
    distance of old rows' features from the first model's (PA-CGCD, section 3.4).

    old       (n,) of all rows; labelled rows take no part any more
    replay    features of old classes around their proxies
    distil    weight of the distillation, 10 in the paper
    clusters  that many clusters by k-means instead of affinity propagation: the rival that knows the number

    Returns the new model and the number of new proxies. Replayed features are drawn around proxies of length 1, in the
    space in which the spread was measured; the released code adds it to unnormalised ones, and distils the rows taken
    for *new* by the distance of whole batches brought to length 1: here it is the mean over rows taken for old.
    """
    from ..many_kmeans import many_kmeans

    free = ~p.labelled
    rows = free.nonzero()[:, 0]
    with torch.no_grad():
        z = unit_rows(model(p.x))
        spread = z[p.labelled].std(0)
        label = model.similar(p.x).argmax(1)
    new = rows[~old[rows]]
    if len(new) > 1:
        if clusters:
            found = many_kmeans(z[new], min(clusters, len(new)), restarts=5, generator=generator)
            which, centres = found.labels[found.best], found.centroids[found.best]
        else:
            which, centres = affinity_clusters(z[new], preference)
    else:
        which, centres = torch.zeros(len(new), dtype=torch.int64, device=z.device), z[new]
    label[new] = p.old + which
    grown = ProxyNet(p.x.shape[1], p.old + len(centres), generator=generator, out=z.shape[1])
    grown.net.load_state_dict(model.net.state_dict())
    with torch.no_grad():
        grown.proxies.copy_(torch.cat([unit_rows(model.proxies), unit_rows(centres)]))
    anchor, source = unit_rows(model.proxies.detach()), p.x[None] if p.views is None else p.views

    def step():
        at = rows[torch.randint(len(rows), (batch,), generator=generator, device=rows.device)]
        view = torch.randint(len(source), (batch,), generator=generator, device=rows.device)
        seen, wanted = source[view, at], label[at]
        features = grown(seen)
        total, names = features, wanted
        if replay:
            drawn = torch.randint(p.old, (batch,), generator=generator, device=rows.device)
            noise = torch.randn(batch, z.shape[1], generator=generator, device=rows.device)
            total, names = torch.cat([features, anchor[drawn] + spread * noise]), torch.cat([wanted, drawn])
        loss = proxy_anchor(total, names, grown.proxies)
        if distil:
            with torch.no_grad():
                before = unit_rows(model(seen))
            kept = (wanted < p.old).to(before.dtype)
            apart = (unit_rows(features) - before).square().sum(1)
            loss = loss + distil * (apart * kept).sum() / kept.sum().clamp_min(1)
        return loss

    _train(grown, step, steps, lr, grown.proxies)
    return grown, len(centres)


@torch.no_grad()
def nearest_proxy(model: ProxyNet, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """The proxy with the highest cosine: how PA-CGCD assigns."""
    return model.similar(x).argmax(1)
