"""The stages make things once, show every arm the same tasks, and keep test material out of the choice of settings."""

from functools import lru_cache, partial

import pytest
import torch
from sklearn.datasets import load_wine

from labcode import nets
from labcode.clustering import few_shot as F


class Run:
    """As much of a run as the stages ask for."""

    seeds, device = (0, 1), torch.device("cpu")

    def __init__(self, tuning=False):
        self.tuning, self.held = tuning, {}

    def once(self, key, make):
        if key not in self.held:
            self.held[key] = make()
        return self.held[key]

    def generator(self, seed):
        return torch.Generator().manual_seed(seed)


@lru_cache
def stage(tuning=False):
    return F.Letters(Run(tuning), partial(nets.SmallNet, 4, 8, 16, 1, 8), side=16, per_class=17, count=4, steps=1)


def test_letters_are_made_once_and_tuning_sees_other_classes():
    one, other = stage(), stage(tuning=True)
    assert one.images(0)["base"] is one.images(0)["base"]
    assert one.images(0)["base"].shape == (41, 17, 1, 16, 16) and one.images(0)["written"].shape == (10, 100, 1, 16, 16)
    assert torch.equal(one.images(0)["base"], other.images(0)["base"])
    assert not any(torch.equal(one.images(0)[part], other.images(0)[part]) for part in ("novel", "written"))


def test_every_encoder_gets_the_same_tasks():
    at = stage()
    assert at.encoder(0, "untrained") is at.encoder(0, "untrained")
    kinds = dict(ways=3, queries=9)
    pixels, seen = at.tasks(0, net=None, **kinds), at.tasks(0, net="untrained", **kinds)
    assert torch.equal(pixels.query_y, seen.query_y) and pixels.query.shape[2] == 256 and seen.query.shape[2] == 8
    assert torch.allclose(seen.query.norm(dim=2), torch.ones(4, 9), atol=1e-5)
    mine = at.features(0, "novel", lambda seed: at.encoder(seed, "untrained"))
    assert torch.equal(mine, at.features(0, "novel", "untrained"))
    with pytest.raises(ValueError, match="kind"):
        at.encoder(0, "best")


def test_a_score_is_one_value_a_seed_for_one_classifier_or_one_each():
    at = stage()
    kinds = dict(net=None, ways=3, queries=9)
    same = at.score(F.nearest_prototype, **kinds)
    assert len(same) == 2 and same == at.score([F.nearest_prototype] * 2, **kinds)
    assert same == [F.accuracy(F.nearest_prototype(t), t) for t in (at.tasks(s, **kinds) for s in (0, 1))]
    with pytest.raises(ValueError):
        at.score([F.nearest_prototype], **kinds)


def test_named_tasks_have_a_cosine_to_each_candidate():
    t = stage().named(0, "novel", 2, shots=1)
    assert t.query.shape == (2, 75, 20) and t.support.shape == (2, 20, 20)
    assert float(t.query.abs().max()) <= 1 + 1e-5 and all(len(y.unique()) == 5 for y in t.query_y)


def test_scenes_tell_the_true_share_times_one_plus_off():
    scenes = F.Scenes(Run(), {"base": lambda seed: F.PixelNet(4, 6).eval()}, 4)
    told = []

    def segment(zs, masks, query, prior=None):
        told.append(prior)
        return torch.zeros(len(query), *query.shape[2:])

    assert scenes.iou(segment) == [0.0, 0.0] and told == [None, None]
    assert len(scenes.seen(0)[1].query) == 4 and len(scenes.seen(0, 2)[1].query) == 2
    scenes.iou(segment, off=0.0), scenes.iou(segment, off=0.5)
    assert torch.allclose(told[4], 1.5 * told[2])
    share = (scenes.seen(0)[1].query_mask == 1).float().mean((1, 2))
    assert torch.allclose(told[2], share, atol=0.05)


def test_tables_are_split_in_two_and_tuning_never_sees_the_test_rows():
    real, tuning = (F.Tables(Run(flag), {"wine": load_wine}) for flag in (False, True))
    x, y, new, new_y = real.split("wine", 0)
    assert (len(x), len(new)) == (142, 36) and float(x.min()) == 0 and float(x.max()) == 1
    assert len(tuning.split("wine", 0)[0]) + len(tuning.split("wine", 0)[2]) == 142
    found = real.score("wine", None, 5, draws=20)
    assert len(found) == 2 and all(0.8 < value <= 1 for value in found)


def test_requests_are_numbered_in_one_vocabulary():
    ways = {"plain": partial(F.paraphrase, forbidden=0.0), "all": partial(F.paraphrase, forbidden=1.0)}
    said = F.requests(0, ways, 2)
    assert said.known.shape == said.new.shape == (24, 2, 16) and said.raw.shape == (768, 16)
    assert said.paraphrased["plain"].shape == (768, 5, 16) and said.bleu["all"] < said.bleu["plain"] <= 1
    assert int(max(said.known.max(), said.raw.max(), said.paraphrased["all"].max())) <= said.words
    bag = F.bags(0, 3)
    assert bag.shape[:2] == (24, 3) and set(bag.unique().tolist()) == {0.0, 1.0}
