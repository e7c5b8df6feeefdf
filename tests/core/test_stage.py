"""The stage at full scale, on a made-up benchmark: tuning never sees test images, and films pass through."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from labcode import data
from labcode.course import provenance
from labcode.course.run import start
from labcode.course.stage import Stage


@pytest.fixture
def full(monkeypatch):
    """A function that makes the stage; image i of the training split is all i, test images are all 255."""
    images = torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    made = SimpleNamespace(
        train_images=images, train_labels=torch.arange(200) % 10, test_images=torch.full((50, 3, 8, 8), 255).byte(),
        test_labels=torch.arange(50) % 10, source="made up",
    )  # fmt: skip
    monkeypatch.setattr(data, "benchmark", lambda name, device: made)
    monkeypatch.setenv("LABCODE_SCALE", "full")
    return lambda: Stage(start("p/c"))


def test_tuning_takes_a_fifth_of_every_class_from_the_training_images(full, monkeypatch):
    assert (full().test_images == 255).all()
    monkeypatch.setenv("LABCODE_TUNE", "1")
    stage = full()
    held, kept = (set(x[:, 0, 0, 0].tolist()) for x in (stage.test_images, stage.train_images))
    assert 255 not in held and not held & kept and held | kept == set(range(200))
    assert torch.bincount(stage.test_labels).tolist() == [4] * 10


class Mean(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.seen = encoder, None

    def forward(self, views, index):
        self.seen = views
        return (self.encoder.weight * views.float().mean()).sum()


def test_images_lie_channels_last_and_films_pass_as_they_are(full, monkeypatch):
    monkeypatch.setenv("LABCODE_MAX_STEPS", "1")
    stage = full()
    stage.budget = SimpleNamespace(steps=1, batch_size=4, lr=0.1, optimizer="sgd", weight_decay=0.0)
    for images in (stage.train_images, torch.zeros(8, 2, 3, 8, 8, dtype=torch.uint8)):
        views = lambda x, generator: x.float()  # noqa: E731
        model = stage.pretrain(str(images.ndim), Mean, 0, images=images, views=views, encoder=nn.Linear(1, 1))
        assert model.seen.shape[1:] == images.shape[1:]
        assert images.ndim == 5 or model.seen.is_contiguous(memory_format=torch.channels_last)


def test_an_arm_is_trained_once_with_the_same_code_and_anew_with_other_code(full, tmp_path, monkeypatch):
    """A checkpoint of older code, finished or not, must never pass for a training with today's."""
    package, twin = tmp_path / "labcode", tmp_path / "notebooks" / "p" / "c.py"
    for file, text in ((package / "losses.py", "tau = 1"), (twin, "# %%\ntau = 1\n"), (tmp_path / "_toc.yml", "")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "PACKAGE", package)

    def begins(seed=0, name="an arm"):
        given = dict(views=lambda x, generator: x.float(), encoder=nn.Linear(1, 1), batch_size=8)
        return full().pretrain(name, Mean, seed, steps=3, **given).history.resumed_at

    assert (begins(), begins(), begins(1), begins(name="an/arm")) == (0, 3, 0, 0)
    (package / "losses.py").write_text("tau = 2")
    assert (begins(), begins()) == (0, 3)
    twin.write_text("# %%\ntau = 2\n")
    assert (begins(), begins()) == (0, 3)
    assert len(list((tmp_path / ".checkpoints" / "p" / "c").glob("*/an-arm-0.pt"))) == 3
