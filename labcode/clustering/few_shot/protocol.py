"""The chapter's three stages: letters, scenes and tables, each made once a run, and every arm judged on the same tasks.

A stage holds what costs time (images, trained encoders, features) through ``run.once``, so that papers share it, and
turns a classifier into one number a seed. Nothing here is a method.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...data import digits
from ...nets import estimate_statistics
from .alphabets import letters, printed
from .base_training import base_training, embed, episodic_training
from .episodes import Soft, Tasks, accuracy, centred_unit, draw_tasks, nearest_prototype
from .intents import bleu, intents, request
from .patterned import coarse, segmentation_tasks
from .protaugment import tokens, vocabulary
from .repri import mean_iou, seen
from .stunt import labelled_tasks, minmax
from .unem import name_probabilities

Classifier = Callable[[Tasks], Soft]


class Letters:
    """Base, validation and novel letters and written digits, encoders trained on the base, and tasks of their features.

    run        the chapter's run: its seeds, device and ``once``
    make       ``make()`` -> encoder with ``features``
    side       pixels of an image
    per_class  images of every letter
    count      tasks of an experiment, unless it says otherwise
    steps      of base training and of episodic training

    While settings are chosen, signs take the place of the novel letters, and training digits that of the test's.
    """

    def __init__(self, run, make, *, side: int, per_class: int, count: int, steps: int):
        self.run, self.make, self.side, self.per_class = run, make, side, per_class
        self.count, self.steps = count, steps
        self.alphabets = dict(base="latin", validation="greek", novel="signs" if run.tuning else "cyrillic")

    def images(self, seed: int) -> dict[str, Float[Tensor, "c m 1 s s"]]:
        """Images by part: "base", "validation", "novel" and "written"."""

        def made():
            g = self.run.generator(seed)
            found = {k: letters(v, self.per_class, g, size=self.side) for k, v in self.alphabets.items()}
            first, last = (3200, 4000) if self.run.tuning else (4000, 5000)
            written = digits("mnist")[0][first:last].to(self.run.device).view(-1, 10, 1, 28, 28).transpose(0, 1)
            small = F.interpolate(written.flatten(0, 1), (self.side, self.side), mode="area")
            return found | dict(written=small.view(10, -1, 1, self.side, self.side))

        return self.run.once(("letters", seed), made)

    def encoder(self, seed: int, kind: str) -> nn.Module:
        """A frozen encoder: of "base" training, of "episodic" training, or "untrained". ValueError for others."""

        def made():
            images = self.images(seed)["base"]
            if kind == "base":
                return base_training(self.make, images, seed, steps=self.steps)
            if kind == "episodic":
                return episodic_training(self.make, images, seed, steps=self.steps)
            torch.manual_seed(seed)
            net = self.make().to(self.run.device)
            return estimate_statistics(net, images.flatten(0, 1)[::8][:512].split(128))

        if kind not in ("base", "episodic", "untrained"):
            raise ValueError(f"kind must be base, episodic or untrained, got {kind!r}")
        return self.run.once(("encoder", seed, kind), made)

    def features(self, seed: int, part: str, net: str | Callable | None = "base") -> Float[Tensor, "c m d"]:
        """Features of a part, centred by the mean of every eighth base image and of length 1.

        net  a kind of ``encoder``; a function of the seed that gives one; None leaves the pixels
        """
        encoder = self.encoder(seed, net) if isinstance(net, str) else net and net(seed)
        see = (lambda x: x.flatten(2)) if encoder is None else (lambda x: embed(encoder, x))
        key, images = ("features", seed, id(encoder)), self.images(seed)
        mean = self.run.once((*key, "mean"), lambda: see(images["base"][:, ::8]).flatten(0, 1).mean(0))
        return self.run.once((*key, part), lambda: centred_unit(mean)(see(images[part])))

    def tasks(self, seed: int, part: str = "novel", net="base", count: int | None = None, **kinds) -> Tasks:
        """Tasks of a part: the same draw for every encoder. ``kinds`` are options of ``draw_tasks``."""
        z = self.features(seed, part, net)
        return draw_tasks(z, count or self.count, self.run.generator(10_000 + seed), **kinds)

    def score(self, classify: Classifier | Sequence[Classifier], part: str = "novel", **kinds) -> list[float]:
        """Accuracy over tasks, one value a seed; of one classifier, or of one for each seed."""
        seeds = self.run.seeds
        each = [classify] * len(seeds) if callable(classify) else classify
        made = (self.tasks(s, part, **kinds) for s in seeds)
        return [accuracy(f(t), t) for f, t in zip(each, made, strict=True)]

    def named(self, seed: int, part: str, count: int, shots: int = 4) -> Tasks:
        """Tasks whose features are cosines to the names of their twenty candidates: the clean print of each letter."""
        encoder, images = self.encoder(seed, "base"), self.features(seed, part)
        change = centred_unit(embed(encoder, self.images(seed)["base"][:, ::8]).flatten(0, 1).mean(0))
        clean = F.avg_pool2d(printed(self.alphabets[part], 2 * self.side)[:, :1], 2)[:, :, None].to(self.run.device)
        names = change(embed(encoder, clean))
        both = torch.cat([images, names.expand_as(images)], 2)  # the name goes along until the task is drawn
        t = draw_tasks(both, count, self.run.generator(seed), ways=20, present=5, shots=shots)
        d = images.shape[2]
        return name_probabilities(t.map(lambda z: z[..., :d]), t.prototypes[..., d:])


class Scenes:
    """Segmentation tasks, what frozen pixel encoders see of them, and mean IoU.

    encoders  by kind, functions of the seed
    count     one-shot tasks on the grounds of training; other shots and louder grounds have half as many
    """

    def __init__(self, run, encoders: dict[str, Callable[[int], nn.Module]], count: int):
        self.run, self.encoders, self.count = run, encoders, count
        self.part = "validation" if run.tuning else "test"

    def seen(self, seed: int, shots: int = 1, kind: str = "base", ground: float = 0.1):
        """Features of supports, their masks, features of the query; and the tasks."""
        net = self.run.once(("pixels", seed, kind), lambda: self.encoders[kind](seed))
        count = self.count if (shots, ground) == (1, 0.1) else self.count // 2

        def drawn():
            g = torch.Generator().manual_seed(seed)
            return segmentation_tasks(self.part, count, shots, g, ground=ground).to(self.run.device)

        t = self.run.once(("scenes", seed, shots, ground), drawn)
        return self.run.once(("seen", seed, kind, shots, ground), lambda: seen(net, t)), t

    def iou(self, segment, shots: int = 1, kind: str = "base", ground: float = 0.1, off: float | None = None):
        """Mean IoU of a way to segment, one value a seed; with ``off`` it is told the true share, times 1 + off."""
        found = []
        for z, t in (self.seen(s, shots, kind, ground) for s in self.run.seeds):
            share = coarse(t.query_mask, z[2].shape[-1]).float().mean((1, 2))
            told = {} if off is None else dict(prior=(share * (1 + off)).clamp(0, 1))
            found.append(mean_iou(segment(*z, **told), t.query_mask, t.classes))
        return found


class Tables:
    """Tables in two parts: rows to learn from without labels and to label a few of, and new rows to judge on.

    loaders  by name, scikit-learn's functions that give (x, y)

    Four fifths are learnt from; while settings are chosen, four fifths of these, and the rest of them is judged on.
    """

    def __init__(self, run, loaders: dict[str, Callable]):
        self.run, self.loaders = run, loaders

    def split(self, table: str, seed: int) -> tuple[Tensor, Int[Tensor, " n"], Tensor, Int[Tensor, " m"]]:
        """Rows, labels, new rows, new labels; columns in [0, 1] over the first."""

        def made():
            x, y = (torch.as_tensor(part).to(self.run.device) for part in self.loaders[table](return_X_y=True))
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(self.run.device)
            fit, new = order[: 4 * len(x) // 5], order[4 * len(x) // 5 :]
            if self.run.tuning:
                fit, new = fit[: 4 * len(fit) // 5], fit[4 * len(fit) // 5 :]
            return minmax(x[fit].float()), y[fit], minmax(x[new].float(), x[fit].float()), y[new]

        return self.run.once(("table", table, seed), made)

    @torch.no_grad()
    def score(self, table: str, nets: Sequence | None, shots: int, classify=nearest_prototype, draws: int = 100):
        """Accuracy with so many labelled rows a class, over draws of them, one value a seed.

        nets  an encoder a seed, or None for the raw columns; every row is embedded once
        """
        found = []
        for seed, net in zip(self.run.seeds, nets or [lambda x: x] * len(self.run.seeds), strict=True):
            x, y, new, new_y = self.split(table, seed)
            t = labelled_tasks(net(x), y, net(new), new_y, shots, draws, self.run.generator(seed))
            found.append(accuracy(classify(t), t))
        return found


@dataclass(frozen=True)
class Requests:
    """Requests as word numbers: of known and of new intents, unlabelled ones, and these paraphrased in several ways."""

    known: Int[Tensor, "c m l"]
    new: Int[Tensor, "c m l"]
    raw: Int[Tensor, "n l"]
    paraphrased: dict[str, Int[Tensor, "n 5 l"]]
    words: int
    bleu: dict[str, float]  # of the paraphrases with their source, by way


def requests(seed: int, ways: dict[str, Callable], labelled: int, device="cpu") -> Requests:
    """Known and new intents, ``labelled`` requests of each, sixteen unlabelled ones, and five paraphrases of those.

    ways  by name, functions of a sentence and a generator
    """
    g, both = random.Random(seed), intents(seed)
    texts = [[[str(request(i, g)) for _ in range(labelled)] for i in part] for part in both]
    raw = [request(i, g) for i in both[0] + both[1] for _ in range(16)]
    made = {name: [[str(f(s, g)) for _ in range(5)] for s in raw] for name, f in ways.items()}
    every = [t for part in texts for row in part for t in row] + [str(s) for s in raw]
    words = vocabulary(every + [t for rows in made.values() for row in rows for t in row])
    stack = lambda rows: torch.stack([tokens(row, words) for row in rows]).to(device)  # noqa: E731
    known, new = (stack(part) for part in texts)
    like = {}
    for name, rows in made.items():  # every sixth sentence is enough
        values = [bleu(t, str(s)) for s, row in zip(raw[::6], rows[::6], strict=True) for t in row]
        like[name] = sum(values) / len(values)
    paraphrased = {name: stack(rows) for name, rows in made.items()}
    return Requests(known, new, stack([[str(s) for s in raw]])[0], paraphrased, len(words), like)


def bags(seed: int, each: int = 40) -> Float[Tensor, "c m w"]:
    """New intents as bags of words: 1 where a word stands in the request."""
    g = random.Random(seed)
    texts = [[str(request(i, g)) for _ in range(each)] for i in intents(seed)[1]]
    words = vocabulary([t for row in texts for t in row])
    ids = torch.stack([tokens(row, words) for row in texts])
    return torch.zeros(*ids.shape[:2], len(words) + 1).scatter_(2, ids, 1.0)[..., 1:]
