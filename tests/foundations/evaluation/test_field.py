"""Many models on candidates and samples: their number, their sizes, annotators who can read."""

from functools import partial

import numpy as np
import pytest
import torch

from labcode.data.batches import mixed_seed
from labcode.foundations import evaluation as E


def test_classifiers_are_many_fitted_alike_each_time_and_better_with_more_images():
    x, y = E.grey_digits(300, 0, "fit", 0.1)
    test, labels = E.grey_digits(200, 0, "validation", 0.1)
    models = E.classifiers(x, y, (60, 300))
    right = (E.predicted(models, test) == labels).double().mean(1)
    assert len(models) == 42
    assert torch.equal(E.predicted(models, test), E.predicted(E.classifiers(x, y, (60, 300)), test))
    accuracy = dict(zip(models, right.tolist(), strict=True))
    few, more = ([a for name, a in accuracy.items() if name.endswith(f", {size} images")] for size in (60, 300))
    assert len(few) == len(more) == 21 and np.mean(more) > np.mean(few) + 0.05 and min(more) > 0.15


def test_the_quick_field_has_its_sizes_a_harder_source_and_annotators_who_can_read():
    field = E.digit_field(0, "fit", "validation", (150, 120), samples=30, annotators=5, sizes=(100, 400))
    assert field.said.shape == (42, 270) and field.right.shape == (42, 30) and field.agree.shape == (5, 270)
    assert field.fresh.tolist() == [False] * 150 + [True] * 120
    assert field.adapted.shape == (21, 270) and [field.names[i] for i in field.partners] == list(field.names[1::2])
    drawn = [E.traced_digits(n, s, "validation", 0.1, more) for n, s, more in ((150, mixed_seed(0, 0), 0.0),)]
    assert torch.equal(field.origin[:150], drawn[0][2]) and torch.equal(field.labels[:150], drawn[0][1])
    of_digit = {(int(o), int(y)) for o, y in zip(field.origin, field.labels, strict=True)}
    assert len({o for o, _ in of_digit}) == len(of_digit), "an image has one class"
    share, right = field.agree.double().mean(0), (field.said == field.labels).double().mean(0)
    for measure in (share, right):
        assert 0.3 < float(measure[field.fresh].mean()) < float(measure[~field.fresh].mean()) - 0.03


def test_annotators_in_a_hurry_are_networks_that_see_every_image_in_noise_of_their_own():
    x, y = E.grey_digits(400, 1, "fit", 0.2)
    shown = E.grey_digits(1, 2, "validation", 0.0)[0].expand(300, 64)
    still, seen = (E.hurried(x, y, shown, noise, 4, 0, epochs=4) for noise in (0.0, 1.0))
    assert still.shape == (4, 300) and all(len(row.unique()) == 1 for row in still)
    assert all(len(row.unique()) > 2 for row in seen) and not torch.equal(seen[0], seen[1])
    assert torch.equal(seen, E.hurried(x, y, shown, 1.0, 4, 0, epochs=4))
    parts = E.hurried(x, y, shown[:100], 0.0, 4, 0, epochs=4, chunk=30)
    assert torch.equal(parts, still[:, :100])


def test_speed_runs_repeat_what_is_not_varied_and_stand_in_a_field():
    x, y = E.photo_patches(54, 1, "fit", 8)
    test, labels = E.photo_patches(36, 1, "validation", 8)
    train = E.SpeedRun(E.Recipe(widths=(8, 12), epochs=2, batch=18, translate=1), x, y, test, labels, 9)
    fixed = E.repeated(train, (False,) * 3, 2, 0)
    assert fixed.shape == (2, 36) and torch.equal(fixed[0], fixed[1])
    accuracy = train(5).tta
    assert float((train.predicted == labels).float().mean()) == pytest.approx(accuracy)
    for sources in ((True, False, False), (False, True, True)):
        made = E.repeated(train, sources, 3, 0)
        assert not torch.equal(made[0], made[1]) and torch.equal(made, E.repeated(train, sources, 3, 0))
    before, weights = {}, train.net.blocks[0].conv1.weight
    real = train.train
    for nudge in (None, 3):
        train.train = lambda *a, nudge=nudge: before.update({nudge: weights.detach().clone()}) or real(*a)
        train(5, start=6, nudge=nudge)
    changed = (before[3] - before[None]).nonzero().tolist()
    assert [place[0] for place in changed] == [3] and float((before[3] - before[None]).sum()) == pytest.approx(0.1)


def test_kinds_stay_together_in_a_fold():
    names = tuple(f"{kind}, {size} images" for kind in "abcdefg" for size in (10, 20))
    fold = E.by_kind(names, 3, 0).tolist()
    assert fold[::2] == fold[1::2] and sorted(map(fold[::2].count, range(3))) == [2, 2, 3]
    assert any(E.by_kind(names, 3, s).tolist() != fold for s in range(1, 5))


def test_the_field_of_speed_runs_has_models_of_one_half_and_annotators_of_the_other():
    x, y = E.photo_patches(72, 1, "fit", 9)
    test, labels = E.photo_patches(108, 1, "validation", 9)
    recipe = E.Recipe(widths=(8, 12), epochs=6, batch=18, optimiser="muon", lookahead=False, translate=1)
    sizes = dict(share=0.5, sizes=(4,), epochs=(1, 3))
    make = partial(E.speed_field, x, y, test, labels, (36, 24), 3, 0, recipe, **sizes)
    field = make()
    assert field.names[0] == "width 4, none flip, 1 epochs" and field.partners == (3, 4, 5)
    assert field.adapted.shape == (3, 60) and not torch.equal(field.adapted, field.said[3:])
    assert field.origin.tolist() == list(range(60)) and field.agree.shape == (3, 60)
    assert field.said.shape == (6, 60) and field.right.shape == (6, 48)
    assert field.fresh.tolist() == [False] * 36 + [True] * 24 and torch.equal(field.labels, labels[:60])
    assert torch.equal(make().said, field.said) and torch.equal(make().agree, field.agree)
    assert len(field.agree.unique(dim=0)) > 1  # each annotator has weights and noise of its own
    other = make(harder=0.9)  # the first source is as it was, the second is not
    assert torch.equal(other.said[:, :36], field.said[:, :36]) and not torch.equal(other.said, field.said)
    y = torch.cat([y[:36], torch.full_like(y[36:], 3)])  # of the half that annotators learn from
    one_sided = E.speed_field(x, y, test, labels, (36, 24), 3, 0, recipe, **sizes)
    assert torch.equal(one_sided.said, field.said)
    assert torch.equal(one_sided.agree, (labels[:60] == 3).expand(3, 60))


BAD = [
    (lambda: E.classifiers(torch.zeros(5, 2), torch.zeros(5), (9,)), "sizes must be at most the number of images, 5"),
]


@pytest.mark.bad_input
@pytest.mark.parametrize("call,message", BAD, ids=range(len(BAD)))
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert message in str(raised.value)
