"""ProtAugment (Dopierre et al., 2021): a prototypical network that is also told which paraphrases belong together.

    loss = a · CE(-‖z_q - c_k‖²) + (1 - a) · CE(-‖z_u - c̃_u'‖²),    a = 1 - (t / T)^p

c_k is the mean embedding of a class's supports, c̃_u the mean embedding of the paraphrases of an unlabelled sentence u;
the query of the second term is the sentence itself, and the other sentences' paraphrases are what it must be told from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...loss import check_positive, float32
from ...train import allowed
from .episodes import check_floating


@float32
def prototypical(
    query: Float[Tensor, "b q d"], prototypes: Float[Tensor, "b k d"], labels: Int[Tensor, "b q"]
) -> Float[Tensor, " b"]:
    """Mean cross entropy of minus the squared distances, for each of several models or tasks.

    Both terms of ProtAugment: queries against classes, sentences against the means of their paraphrases. Raises
    ValueError for shapes that do not fit, no query and no prototype.
    """
    if query.ndim != 3 or prototypes.ndim != 3 or query.shape[::2] != prototypes.shape[::2] or not query.numel():
        raise ValueError(
            f"prototypes must be (b, k, d) like query (b, q, d), got {tuple(prototypes.shape)} and {tuple(query.shape)}"
        )
    if not prototypes.numel():
        raise ValueError("prototypes must be one at least a task, got none")
    if labels.shape != query.shape[:2]:
        raise ValueError(f"labels must be (b, q), {tuple(query.shape[:2])}, got {tuple(labels.shape)}")
    if query.device.type == "cpu" and not 0 <= int(labels.min()) <= int(labels.max()) < prototypes.shape[1]:
        raise ValueError(f"labels must lie in 0 … {prototypes.shape[1] - 1}")
    check_floating(query=query, prototypes=prototypes)
    far = torch.cdist(query, prototypes, compute_mode="donot_use_mm_for_euclid_dist").square()
    return -(-far).log_softmax(2).gather(2, labels[..., None])[..., 0].mean(1)


def share(step: int, steps: int, p: float = 1.0) -> float:
    """a, the weight of the supervised term: 1 at the start, 0 at the end; p = inf keeps it at 1, small p falls at once.

    Raises ValueError for p <= 0.
    """
    if p == float("inf"):
        return 1.0
    check_positive(p=p)
    return 1 - (step / steps) ** p


@dataclass(frozen=True)
class Arm:
    """One way to train: who paraphrases, how a falls, and how many labelled sentences an intent has.

    paraphrases  (sentences, copies, length) token ids of every unlabelled sentence, or None: no second term
    p            of a = 1 - (t/T)^p; a tuple of one number is a constant a
    labelled     sentences of each training intent that are known
    """

    paraphrases: Int[Tensor, "n m l"] | None = None
    p: float | tuple[float] = 1.0
    labelled: int = 10


class Encoders(nn.Module):
    """One encoder an arm, stacked: an embedding a word, a weight a word, their weighted mean, a matrix.

    first  (words, d) to begin with, the same for all; see ``word_vectors``. Word 0 is padding
    """

    def __init__(self, arms: int, first: Float[Tensor, "w d"]):
        super().__init__()
        self.words = nn.Parameter(first.repeat(arms, 1, 1))
        self.weights = nn.Parameter(torch.zeros(arms, len(first), device=first.device))
        self.matrix = nn.Parameter(torch.eye(first.shape[1], device=first.device).repeat(arms, 1, 1))

    def forward(self, tokens: Int[Tensor, "a n l"]) -> Float[Tensor, "a n d"]:
        arm = torch.arange(len(tokens), device=tokens.device)[:, None, None]
        weight = self.weights[arm, tokens].masked_fill(tokens == 0, -torch.inf).softmax(2)
        return (weight[:, :, None] @ self.words[arm, tokens])[:, :, 0] @ self.matrix


def vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """Words in the order of the alphabet from 1 on; 0 is padding."""
    return {word: i for i, word in enumerate(sorted({w for t in texts for w in t.split()}), 1)}


def tokens(texts: Sequence[str], words: dict[str, int], length: int = 16) -> Int[Tensor, "n l"]:
    """Word numbers, cut or padded with 0; unknown words are left out."""
    rows = [[words[w] for w in t.split() if w in words][:length] or [1] for t in texts]
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def word_vectors(known: Int[Tensor, "n l"], words: int, d: int = 64) -> Float[Tensor, "w d"]:
    """Vectors from raw text: the first singular vectors of the words' positive mutual information within a sentence.

    Stands for the language model that the paper first tunes on the target's raw text. Rows have mean length 1.
    """
    present = torch.zeros(len(known), words + 1, device=known.device).scatter_(1, known, 1.0)
    present[:, 0] = 0
    joint = present.T @ present + 1e-9
    information = (joint * joint.sum() / (joint.sum(0) * joint.sum(1)[:, None])).log().clamp_min(0)
    information[0] = information[:, 0] = 0
    information.fill_diagonal_(0)
    u, s, _ = torch.linalg.svd(information)
    found = u[:, :d] * s[:d].sqrt()
    return found / found[1:].norm(dim=1).mean()


def protaugment(
    labelled: Int[Tensor, "c m l"], raw: Int[Tensor, "n l"], arms: dict[str, Arm], first: Float[Tensor, "w d"],
    seed: int, *,    steps: int = 300, ways: int = 5, shots: int = 1, queries: int = 5, unlabelled: int = 5,
    lr: float = 1e-2, scale: float = 3.0,
) -> Encoders:  # fmt: skip
    """Train every arm on the same episodes: in each, tasks of the labelled intents and sentences of the raw text.

    labelled    token ids of the training intents' sentences; an arm sees the first ``Arm.labelled`` of each
    raw         unlabelled sentences, of all intents: in the released code those of the test's as well
    unlabelled  raw sentences an episode
    lr          of Adam; embeddings are scaled by ``scale`` before distances are taken, since vectors have length 1

    Both terms pass gradients to sentences, prototypes and paraphrases.
    """
    g = torch.Generator(labelled.device).manual_seed(seed)
    model = Encoders(len(arms), first).to(labelled.device)
    optimizer, steps = torch.optim.Adam(model.parameters(), lr), allowed(steps)
    draw = lambda *size: torch.rand(*size, generator=g, device=labelled.device)  # noqa: E731
    copies = max((a.paraphrases.shape[1] for a in arms.values() if a.paraphrases is not None), default=1)
    empty = raw[:, None].expand(-1, copies, -1)
    made = torch.stack([empty if a.paraphrases is None else a.paraphrases for a in arms.values()])
    limit = torch.tensor([a.labelled for a in arms.values()], device=labelled.device)
    count, n = len(arms), ways * shots
    wanted = torch.arange(ways, device=labelled.device).repeat_interleave(queries).expand(count, -1)
    own = torch.arange(unlabelled, device=labelled.device).expand(count, -1)
    for step in range(steps):
        classes = draw(len(labelled)).argsort()[:ways]
        order = draw(ways, labelled.shape[1]).expand(count, -1, -1)
        beyond = torch.arange(labelled.shape[1], device=labelled.device) >= limit[:, None, None]
        rows = order.masked_fill(beyond, 2).argsort(2)[:, :, : shots + queries]
        sentences = labelled[classes[:, None], rows]  # (arms, ways, shots + queries, l)
        picked = torch.randint(len(raw), (unlabelled,), generator=g, device=raw.device)
        parts = [sentences[:, :, :shots].flatten(1, 2), sentences[:, :, shots:].flatten(1, 2),
                 made[:, picked].flatten(1, 2), raw[picked].expand(count, -1, -1)]  # fmt: skip
        z = scale * model(torch.cat(parts, 1))
        support, query, copied, itself = z.split([len(p[0]) for p in parts], 1)
        supervised = prototypical(query, support.view(count, ways, shots, -1).mean(2), wanted)
        unsupervised = prototypical(itself, copied.view(count, unlabelled, copies, -1).mean(2), own)
        a = torch.tensor([_share(arm, step, steps) for arm in arms.values()], device=z.device)
        optimizer.zero_grad()
        (a * supervised + (1 - a) * unsupervised).sum().backward()
        optimizer.step()
    assert n == support.shape[1]
    return model


def _share(arm: Arm, step: int, steps: int) -> float:
    if arm.paraphrases is None:
        return 1.0
    return arm.p[0] if isinstance(arm.p, tuple) else share(step, steps, arm.p)
