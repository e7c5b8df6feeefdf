"""Nested dropout: the lengths, the cut and all prefixes at once."""

import pytest
import torch

from labcode.imperfect_labels.noisy_labels import draw_lengths, keep_first, logits_by_length, saturation, truncation


def test_truncation_is_half_a_normal():
    p = truncation(50, 10.0)
    assert float(p.sum()) == pytest.approx(1)
    assert float(p[9] / p[19]) == pytest.approx(float(torch.exp(torch.tensor(3.0, dtype=torch.float64))))
    with pytest.raises(ValueError, match="sigma"):
        truncation(5, 0.0)


def test_lengths_follow_it():
    k = draw_lengths(20_000, 30, 5.0, generator=torch.Generator().manual_seed(0))
    assert int(k.min()) == 1 and int(k.max()) <= 30
    share = torch.bincount(k, minlength=31)[1:].double() / len(k)
    assert torch.allclose(share, truncation(30, 5.0), atol=0.01)


def test_only_the_first_are_kept():
    f = torch.ones(2, 3, 4)
    out = keep_first(f, torch.tensor([1, 4]))
    assert out[0, 0].tolist() == [1, 0, 0, 0] and bool((out[1] == 1).all())


def test_all_prefixes_against_the_cut():
    g = torch.Generator().manual_seed(0)
    f, w, b = (torch.randn(*s, dtype=torch.float64, generator=g) for s in ((2, 5, 6), (2, 3, 6), (2, 3)))
    lengths = [1, 3, 6]
    out = logits_by_length(f, w, b, lengths)
    for i, k in enumerate(lengths):
        want = keep_first(f, torch.tensor([k, k])) @ w.mT + b[:, None]
        assert torch.allclose(out[i], want)


def test_saturation():
    accuracy = torch.tensor([[0.2, 0.9], [0.895, 0.9], [0.9, 0.95]])
    assert saturation(accuracy, [1, 4, 16]).tolist() == [4.0, 16.0]
