"""A label model: what several cheap rules say together, each weighed by how reliable it seems without any label."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

ABSTAIN = -1


@dataclass(frozen=True)
class LabelModel:
    """Posterior (n, c) of the classes, and each rule's table (rules, c, c + 1): P(vote | class), abstention last."""

    posterior: Float[Tensor, "n c"]
    tables: Float[Tensor, "rules c c_1"]
    likelihood: list[float]


def majority_vote(votes: Int[Tensor, "n rules"], classes: int = 2) -> Float[Tensor, "n c"]:
    """Shares of the votes for each class, uniform where all abstain."""
    _check(votes, classes)
    count = torch.stack([(votes == c).sum(1) for c in range(classes)], 1).double()
    total = count.sum(1, keepdim=True)
    return torch.where(total > 0, count / total.clamp(min=1), 1 / classes)


def label_model(
    votes: Int[Tensor, "n rules"], prior: Float[Tensor, " c"], iterations: int = 50, smooth: float = 1.0
) -> LabelModel:
    """Expectation maximisation for rules that are independent given the class (Dawid and Skene 1979), with abstention.

    votes   0 … c - 1, or -1 where a rule abstains
    prior   of the classes, kept fixed: for rare bugs it must be known roughly, or rules are matched to the wrong class
    smooth  pseudo-counts in the tables, spread so that a rule is taken to be right rather than wrong at the start

    Snorkel's label model has one accuracy a rule and class and fits second moments; with abstention as one more answer
    this is the same family, fitted by likelihood. Starts at the majority vote, weighed by the prior. The likelihood,
    with its pseudo-counts, never falls.

    Raises ValueError for votes outside -1 … c - 1, a prior that is no distribution, iterations < 1 and smooth <= 0.
    """
    classes = len(prior)
    _check(votes, classes)
    if (prior <= 0).any() or abs(float(prior.sum()) - 1) > 1e-5 or iterations < 1 or smooth <= 0:
        raise ValueError(f"prior must be positive and sum to 1, iterations and smooth positive, got {prior.tolist()}")
    prior = prior.double()
    answer = torch.where(votes == ABSTAIN, classes, votes)
    hot = torch.nn.functional.one_hot(answer, classes + 1).double()  # (n, rules, c + 1)
    pseudo = smooth * torch.cat([0.5 * torch.eye(classes) + 0.5 / classes, torch.ones(classes, 1)], 1).double()
    post = majority_vote(votes, classes) * prior
    post = post / post.sum(1, keepdim=True)
    trace: list[float] = []
    for _ in range(iterations):
        count = torch.einsum("nc,nra->rca", post, hot) + pseudo
        tables = count / count.sum(2, keepdim=True)
        log = prior.log() + torch.einsum("nra,rca->nc", hot, tables.log())
        trace.append(float(log.logsumexp(1).sum() + (pseudo * tables.log()).sum()))
        post = log.softmax(1)
    return LabelModel(post, tables, trace)


def _check(votes: Tensor, classes: int) -> None:
    if votes.ndim != 2 or votes.is_floating_point() or not votes.numel():
        raise ValueError(f"votes must be (n, rules) integers, not empty, got {votes.dtype} {tuple(votes.shape)}")
    if int(votes.min()) < ABSTAIN or int(votes.max()) >= classes:
        raise ValueError(f"votes must hold -1 … {classes - 1}, got {int(votes.min())} … {int(votes.max())}")


def rules(frames: Float[Tensor, "n 3 h w"], described: Float[Tensor, "n k 6"]) -> Int[Tensor, "n 6"]:
    """Six rules of thumb about clipping, each 1 for a bug, 0 for none, -1 for no opinion.

    A large part of the view without fine detail; a region that covers much; a region at much of the border; two rules
    about brightness, which know little; a view full of detail, which speaks against a bug.

    Thresholds are shares of the frames, so that a rule speaks of the unusual in whatever world it is used.
    """
    grey = frames.mean(1)
    fine = (grey[:, 1:, 1:] - grey[:, :-1, :-1]).abs() + (grey[:, 1:, :-1] - grey[:, :-1, 1:]).abs()
    smooth = torch.nn.functional.avg_pool2d(fine[:, None], 5, 1)[:, 0]
    plain = (smooth < 0.09).double().mean((1, 2))
    largest, contact = described[..., 0].amax(1).double(), described[..., 2].amax(1).double()
    bright, contrast = grey.mean((1, 2)).double(), grey.std((1, 2)).double()
    say = lambda score, high, low: torch.where(  # noqa: E731
        score > score.quantile(high), 1, torch.where(score < score.quantile(low), 0, ABSTAIN)
    )
    columns = [say(plain, 0.93, 0.7), say(largest, 0.9, 0.5), say(contact, 0.9, 0.5), say(-bright, 0.9, 0.3),
               say(-contrast, 0.9, 0.4), say(-smooth.mean((1, 2)).double(), 0.93, 0.6)]  # fmt: skip
    return torch.stack(columns, 1)
