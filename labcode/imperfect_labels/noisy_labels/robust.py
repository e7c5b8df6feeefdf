"""The rivals of every table: a loss that trusts hard samples less, early stopping, training longer, Co-teaching."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_index, raised
from ...nets.stacked import take
from ..training import accuracies, cross_entropy, predict
from .stage import Images, Stage, learn, rounds


def generalised_cross_entropy(
    logits: Float[Tensor, "n b k"], labels: Int[Tensor, "n b"], q: float = 0.7
) -> Float[Tensor, ""]:
    """(1 - p_y^q) / q, mean over the batch, summed over the networks: GCE (Zhang and Sabuncu 2018, equation 6).

    q  in (0, 1]: near 0 it is cross-entropy, at 1 the mean absolute error; 0.7 is the paper's

    The gradient of a sample is that of cross-entropy times p_y^q: what the network does not believe hardly pulls. The
    paper's truncated variant is left out. Raises ValueError for q out of range and classes out of range.
    """
    if not 0 < q <= 1:
        raise ValueError(f"q must be in (0, 1], got {q}")
    check_index("labels", labels, logits.shape[-1])
    log_p = raised(logits).log_softmax(-1).gather(-1, labels.long()[..., None])[..., 0]
    return -(torch.expm1(q * log_p) / q).mean(-1).sum()


def forward_cross_entropy(
    logits: Float[Tensor, "n b k"], labels: Int[Tensor, "n b"], matrix: Float[Tensor, "_ _"]
) -> Float[Tensor, ""]:
    """Forward correction (Patrini et al. 2017, equation 5): cross-entropy of T^T p, where T is the noise.

    matrix  rows are true classes, (a, b) the chance that a is labelled b

    Mean over the batch, summed over the networks. Raises ValueError for a matrix of another size.
    """
    if matrix.shape != (logits.shape[-1],) * 2:
        raise ValueError(f"matrix must be {(logits.shape[-1],) * 2}, got {tuple(matrix.shape)}")
    p = raised(logits).softmax(-1) @ matrix.to(logits)
    return -p.gather(-1, labels.long()[..., None]).clamp_min(1e-12).log()[..., 0].mean(-1).sum()


def small_loss(loss: Float[Tensor, "n b"], keep: float) -> Float[Tensor, "n b"]:
    """1 / (kept) for the share ``keep`` of each row with the smallest loss, 0 for the others: weights that sum to 1.

    keep  in (0, 1]; at least one sample is kept. Raises ValueError for keep out of range.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be in (0, 1], got {keep}")
    count = max(1, int(keep * loss.shape[1]))
    best = loss.argsort(1)[:, :count]
    return torch.zeros_like(loss).scatter_(1, best, 1 / count)


def co_teaching_weights(loss: Float[Tensor, "n b"], keep: float) -> Float[Tensor, "n b"]:
    """Co-teaching (Han et al. 2018, algorithm 1): network 2m trains on what network 2m + 1 finds easy, and back.

    loss  each network's losses on the *same* batch, pairs of networks one after the other

    Raises ValueError for an odd number of networks.
    """
    if len(loss) % 2:
        raise ValueError(f"loss must have pairs of networks, got {len(loss)}")
    chosen = small_loss(loss.detach(), keep)
    return chosen.view(-1, 2, loss.shape[1]).flip(1).reshape(loss.shape)


def repeated(labels: Int[Tensor, "d N"], arms: int) -> Int[Tensor, "ad N"]:
    """The draws' labels for each of several arms, one arm's draws after another's: network i has draw i mod d."""
    return labels.repeat(arms, 1)


def by_arm(values: list[float], arms: list[str]) -> dict[str, float]:
    """The mean over each arm's networks, which stand one arm after another."""
    each = len(values) // len(arms)
    return {name: sum(values[i * each : (i + 1) * each]) / each for i, name in enumerate(arms)}


def rivals(
    stage: Stage, images: Images, labels: Int[Tensor, "d N"], seed: int, epochs: int, *, longer: int = 2,
    extra: dict[str, Float[Tensor, "d N"]] | None = None, **how,
) -> dict[str, dict]:  # fmt: skip
    """What plain means do with wrong labels: test accuracy of each arm, and what it memorised.

    labels  one row a draw
    longer  the arm "training longer" has so many times the epochs, on half of the draws
    extra   weights of the samples for further arms of plain cross-entropy, such as 0 for what a detector removed

    Returns {"accuracy": {arm: mean over the draws}, "memorised": share of the wrong labels that the network ends up
    gives, "track": {arm: test accuracy after each second epoch}}. Early stopping holds a fifth of the samples back,
    with their wrong labels, and takes the epoch in which it agrees with them most.
    """
    d, n_samples = labels.shape
    names = ["cross-entropy", "early stopping", "GCE", *(extra or {})]
    weights = torch.ones(len(names), d, n_samples, device=labels.device)
    weights[1, :, : n_samples // 5] = 0
    for i, given in enumerate((extra or {}).values(), 3):
        weights[i] = given
    weights, all_labels = weights.flatten(0, 1), repeated(labels, len(names))
    g = stage.generator(seed, 11)
    net = stage.net(len(all_labels), generator=g, same=d)
    gce, track, best = slice(2 * d, 3 * d), [], torch.zeros(2, d)

    def loss(rows: Tensor, epoch: int) -> Tensor:
        logits, y = net(take(images.x, rows, own=False)), take(all_labels, rows, own=True)
        w = take(weights, rows, own=True)
        w = w / w.mean(1, keepdim=True).clamp_min(1e-6)
        robust = generalised_cross_entropy(logits[gce], y[gce])
        w = torch.cat([w[: 2 * d], torch.zeros_like(w[gce]), w[3 * d :]])
        return robust + cross_entropy(logits, y, w)

    last = rounds(epochs, n_samples, how.get("batch", 64)) - 1

    def after(epoch: int) -> None:
        if epoch % 2 and epoch != last:
            return
        track.append(torch.tensor(accuracies(net, stage.test.x, stage.test.y)))
        held = slice(0, n_samples // 5)
        agreed = torch.tensor(accuracies(net, images.x[held], all_labels[:, held]))[d : 2 * d]
        better = agreed > best[0]
        best[0], best[1] = torch.where(better, agreed, best[0]), torch.where(better, track[-1][d : 2 * d], best[1])

    learn(net, loss, n_samples, networks=len(all_labels), epochs=epochs, generator=g, streams=d, after=after, **how)
    told = {"accuracy": by_arm(track[-1].tolist(), names), "track": by_arm(torch.stack(track, 1), names)}
    told["accuracy"]["early stopping"] = float(best[1].mean())
    said = predict(net, images.x).argmax(-1)
    wrong = all_labels != images.y
    shares = ((said == all_labels) & wrong).sum(1) / wrong.sum(1).clamp_min(1)
    told["memorised"] = by_arm(shares.tolist(), names)
    if longer > 1:
        g = stage.generator(seed, 12)
        labels = labels[: max(1, d // 2)]
        d = len(labels)
        net = stage.net(d, generator=g)

        def plain(rows: Tensor, epoch: int) -> Tensor:
            return cross_entropy(net(take(images.x, rows, own=False)), take(labels, rows, own=True))

        learn(net, plain, n_samples, networks=d, epochs=longer * epochs, generator=g, **how)
        told["accuracy"]["training longer"] = sum(accuracies(net, stage.test.x, stage.test.y)) / d
    return told


def per_sample(logits: Float[Tensor, "n b k"], labels: Int[Tensor, "n b"]) -> Float[Tensor, "n b"]:
    """Cross-entropy of every sample."""
    return F.cross_entropy(raised(logits).flatten(0, 1), labels.flatten().long(), reduction="none").view(labels.shape)
