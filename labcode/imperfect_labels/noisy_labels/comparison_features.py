"""What the chapter measures on contrastive features and on annotators: one seed a call."""

import torch
from torch import Tensor

from ..images import foreign
from ..label_sets import LabelSet, annotators, flip, several, tail, tail_counts, transition, web_noise
from ..measures import auroc
from .annotators import learn_annotators
from .comparison import EPOCHS, noisy
from .contrastive import features, simclr
from .lsa import learn_lsa, ranks_agree
from .ni_erm import noise_ignorant
from .rcal import RECIPES, inliers, learn_rcal, prior_flips
from .robust import rivals
from .stage import Images, Stage


def encoder(stage: Stage, seed: int):
    """The seed's SimCLR network, trained once for all papers that begin with it."""
    steps = stage.run.pick(quick=250, full=20_000)
    return stage.run.once(("simclr", seed), lambda: simclr(stage, seed, steps=steps))


def compare_ignorance(
    stage: Stage, seed: int, *, kind: str = "symmetric", rate: float = 0.4, against: bool = False,
    losses: tuple = ("ni-erm", "forward", "gce"), pixels: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Test accuracy of linear classifiers on contrastive features and on pixels, and of networks trained on the pixels.

    forward correction is told the noise's true matrix; for instance noise it gets the symmetric one of that rate.
    """
    images = stage.images(seed)
    labels = noisy(stage, images, kind, rate, seed).labels
    matrix = transition("symmetric" if kind == "instance" else kind, stage.classes, rate).to(images.y.device)
    net = encoder(stage, seed)
    z, tz = features(net, images.x), features(net, stage.test.x)
    told = {}
    for loss in losses:
        right = noise_ignorant(z, labels, tz, stage.test.y, stage.classes, loss=loss, matrix=matrix)
        told[f"{loss}, features"] = float(right.mean())
    if pixels:
        right = noise_ignorant(images.x, labels, stage.test.x, stage.test.y, stage.classes)
        told["ni-erm, pixels"] = float(right.mean())
    if against:
        told |= rivals(stage, images, labels, seed, EPOCHS)["accuracy"]
    return told


ANNOTATORS = (("symmetric", 0.5), ("pair", 0.45), ("symmetric", 0.8))


def compare_annotators(stage: Stage, seed: int, who: tuple = ANNOTATORS, *, draws: int = 1, models=None,
                       epochs: int = EPOCHS, coverage: float = 1.0) -> dict:  # fmt: skip
    """Classifiers taught by annotators of given noise, (kind, rate) each: see ``learn_annotators``; and early stopping
    on the majority, with a fifth of the votes held back."""
    images = stage.images(seed)
    matrices = torch.stack([transition(kind, stage.classes, rate) for kind, rate in who])
    g = torch.Generator().manual_seed(seed + 5)
    said = several(draws, annotators, images.y.cpu(), matrices, coverage, generator=g).to(images.y.device)
    true = matrices.expand(draws, *matrices.shape)
    told = learn_annotators(stage, images, said, true, seed, epochs=epochs, models=models)
    made = rivals(stage, images, told["voted"], seed, epochs, longer=1)["accuracy"]
    told["accuracy"]["early stopping"] = made["early stopping"]
    return told | {"matrices": matrices}


def web_set(stage: Stage, seed: int, share: float, flips: float, draws: int = 1) -> tuple[Images, LabelSet]:
    """``stage.count`` images, the share of them foreign textures with random labels, and flips among the others."""
    strangers = round(share * stage.count)
    ours = stage.images(seed, stage.count - strangers)
    side = stage.side if stage.channels == 1 else 16
    x = foreign(strangers, side, seed=seed).to(ours.x.device)
    if stage.channels == 3:  # twice as large, grey in three channels
        x = x.view(-1, 1, 16, 16).repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1).flatten(1)
    g = torch.Generator().manual_seed(seed + 6)
    made = several(draws, web_noise, ours.y.cpu(), flips, strangers, stage.classes, generator=g)
    device = ours.y.device
    made = LabelSet(made.labels.to(device), made.truth.to(device), made.foreign.to(device))
    images = Images(torch.cat([ours.x, x]), torch.cat([ours.y, ours.y.new_full((strangers,), -1)]))
    return images, made


def compare_web(
    stage: Stage, seed: int, *, share: float = 0.4, flips: float = 0.2, start: bool = True, epochs: int = 12,
    draws: int = 2,
) -> dict:  # fmt: skip
    """PLS with three detectors on web noise: see ``learn_lsa``; and where the two detectors differ on clean images."""
    images, made = web_set(stage, seed, share, flips, draws)
    net = encoder(stage, seed) if start else None
    told = learn_lsa(stage, images, made.labels, made.foreign[0], net, seed, epochs=epochs)
    scores, clean = told["scores"], ~made.wrong
    rejected, small = scores["separated"] & clean, scores["small"]
    told["clean rejected"] = float(rejected.double().sum() / clean.sum())
    for name, mask in (("kept by loss", rejected), ("kept of wrong", scores["separated"] & made.wrong)):
        told[name] = float((mask & ~small).double().sum() / mask.sum().clamp_min(1))
    told["agree"] = ranks_agree(scores["linear"], scores["loss"])
    loss = scores["loss"].double()
    told["loss of rejected"] = float(loss[rejected].median()) if bool(rejected.any()) else 0.0
    told["loss of wrong"] = float(loss[made.wrong].median())
    told["foreign"], told["wrong"] = made.foreign[0].cpu(), made.wrong[0].cpu()
    return told


def hyperplane(stage: Stage, seed: int, *, share: float = 0.4) -> dict[str, float]:
    """How well a hyperplane fitted on half of the images, with the truth, tells foreign images of the other half."""
    images, made = web_set(stage, seed, share, 0.0)
    odd = made.foreign[0]
    told = {}
    for name, z in (("contrastive", features(encoder(stage, seed), images.x)), ("pixels", images.x)):
        order = torch.randperm(len(odd), generator=torch.Generator().manual_seed(seed)).to(odd.device)
        a, b = order.chunk(2)
        z = (z - z.mean(0)) / z.std(0).clamp_min(1e-3)
        w = _plane(z[a], odd[a])
        told[name] = float(auroc(z[b] @ w, odd[b]))
    return told


def _plane(z: Tensor, odd: Tensor, ridge: float = 0.01) -> Tensor:
    t = odd.double() - odd.double().mean()
    z = z.double()
    eye = ridge * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    return torch.linalg.solve(z.mT @ z + eye, z.mT @ t).float()


def compare_tail(
    stage: Stage, seed: int, recipes: tuple[str, ...] | None = None, *, largest: int = 300, ratio: float = 20,
    rate: float = 0.3, draws: int = 3, steps: int = 100,
) -> dict:  # fmt: skip
    """Classifiers on contrastive features of a long tail with wrong labels: see ``learn_rcal``; and what LOF drops."""
    largest = min(largest, len(stage.pool.y) // stage.classes)
    counts = tail_counts(stage.classes, largest, ratio)
    g = torch.Generator().manual_seed(seed + 8)
    y_all = stage.pool.y.cpu()
    most = torch.bincount(y_all, minlength=stage.classes)
    counts = torch.minimum(counts, most)
    places = tail(y_all, counts, generator=g)
    x, y = stage.pool.x[places.to(stage.pool.x.device)], y_all[places]
    made = several(draws, flip, y, prior_flips(counts, rate), generator=g)
    labels = made.labels.to(stage.pool.y.device)
    net = encoder(stage, seed)
    z, tz = features(net, x), features(net, stage.test.x)
    chosen = {name: RECIPES[name] for name in recipes or RECIPES}
    told = learn_rcal(stage, z, labels, tz, counts, seed, chosen, steps=steps, rate=rate)
    dropped = torch.stack([~inliers(z, one, stage.classes, rate) for one in labels]).cpu()
    told["precision of LOF"] = float((dropped & made.wrong).sum() / dropped.sum().clamp_min(1))
    told["wrong"] = float(made.wrong.double().mean())
    told["counts"] = counts.tolist()
    return told
