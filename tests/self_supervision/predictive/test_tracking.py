"""Crops, paths, association and the score of tracking, by hand."""

import pytest
import torch
import torch.nn.functional as F
from self_supervision.predictive.helpers import g

from labcode.self_supervision import predictive as P


def test_crops_are_the_boxes():
    frames = torch.randint(0, 255, (2, 3, 3, 12, 12), dtype=torch.uint8)
    boxes = torch.tensor([2.0, 3.0, 10.0, 11.0]).expand(2, 3, 2, 4)
    assert torch.equal(P.crops(frames, boxes, 8)[:, :, 1], frames[:, :, :, 3:11, 2:10])


def test_wandering_paths_keep_their_step_and_forget_their_heading():
    path = P.wander(400, 12, 1, 20, 1.5, 1.0, generator=g())[:, :, 0]
    moves = path[:, 1:] - path[:, :-1]
    assert torch.allclose(moves.norm(dim=2), torch.full((400, 11), 1.5), atol=1e-4)
    turned = F.cosine_similarity(moves[:, 0], moves[:, -1], dim=1).mean()
    assert abs(turned) < 0.15 and F.cosine_similarity(moves[:, 0], moves[:, 1], dim=1).mean() > 0.5
    straight = P.wander(5, 12, 1, 20, 1.5, 0.0, generator=g())[:, :, 0]
    assert torch.allclose(straight[:, -1] - straight[:, 0], 11 * (straight[:, 1] - straight[:, 0]), atol=1e-3)


def test_three_frames_are_neighbours_of_one_film():
    x = (torch.arange(5 * 6).view(5, 6, 1, 1, 1, 1) * torch.ones(1, 1, 2, 3, 4, 4)).to(torch.uint8)
    found = P.three_frames(x, torch.Generator().manual_seed(0)) * 255
    first = found[:, 0, 0, 0, 0, 0]
    assert found.shape == (5, 3, 2, 3, 4, 4) and torch.equal((first // 6).long(), torch.arange(5))
    assert torch.allclose(found[:, :, 0, 0, 0, 0] - first[:, None], torch.arange(3.0).expand(5, 3))
    assert len({int(f) % 6 for f in first}) > 1 and max(int(f) % 6 for f in first) <= 3


def test_association_by_appearance_survives_a_gap_and_by_boxes_does_not():
    t, k = 6, 3
    present = torch.ones(t, k, dtype=torch.bool)
    present[2:4, 1] = False
    z = torch.eye(k)[None].expand(t, -1, -1) + 0.05 * torch.randn(t, k, k, generator=g())
    names = P.associate(present, z)
    assert (names[~present] == -1).all() and P.idf1(names, present) == 1.0
    assert P.identity_switches(names, present) == (0, 0)
    moves = torch.arange(t)[:, None, None] * torch.tensor([0.0, 4.0, 0.0])[:, None]
    place = torch.arange(k)[None, :, None] * 40.0 + moves
    boxes = torch.cat([place, place * 0, place + 6, place * 0 + 6], 2)
    by_box = P.associate(present, boxes=boxes)
    assert P.identity_switches(by_box, present) == (1, 1)
    assert P.idf1(by_box, present) == pytest.approx(14 / 16)  # the two detections before or after the gap are lost
    with pytest.raises(ValueError, match="embeddings"):
        P.associate(present)


def test_embeddings_that_say_nothing_track_nothing():
    """Detections are shuffled, so a collapsed encoder cannot track by their order."""
    present = torch.ones(10, 5, dtype=torch.bool)
    names = P.associate(present, torch.ones(10, 5, 4))
    assert P.identity_switches(names, present)[0] > 20 and P.idf1(names, present) < 0.6


def test_iou_and_idf1_by_hand():
    a = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    b = torch.tensor([[2.0, 0.0, 6.0, 4.0], [5.0, 5.0, 6.0, 6.0], [0.0, 0.0, 4.0, 4.0]])
    assert P.iou(a, b)[0].tolist() == pytest.approx([1 / 3, 0, 1])
    present = torch.ones(4, 2, dtype=torch.bool)
    names = torch.tensor([[0, 1], [0, 1], [1, 0], [1, 0]])
    assert P.idf1(names, present) == 0.5 and P.identity_switches(names, present) == (2, 0)
    with pytest.raises(ValueError, match="present"):
        P.idf1(names, ~present)


def test_crops_of_float_frames_are_those_of_bytes():
    frames = torch.randint(0, 255, (2, 3, 3, 12, 12), dtype=torch.uint8, generator=g())
    boxes = torch.tensor([1.0, 2.5, 9.0, 11.0]).expand(2, 3, 1, 4)
    bytes_, floats = P.crops(frames, boxes, 8), P.crops(frames.float() / 255, boxes, 8)
    assert bytes_.dtype == torch.uint8 and floats.dtype == torch.float32
    assert (bytes_.float() / 255 - floats).abs().max() <= 0.5 / 255 + 1e-6
    x = torch.randint(0, 255, (2, 5, 3, 3, 4, 4), dtype=torch.uint8, generator=g())
    assert torch.allclose(P.three_frames(x, g()), P.three_frames(x.float() / 255, g()))


@pytest.mark.bad_input
def test_what_cannot_be_tracked_is_refused_by_name():
    there = torch.ones(3, 2, dtype=torch.bool)
    odd = torch.rand(3, 2, 4, generator=g())
    odd[1, 0, 0] = float("nan")
    for call, message in [
        (lambda: P.associate(there, odd), "embeddings must be finite"),
        (lambda: P.associate(there, boxes=odd), "boxes must be finite"),
        (lambda: P.associate(there, odd[:2]), r"embeddings must be \(3, 2\) of some width"),
        (lambda: P.three_frames(torch.rand(2, 2, 3, 3, 4, 4), g()), "x must be objects"),
        (lambda: P.crops(255 * torch.rand(1, 1, 3, 8, 8), torch.rand(1, 1, 1, 4), 4), "x must be in .0, 1."),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
