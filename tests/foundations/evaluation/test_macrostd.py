"""MacroStd against NumPy's weighted deviation, closed forms and shuffled groups."""

import math

import numpy as np
import pytest
import torch
from foundations.evaluation.helpers import g

from labcode.foundations import evaluation as E


def test_macro_std_is_the_weighted_deviation_of_numpy_loops():
    n, classes, subgroups = 400, 4, 3
    labels, groups = torch.randint(classes, (n,), generator=g()), torch.randint(subgroups, (n,), generator=g(1))
    groups[labels == 2] = groups[labels == 2].clamp(max=1)  # a subgroup without images
    correct = torch.rand(n, generator=g(2)) < 0.3 + 0.2 * groups
    accuracy, counts = E.subgroup_accuracy(correct, labels, groups, classes, subgroups)
    spreads = []
    for c in range(classes):
        cells = [correct[(labels == c) & (groups == k)].double().numpy() for k in range(subgroups)]
        cells = [cell for cell in cells if len(cell)]
        means, sizes = [cell.mean() for cell in cells], [len(cell) for cell in cells]
        middle = np.average(means, weights=sizes)
        spreads.append(math.sqrt(np.average((np.array(means) - middle) ** 2, weights=sizes)))
        assert middle == pytest.approx(float(correct[labels == c].double().mean()))
    assert E.macro_std(accuracy, counts) == pytest.approx(np.mean(spreads), rel=1e-10)
    assert counts.sum() == n and counts[2, 2] == 0



def test_scores_are_those_of_the_two_test_sets():
    labels, groups = torch.randint(3, (2, 300), generator=g(4))
    images = torch.where(torch.rand(300, generator=g(5)) < 0.7, labels, (labels + 1) % 3).view(-1, 1, 1, 1).float()
    usual, even = ((images[part], labels[part], groups[part]) for part in (slice(200), slice(200, None)))
    scores, cells = E.subgroup_scores(lambda x: x.flatten().long(), usual, even, 3, 3)

    def by_hand(x, y, w):
        hit = [[[a == b for a, b, k in zip(x.flatten(), y, w, strict=True) if b == c and k == group]
                for group in range(3)] for c in range(3)]  # fmt: skip
        return [[sum(map(bool, cell)) / len(cell) for cell in row] for row in hit]

    torch.testing.assert_close(cells, torch.tensor(by_hand(*usual), dtype=cells.dtype))
    assert scores["accuracy"] == pytest.approx(float((usual[0].flatten() == usual[1]).float().mean()))
    assert scores["even"] == pytest.approx(sum(map(sum, by_hand(*even))) / 9)
    right = usual[0].flatten() == usual[1]
    assert scores["macro"] == E.macro_std(*E.subgroup_accuracy(right, *usual[1:], 3, 3))
    assert scores["chance"] == E.chance_macro_std(right, *usual[1:], 3, 3, draws=5)

def test_macro_std_closed_forms():
    even = torch.full((2, 2), 10.0).double()
    assert E.macro_std(torch.tensor([[0.0, 1], [1, 0]]).double(), even) == pytest.approx(0.5)
    assert E.macro_std(torch.full((2, 2), 0.7).double(), even) == pytest.approx(0, abs=1e-12)
    uneven = torch.tensor([[30.0, 10]]).double()
    assert E.macro_std(torch.tensor([[0.8, 0.4]]).double(), uneven) == pytest.approx(math.sqrt(3 / 16) * 0.4)
    assert E.macro_std(torch.tensor([[0.8, 0.4]]).double(), 7 * uneven) == pytest.approx(math.sqrt(3 / 16) * 0.4)


@pytest.mark.bad_input
def test_macro_std_refuses_a_class_without_images():
    with pytest.raises(ValueError, match=r"every class needs images, got none for \[1\]"):
        E.macro_std(torch.zeros(2, 2), torch.tensor([[1.0, 1], [0, 0]]))


def test_chance_macro_std_is_that_of_groups_shuffled_within_classes():
    labels, groups = torch.arange(300) % 3, torch.randint(4, (300,), generator=g())
    correct = torch.rand(300, generator=g(1)) < 0.4 + 0.5 * (groups == labels)
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        dealt = groups.clone()
        for c in range(3):
            where = np.flatnonzero((labels == c).numpy())
            dealt[where] = groups[rng.permutation(where)]
        found.append(E.macro_std(*E.subgroup_accuracy(correct, labels, dealt, 3, 4)))
    ours = E.chance_macro_std(correct, labels, groups, 3, 4, draws=300)
    assert ours == pytest.approx(np.mean(found), abs=4 * np.std(found) / math.sqrt(150))
    assert ours < 0.5 * E.macro_std(*E.subgroup_accuracy(correct, labels, groups, 3, 4))
    assert E.chance_macro_std(torch.ones(300, dtype=torch.bool), labels, groups, 3, 4) == 0


def test_coloured_scenes_prefer_a_colour_with_probability_rho():
    made = E.coloured_scenes(4000, 0, "train", 0.7)
    usual = made.factors["group"] == made.labels % 5
    assert float(usual.float().mean()) == pytest.approx(0.7 + 0.3 / 5, abs=0.03)
    off = made.factors["background"] - torch.tensor(E.PALETTE)[made.factors["group"]]
    assert off.abs().max() <= 0.05 + 1e-6
    sure = E.coloured_scenes(200, 1, "test", 1.0)
    assert torch.equal(sure.factors["group"], sure.labels % 5)
    even = E.coloured_scenes(4000, 0, "train", 0.0)
    table = torch.bincount(even.labels * 5 + even.factors["group"], minlength=50).view(10, 5).double()
    assert float(table.min()) > 40 and float((even.factors["group"] == even.labels % 5).double().mean()) < 0.25


@pytest.mark.bad_input
def test_coloured_scenes_refuse_a_rho_that_is_no_probability():
    with pytest.raises(ValueError, match=r"rho must be in \[0, 1\], got 1.5"):
        E.coloured_scenes(3, 0, "train", 1.5)


def test_border_colours_look_at_the_border_alone():
    x = torch.rand(20, 3, 8, 8, generator=g())
    x[:5] = torch.tensor(E.PALETTE)[:, :, None, None] + 0.05
    x[:5, :, 2:-2, 2:-2] = 0.5
    found = E.border_colours(x)
    assert found[:5].tolist() == [0, 1, 2, 3, 4]
    for image, colour in zip(x, found.tolist(), strict=True):
        pixels = [image[:, i, j] for i in range(8) for j in range(8) if min(i, j, 7 - i, 7 - j) < 2]
        mean = torch.stack(pixels).mean(0)
        assert colour == int(np.argmin([float((mean - torch.tensor(p)).norm()) for p in E.PALETTE]))


@pytest.mark.bad_input
def test_labels_groups_and_images_out_of_range_are_refused_by_name():
    right, y = torch.ones(4, dtype=torch.bool), torch.arange(4) % 2
    for args, message in [
        ((right, y + 1, y, 2, 2), "labels must lie in 0 … 1, got 1 … 2"),
        ((right, y, y - 1, 2, 2), "groups must lie in 0 … 1, got -1 … 0"),
        ((right, y, y[:3], 2, 2), "groups must be one an image, 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            E.subgroup_accuracy(*args)
    x = torch.rand(2, 3, 8, 8, generator=g())
    for images, width, message in [
        ((255 * x).byte(), 2, "images must be float in .0, 1."),
        (255 * x, 2, "images must be float in .0, 1."),
        (x, 4, "width must be in 1 … 3, got 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            E.border_colours(images, width)
    assert torch.equal(E.border_colours(x.half()), E.border_colours(x.half().float()))
