"""The chapter's stage: draws of labels, views, the shared trainer and the rivals."""

import pytest
import torch

import labcode as lab
from labcode.imperfect_labels import semi_supervised as S


@pytest.fixture(scope="module")
def stage():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABCODE_SCALE", "quick")
        yield S.Stage(lab.start("imperfect_labels/semi_supervised"))


def test_label_sets(stage):
    labels = stage.label_sets({1: 2, 3: 2}, 5)
    assert labels.sizes.tolist() == [10, 10, 30, 30] and labels.places.shape == (4, 30)
    rows = labels.draw(500, torch.Generator().manual_seed(0))
    for i, count in enumerate((1, 1, 3, 3)):
        seen = rows[i].unique()
        assert stage.pool.y[seen].bincount().tolist() == [count] * 10
    assert torch.equal(labels.places, stage.label_sets({1: 2, 3: 2}, 5).places)
    assert all(set(labels.places[i, :10].tolist()) <= set(labels.places[i + 2].tolist()) for i in range(2)), "nested"
    assert labels.repeat(2).places.shape == (8, 30) and len(labels.part(slice(1, 3))) == 2
    with pytest.raises(ValueError, match="sets"):
        S.padded([])


def test_tailed_sets(stage):
    counts = torch.tensor([9, 8, 7, 6, 5, 4, 3, 2, 1, 1])
    labels = stage.tailed_sets(counts, 2, 0)
    assert labels.sizes.tolist() == [46, 46]
    assert stage.pool.y[labels.places[0]].bincount(minlength=10).tolist() == counts.tolist()


def test_parts_of_a_stage(stage):
    five = stage.only((5, 6, 7, 8, 9))
    assert five.pool.y.unique().tolist() == [0, 1, 2, 3, 4] and len(five.pool) == len(stage.pool) // 2
    assert torch.equal(five.pool.x[:5], stage.pool.x[5:10])  # digit i is of class i mod 10
    some = stage.subset(20, weak=True)
    x, g = some.pool.x, stage.generator(0)
    assert len(some.pool) == 20 and torch.equal(some.strong(x, stage.generator(1)), stage.weak(x, stage.generator(1)))
    seen = stage.both(x[None], g)
    assert seen.shape == (1, 20, 196) and not torch.equal(seen[0], x)


def test_every_method_gives_a_stack_its_loss(stage):
    labels = stage.label_sets({2: 2}, 0)
    own = torch.arange(40).view(2, 20)
    methods = (S.supervised, S.pseudo_label, S.fixmatch, S.uda_method([S.Arm(), S.Arm(tsa="exp")]))
    for method in (*methods, S.uda_method([S.Arm()] * 2, adversarial=True)):
        for pool in (None, stage.pool.x[:30], own):
            net = S.learn(stage, labels, method, 0, steps=1, batch=8, unlabelled=8, pool=pool)
        assert S.scored(stage, net).shape == (2,) and not net.training
    with pytest.raises(ValueError, match="pool"):
        S.learn(stage, labels, S.supervised, 0, steps=1, pool=own + 10_000)


def test_networks_of_a_stack_learn_as_they_would_alone(stage):
    labels = stage.label_sets({3: 2}, 0)
    twice = labels.part(slice(1)).repeat(2)
    short = dict(steps=3, batch=30, unlabelled=4, same=True)
    first, second = (S.learn(stage, part, S.supervised, 0, **short) for part in (labels, twice))
    assert torch.allclose(first.head.weight[0], second.head.weight[0], atol=1e-5)
    assert not torch.allclose(first.head.weight[1], second.head.weight[1], atol=1e-3)


def test_means_by_count_and_by_arm():
    values = torch.tensor([1.0, 3.0, 5.0, 7.0])
    assert S.by_count(values, {1: 2, 4: 2}) == [2.0, 6.0] and S.by_arm(values, ["a", "b"]) == {"a": 2.0, "b": 6.0}
    found = [{"a": [1, 2]}, {"a": [3, 4]}]
    assert S.columns(found, "a", 1) == [2.0, 4.0] and S.points(found, "a") == [[1.0, 3.0], [2.0, 4.0]]


def test_resnets_have_the_same_face():
    net = S.ResNets(2, 3, 8, generator=torch.Generator().manual_seed(0), same=True).eval()
    with torch.no_grad():
        out = net(torch.rand(2, 3072, generator=torch.Generator().manual_seed(1)))
    assert out.shape == (2, 2, 3) and torch.allclose(out[0], out[1], atol=1e-5)
