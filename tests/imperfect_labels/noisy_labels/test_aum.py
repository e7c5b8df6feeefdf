"""AUM: margins, threshold samples and the flag."""

import pytest
import torch

from labcode.imperfect_labels.noisy_labels import Margins, flagged, margins, threshold_sets


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_margins_against_a_loop():
    z, y = draw(3, 7, 5), torch.randint(5, (3, 7), generator=torch.Generator().manual_seed(1))
    got = margins(z, y)
    for n in range(3):
        for i in range(7):
            others = [float(z[n, i, c]) for c in range(5) if c != int(y[n, i])]
            assert float(got[n, i]) == pytest.approx(float(z[n, i, y[n, i]]) - max(others))
    assert torch.allclose(margins(z + 3, y), got)
    assert margins(z.half(), y).dtype == torch.float32


def test_margins_refuse_one_class_and_strange_labels():
    with pytest.raises(ValueError, match="2 classes"):
        margins(torch.zeros(1, 2, 1), torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="labels"):
        margins(torch.zeros(1, 2, 3), torch.full((1, 2), 3))


def test_threshold_sets_are_disjoint_and_as_large_as_a_class():
    masks = threshold_sets(110, 10, 2, generator=torch.Generator().manual_seed(0))
    assert masks.sum(1).tolist() == [10, 10]
    assert not bool((masks[0] & masks[1]).any())
    with pytest.raises(ValueError, match="count"):
        threshold_sets(8, 10, 2, generator=torch.Generator())


def test_flag_needs_every_run_that_judged():
    thresholds = torch.zeros(2, 6, dtype=torch.bool)
    thresholds[0, 0] = thresholds[1, 1] = True
    aum = torch.tensor([[0.0, -9.0, -1.0, -1.0, 5.0, 5.0], [-1.0, 0.0, -1.0, 2.0, -5.0, 5.0]])
    assert flagged(aum, thresholds, 100).tolist() == [True, True, True, False, False, False]
    assert flagged(aum[None], thresholds[None], 100).shape == (1, 6)
    alone = flagged(aum[:1], thresholds[:1], 100)
    assert alone.tolist() == [False, True, True, True, False, False]  # the one threshold sample is never judged


def test_flag_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match="percentile"):
        flagged(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), 0)
    with pytest.raises(ValueError, match="every run"):
        flagged(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="shape"):
        flagged(torch.zeros(1, 3), torch.zeros(1, 4, dtype=torch.bool))


def test_margins_are_averaged_without_the_first_epoch():
    kept = Margins(1, 3, torch.device("cpu"))
    rows = torch.tensor([[0, 2]])
    for epoch, value in enumerate((100.0, 1.0, 3.0)):
        kept.update(rows, torch.tensor([[value, -value]]), epoch)
    assert kept.aum.tolist() == [[2.0, 0.0, -2.0]]
    assert kept.last.tolist() == [[3.0, 0.0, -3.0]]
