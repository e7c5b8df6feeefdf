"""CrossSplit: the divergence, the weight, the target."""

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from labcode.imperfect_labels.noisy_labels import corrected, label_divergence, mixing_weight, sharpen


def test_divergence_agrees_with_scipy():
    q = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(1)
    y = torch.arange(20) % 5
    got = label_divergence(q, y)
    for i in range(20):
        want = jensenshannon(torch.eye(5)[y[i]].numpy(), q[i].numpy(), base=2) ** 2
        assert float(got[i]) == pytest.approx(want, abs=1e-6)
    ends = label_divergence(torch.eye(2), torch.tensor([0, 0]))
    assert ends.tolist() == pytest.approx([0, 1])


def test_weight_is_normalised_within_each_label():
    d = torch.tensor([[0.1, 0.3, 0.2, 0.5, 0.9]])
    y = torch.tensor([[0, 0, 0, 1, 1]])
    assert mixing_weight(d, y, 3)[0].tolist() == pytest.approx([0, 1, 0.5, 0, 1])
    assert mixing_weight(d, y, 3, by_class=False)[0].tolist() == pytest.approx([0, 0.25, 0.125, 0.5, 1])
    assert mixing_weight(d, y, 3, gamma=0.6)[0].tolist() == pytest.approx([0.2, 0.8, 0.5, 0.2, 0.8])
    assert mixing_weight(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.long), 2)[0].tolist() == [0, 0]
    with pytest.raises(ValueError, match="gamma"):
        mixing_weight(d, y, 3, gamma=2)


def test_sharpened():
    p = torch.tensor([0.2, 0.8])
    assert torch.allclose(sharpen(p), torch.tensor([0.04, 0.64]) / 0.68)
    assert torch.allclose(sharpen(p, 1.0), p)
    with pytest.raises(ValueError, match="temperature"):
        sharpen(p, 0.0)


def test_the_target_goes_from_label_to_peer():
    y, q = torch.tensor([1.0, 0.0]), torch.tensor([0.1, 0.9])
    assert torch.allclose(corrected(y, q, torch.tensor(0.0)), y, atol=1e-6)
    assert torch.allclose(corrected(y, q, torch.tensor(1.0), 1.0), q)
    assert torch.allclose(corrected(y, q, torch.tensor(0.5), 1.0), torch.tensor([0.55, 0.45]))
