"""Drawn faces are what their factors say."""

import pytest
import torch

from labcode.self_supervision import data_curation as D


def test_faces_are_what_their_factors_say():
    fixed = dict(identity=torch.full((30,), 7), yaw=torch.zeros(30))
    a = D.faces(30, 0, smile=torch.ones(30), **fixed)
    b = D.faces(30, 0, smile=-torch.ones(30), **fixed)
    assert a.images.shape == (30, 3, 16, 16) and a.images.dtype == torch.uint8
    apart = (a.images.float() - b.images.float()).abs().mean((0, 1))
    assert apart[:7].max() < 1 < apart[8:].max()  # a smile changes the lower half alone
    assert (a.landmarks[:, 7] < b.landmarks[:, 7]).all()  # mouth corners go up
    left, right = (
        D.faces(30, 0, identity=fixed["identity"], smile=torch.zeros(30), yaw=s * torch.ones(30)) for s in (-1, 1)
    )
    assert (right.landmarks[:, 4] - left.landmarks[:, 4] > 0.2).all()  # the nose moves right
    assert torch.equal(D.faces(5, 3).images, D.faces(5, 3).images)
    assert not set(D.faces(50, 0, (0, 10)).identity.tolist()) & set(D.faces(50, 0, (10, 20)).identity.tolist())


def test_videos_keep_their_person_and_move_slowly():
    frames, video = D.face_video(4, 50, seed=1)
    for v in range(4):
        assert len(frames.identity[video == v].unique()) == 1
    smile, edge = frames.smile.view(4, 50), frames.images.float().view(4, 50, 3, 16, 16)[..., 0]
    within, across = edge.std(1).mean(), edge.mean(1).std(0).mean()
    assert within < 8 < across  # a film has one place: its edge shows noise alone, and differs from the others'
    assert smile.diff(dim=1).abs().mean() < 0.3 * (smile[:, :25] - smile[:, 25:]).abs().mean()


@pytest.mark.bad_input
def test_faces_and_choices_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="identity"):
        D.faces(2, identity=torch.tensor([-1, 3]))
    with pytest.raises(ValueError, match="place"):
        D.faces(2, place=torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="smile"):
        D.faces(2, smile=torch.zeros(3))
    with pytest.raises(ValueError, match="classes"):
        D.sas(torch.rand(6, 6), torch.zeros(4, dtype=torch.int64), 0.5)
    with pytest.raises(ValueError, match="alpha"):
        D.inclusion(torch.zeros(1, 5), 2, float("nan"))
    with pytest.raises(ValueError, match="lr"):
        D.gio(torch.rand(4, 2), torch.rand(4, 2), 2, lr=-1.0)
