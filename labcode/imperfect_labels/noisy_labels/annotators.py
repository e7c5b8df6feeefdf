"""Several annotators, each with a confusion matrix that is learnt; the classifier is kept confident.

Hashmi et al. 2023, *Learning Confident Classifiers in the Presence of Label Noise*; the trace of Tanno et al. 2019.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ...loss import raised
from ...nets.stacked import StackedLinear, take
from ..label_sets import NOBODY
from ..training import accuracies, cross_entropy, predict
from .robust import by_arm, generalised_cross_entropy
from .stage import Images, Stage, learn


class Confusions(nn.Module):
    """T_r for each network and annotator: (n, 1 or b, annotators, k, k), columns add up to 1, T[a, b] = P(says a | b).

    diagonal       logits begin with this much on the diagonal, so that the classes keep their names
    from_features  width of the features on which the matrices depend; None for matrices of the annotators alone
    """

    def __init__(self, n: int, annotators: int, classes: int, diagonal: float = 3.0, from_features: int | None = None,
                 *, generator: Generator):  # fmt: skip
        super().__init__()
        self.shape = (annotators, classes, classes)
        start = diagonal * torch.eye(classes, device=generator.device).expand(n, *self.shape)
        self.logits = nn.Parameter(start.clone())
        self.look = None
        if from_features:
            size = annotators * classes**2
            self.look = StackedLinear(n, from_features, size, bias=False, generator=generator)
            with torch.no_grad():
                self.look.weight.mul_(0.1)

    def forward(self, f: Float[Tensor, "n b f"] | None = None) -> Float[Tensor, "n _ a k k"]:
        logits = self.logits[:, None]
        if self.look is not None:
            logits = logits + self.look(f).unflatten(-1, self.shape)
        return logits.softmax(-2)


def annotator_loss(
    p: Float[Tensor, "n b k"], matrices: Float[Tensor, "n _ a k k"], answers: Int[Tensor, "..."]
) -> Float[Tensor, " n"]:
    """Mean over all answers given of -log (T_r p)[answer]: what annotator r would say of the image (equation 1).

    answers  (n, b, annotators), -1 where one was not asked

    One value a network. Raises ValueError for shapes that do not fit.
    """
    if answers.shape[:2] != p.shape[:2] or answers.shape[2] != matrices.shape[2]:
        raise ValueError(f"answers must be (n, b, annotators), got {tuple(answers.shape)} for {tuple(matrices.shape)}")
    asked = answers != NOBODY
    place = answers.clamp_min(0)[..., None, None].expand(*answers.shape, 1, p.shape[-1])
    rows = matrices.expand(-1, p.shape[1], -1, -1, -1).gather(3, place)[..., 0, :]  # (n, b, a, k): row of the answer
    chance = (rows * p[:, :, None]).sum(-1).clamp_min(1e-12)
    return -(chance.log() * asked).sum((1, 2)) / asked.sum((1, 2)).clamp_min(1)


def entropy(p: Float[Tensor, "n b k"]) -> Float[Tensor, " n"]:
    """Mean Shannon entropy, nats: the regulariser that makes the classifier confident."""
    return -(p * p.clamp_min(1e-12).log()).sum(-1).mean(-1)


def mean_trace(matrices: Float[Tensor, "n b a k k"]) -> Float[Tensor, " n"]:
    """Mean diagonal of the matrices: Tanno et al. 2019 *lower* it, so that the matrices take the noise."""
    return matrices.diagonal(dim1=-2, dim2=-1).mean((1, 2, 3))


def same_likelihood(p: Float[Tensor, "b k"], t: Float[Tensor, "k k"], s: Float[Tensor, "k k"]) -> float:
    """Largest difference of T p and (T S^-1)(S p): no likelihood can tell the two apart."""
    turned = t @ torch.linalg.inv(s)
    return float((p @ t.mT - (p @ s.mT) @ turned.mT).abs().max())


def dawid_skene(answers: Int[Tensor, "N a"], classes: int, steps: int = 30) -> tuple[Tensor, Tensor]:
    """Truth and confusions from the answers alone, by EM (Dawid and Skene 1979): (N, k) and (a, k, k), rows the truth.

    answers  -1 where an annotator was not asked. Begun at the share of votes; counts begin at 0.01.
    """
    said = F.one_hot(answers.clamp_min(0), classes).double() * (answers != NOBODY)[..., None]
    truth = said.sum(1) + 1e-6
    truth = truth / truth.sum(1, keepdim=True)
    for _ in range(steps):
        counts = torch.einsum("nk,nal->akl", truth, said) + 0.01
        matrices = counts / counts.sum(-1, keepdim=True)
        score = torch.einsum("nal,akl->nk", said, matrices.log()) + truth.mean(0).log()
        truth = score.softmax(1)
    return truth, matrices


def majority(answers: Int[Tensor, "*n a"], classes: int, *, generator: Generator) -> Int[Tensor, "*n"]:
    """The most frequent answer of each sample, ties at random."""
    votes = (F.one_hot(answers.clamp_min(0), classes) * (answers != NOBODY)[..., None]).sum(-2)
    return (votes + 0.5 * torch.rand(votes.shape, generator=generator)).argmax(-1)


#        weight of the entropy, of the trace, matrices by image
MODELS = {
    "no regulariser": (0.0, 0.0, False), "trace": (0.0, 0.1, False), "entropy": (0.3, 0.0, False),
    "image, no regulariser": (0.0, 0.0, True), "image, entropy": (0.3, 0.0, True),
}  # fmt: skip
PLAIN = ("majority", "GCE on the majority", "Dawid-Skene", "truth")


def learn_annotators(
    stage: Stage, images: Images, answers: Int[Tensor, "d N a"], matrices: Float[Tensor, "d a k k"], seed: int, *,
    epochs: int, models: dict | None = None, warm: float = 0.2, **how,
) -> dict:  # fmt: skip
    """Classifiers with confusion matrices (``models``), and the plain ones: from the majority, from Dawid and Skene.

    answers   -1 where an annotator was not asked
    matrices  the true ones, rows the truth, to judge the learnt ones by
    warm      share of the epochs over which the regularisers grow to their weights

    Returns "voted" (majority labels, (d, N)), by arm "accuracy", and for models "error" (mean absolute entry of the
    recovered confusions less the true ones, times k: mass put wrongly in a column), "entropy", "NLL" of the answers,
    "recovered" ((a, k, k), first draw).
    """
    models = MODELS if models is None else models
    d, count, a = answers.shape
    k, names = stage.classes, list(models)
    g, cpu = stage.generator(seed, 61), torch.Generator().manual_seed(seed)
    n = len(names) * d
    net = stage.net(n + len(PLAIN) * d, generator=g, same=d)
    groups = {deep: [i for i, m in enumerate(models.values()) if m[2] == deep] for deep in (False, True)}
    order = [i for group in groups.values() for i in group]
    names = [names[i] for i in order]
    each = torch.tensor([list(models.values())[i][:2] for i in order]).repeat_interleave(d, 0).to(answers.device)
    split = len(groups[False]) * d
    width = net.head.weight.shape[-1]
    made = [Confusions(m, a, k, from_features=w, generator=g) for m, w in ((split, None), (n - split, width)) if m]
    everything = nn.ModuleList([net, *made])
    said = answers.repeat(len(names), 1, 1)
    found = [dawid_skene(one, k) for one in answers.cpu()]
    voted = torch.stack([majority(one, k, generator=cpu) for one in answers.cpu()]).to(answers.device)
    soft = [voted, voted, None, images.y.expand(d, -1)]
    theirs = torch.stack([t for t, _ in found]).float().to(answers.device)
    soft = torch.cat([theirs if s is None else F.one_hot(s, k).float() for s in soft])
    total = max(1, round(warm * epochs * (count // how.get("batch", 64))))
    seen = 0

    def joint(logits: Tensor, f: Tensor) -> tuple[Tensor, list[Tensor]]:
        p = raised(logits[:n]).softmax(-1)
        parts, at = [], 0
        for one in made:
            m = len(one.logits)
            parts.append(one(f[at : at + m]))
            at += m
        return p, parts

    def likelihood(p: Tensor, parts: list[Tensor], y: Tensor) -> Tensor:
        at, values = 0, []
        for t in parts:
            values.append(annotator_loss(p[at : at + len(t)], t, y[at : at + len(t)]))
            at += len(t)
        return torch.cat(values)

    def loss(rows: Tensor, epoch: int) -> Tensor:
        nonlocal seen
        f = net.features(take(images.x, rows, own=False))
        logits, grow = net.head(f), min(1.0, seen / total)
        seen += 1
        p, parts = joint(logits, f)
        value = likelihood(p, parts, take(said, rows[:n], own=True))
        value = value + grow * (each[:, 0] * entropy(p) + each[:, 1] * torch.cat([mean_trace(t) for t in parts]))
        targets, rest = take(soft, rows[n:], own=True), logits[n:]
        gce = slice(d, 2 * d)
        plain = torch.cat([targets[:d], targets[2 * d :]])
        robust = generalised_cross_entropy(rest[gce], targets[gce].argmax(-1))
        return value.sum() + robust + cross_entropy(torch.cat([rest[:d], rest[2 * d :]]), plain)

    learn(everything, loss, count, networks=len(net.head.weight), epochs=epochs, generator=g, streams=d, **how)
    told = {"accuracy": by_arm(accuracies(net, stage.test.x, stage.test.y), [*names, *PLAIN]), "voted": voted}
    with torch.no_grad():
        p, parts = joint(net(images.x), net.features(images.x))
        told["NLL"] = by_arm(likelihood(p, parts, said).tolist(), names)
        told["entropy"] = by_arm(entropy(predict(net, stage.test.x)[:n]).tolist(), names)
        recovered = torch.cat([t.mean(1) for t in parts]).mT  # rows the truth
    off = (recovered - matrices.repeat(len(names), 1, 1, 1).to(recovered)).abs().sum(-1).mean((1, 2))
    told["error"] = by_arm(off.tolist(), names)
    theirs = torch.stack([m for _, m in found]).to(matrices)
    told["error"]["Dawid-Skene"] = float((theirs - matrices).abs().sum(-1).mean())
    told["recovered"] = {name: recovered[i * d].cpu() for i, name in enumerate(names)}
    return told
