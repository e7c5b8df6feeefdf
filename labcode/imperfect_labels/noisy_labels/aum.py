"""AUM: a sample whose label keeps losing against another class, epoch after epoch, is probably labelled wrongly.

Pleiss et al. 2020, *Identifying Mislabeled Data using the Area Under the Margin Ranking*.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ...loss import check_index, raised
from ...nets.stacked import take
from ..measures import auroc
from ..training import cross_entropy
from .stage import Images, Stage, learn


def margins(logits: Float[Tensor, "n b k"], labels: Int[Tensor, "n b"]) -> Float[Tensor, "n b"]:
    """Logit of the given label less the largest other logit (equation 1): negative where another class wins.

    logits  two classes at least

    float32 at least. Raises ValueError for fewer classes and labels out of range.
    """
    if logits.shape[-1] < 2:
        raise ValueError(f"logits must have 2 classes at least, got {tuple(logits.shape)}")
    check_index("labels", labels, logits.shape[-1])
    place = labels.long()[..., None]
    z = raised(logits)
    return (z.gather(-1, place) - z.scatter(-1, place, -torch.inf).max(-1, keepdim=True).values)[..., 0]


def threshold_sets(count: int, classes: int, runs: int, *, generator: Generator) -> Bool[Tensor, "runs N"]:
    """Which samples play the mislabelled ones in each run: count / (classes + 1) of them, no sample in two runs.

    So large a fake class is as frequent as a true one (section 3.2). On the CPU. Raises ValueError where the runs need
    more samples than there are.
    """
    size = count // (classes + 1)
    if size < 1 or size * runs > count:
        raise ValueError(f"count must be at least {runs} times {max(1, size)} and classes + 1, got {count}")
    order = torch.randperm(count, generator=generator)
    masks = torch.zeros(runs, count, dtype=torch.bool)
    for run in range(runs):
        masks[run, order[run * size : (run + 1) * size]] = True
    return masks


def flagged(
    aum: Float[Tensor, "*any runs N"], thresholds: Bool[Tensor, "..."], percentile: float = 99
) -> Bool[Tensor, "*any N"]:
    """What every run says is mislabelled, of the runs in which a sample was not itself a threshold sample.

    aum         area under the margin of each sample in each run
    thresholds  the runs' threshold samples, of the shape of aum
    percentile  of the threshold samples' AUM; below it a sample is flagged. 99 in the paper, in (0, 100]

    A sample that was a threshold sample in every run is not flagged. Raises ValueError for shapes that do not fit, a
    run without threshold samples and a percentile out of range.
    """
    if aum.shape != thresholds.shape or aum.ndim < 2:
        raise ValueError(f"thresholds must have the shape of aum, (…, runs, N), got {tuple(thresholds.shape)}")
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be in (0, 100], got {percentile}")
    if not bool(thresholds.any(-1).all()):
        raise ValueError("thresholds must have a sample in every run")
    theirs = aum.double().masked_fill(~thresholds, torch.nan)
    cut = torch.nanquantile(theirs, percentile / 100, dim=-1, keepdim=True)
    judged = ~thresholds
    return ((aum < cut) | ~judged).all(-2) & judged.any(-2)


@dataclass
class Margins:
    """Margins summed while a stack trains: ``update`` at every step, ``aum`` at the end; each (networks, N).

    skip  so many first epochs do not count; 1 in the released code
    """

    networks: int
    count: int
    device: torch.device
    skip: int = 1
    last: Tensor = field(init=False)

    def __post_init__(self):
        shape = (self.networks, self.count)
        self.total, self.seen, self.last = (torch.zeros(shape, device=self.device) for _ in range(3))

    def update(self, rows: Int[Tensor, "n b"], margin: Float[Tensor, "n b"], epoch: int) -> None:
        margin = margin.detach().float()
        self.last.scatter_(1, rows, margin)
        if epoch >= self.skip:
            self.total.scatter_add_(1, rows, margin)
            self.seen.scatter_add_(1, rows, torch.ones_like(margin))

    @property
    def aum(self) -> Float[Tensor, "n N"]:
        """Mean margin; the last one where a sample was never seen after the skipped epochs."""
        return torch.where(self.seen > 0, self.total / self.seen.clamp_min(1), self.last)


def learn_aum(
    stage: Stage, images: Images, labels: Int[Tensor, "d N"], seed: int, *, epochs: int, runs: int = 2,
    batch: int = 32, lr: float = 0.1, hidden: tuple = (128,),
) -> dict[str, Tensor]:  # fmt: skip
    """Train with the fake class and collect the margins.

    labels  one row a draw of the noise
    epochs  at a constant learning rate, as before the paper's first drop: memorising must not have finished

    Returns "thresholds", "aum", "last" (margins of the last epoch), "loss" (of the last epoch), each (d, runs, N), and
    "track": AUROC of the mean margin so far, and mean margins of right and wrong samples, after each epoch. One network
    a run and draw. SGD with momentum as in the paper; departs in a perceptron for ResNet-32.
    """
    d, count = labels.shape
    g, cpu = stage.generator(seed, 21), torch.Generator().manual_seed(seed)
    masks = torch.stack([threshold_sets(count, stage.classes, runs, generator=cpu) for _ in range(d)]).to(labels.device)
    given = labels[:, None].expand(d, runs, count).masked_fill(masks, stage.classes).flatten(0, 1)
    net = stage.net(d * runs, stage.classes + 1, hidden, generator=g)
    kept = Margins(d * runs, count, labels.device)
    loss_now, track = torch.zeros_like(kept.last), []
    wrong = (labels != images.y)[:, None].expand(d, runs, count).flatten(0, 1)
    real = ~masks.flatten(0, 1)

    def loss(rows: Tensor, epoch: int) -> Tensor:
        y = take(given, rows, own=True)
        logits = net(take(images.x, rows, own=False))
        kept.update(rows, margins(logits, y), epoch)
        p = logits.detach().log_softmax(-1).gather(-1, y[..., None])[..., 0]
        loss_now.scatter_(1, rows, -p)
        return cross_entropy(logits, y)

    def after(epoch: int) -> None:
        told = [float(kept.last[mask].mean()) for mask in (real & ~wrong, real & wrong, ~real)]
        some = bool(wrong.any())
        told += [float(auroc(-score, wrong).mean()) if some else 0.5 for score in (kept.aum, kept.last)]
        track.append(told)

    learn(net, loss, count, networks=d * runs, epochs=epochs, generator=g, batch=batch, lr=lr, constant=True, sgd=True,
          after=after)  # fmt: skip
    shaped = {"aum": kept.aum, "last": kept.last, "loss": loss_now}
    told = {k: v.view(d, runs, count) for k, v in shaped.items()}
    return told | {"thresholds": masks, "track": torch.tensor(track).T}
