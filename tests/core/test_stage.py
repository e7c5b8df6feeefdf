"""The stage at full scale, on a made-up benchmark: tuning never sees test images, and films pass through."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from labcode import data, nets
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
    uses = "# %%\nfrom labcode import losses\ntau = 1\n"
    for file, text in ((package / "losses.py", "tau = 1"), (twin, uses), (tmp_path / "_toc.yml", "")):
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
    twin.write_text(uses.replace("1", "2"))
    assert (begins(), begins()) == (0, 3)
    assert len(list((tmp_path / ".checkpoints" / "p" / "c").glob("*/an-arm-0.pt"))) == 3


def test_the_stage_says_what_all_arms_share(monkeypatch):
    monkeypatch.setenv("LABCODE_SCALE", "quick")
    stage = Stage(start("p/c"))
    told = stage.facts()
    assert "2,000 for training, 1,000 for testing" in told["images"] and "scene_views" in told["views"]
    weights = sum(p.numel() for p in stage.encoder(3).parameters())
    assert f"{weights:,} parameters" in told["encoder"] and "150 steps of 128" in told["training"]
    assert stage._repr_markdown_().count("\n") == len(told) + 1
    figure = stage.look(4)
    assert len([axis for axis in figure.axes if axis.images]) == 12


def test_features_are_those_of_evaluation_mode_and_change_nothing(full):
    """In training mode they depended on the chunk, and the statistics were overwritten."""
    stage = full()
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(0.5), nn.Linear(192, 5))
    encoder.train()
    encoder[2].eval()  # frozen on purpose
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8)
    found = stage.features(encoder, images)
    torch.testing.assert_close(stage.features(encoder, images, chunk=7), found)
    assert not found.requires_grad and [m.training for m in encoder] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(found, encoder.eval()(images.float() / 255))


def test_features_of_floats_are_those_of_bytes_and_other_ranges_are_named(full):
    stage, encoder = full(), nn.Flatten()
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    images[0, 0, 0, :2] = torch.tensor([0, 255])
    wanted = stage.features(encoder, images)
    for dtype in (torch.float32, torch.float64, torch.float16):
        torch.testing.assert_close(
            stage.features(encoder, (images.double() / 255).to(dtype)), wanted, rtol=0, atol=1e-3
        )
    assert stage.features(encoder, images[:0]).shape == (0, 192)
    with pytest.raises(ValueError, match=r"images must be uint8 or float in \[0, 1\], got floats of 0 … 255"):
        stage.features(encoder, images.float())
    with pytest.raises(ValueError, match="got torch.int64"):
        stage.features(encoder, images.long())
    with pytest.raises(ValueError, match="got floats of nan"):
        stage.features(encoder, torch.full((2, 3, 8, 8), float("nan")))
    with pytest.raises(ValueError, match="chunk"):
        stage.features(encoder, images, chunk=0)
    fails = nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        stage.features(fails, images)
    assert fails.training  # an encoder that failed is in its own mode again


@pytest.mark.parametrize("width", [2, 8, 16])
def test_a_narrow_encoder_is_not_trained_in_channels_last_on_a_cpu(full, width, monkeypatch):
    stage, resnet = full(), nets.ResNet18
    monkeypatch.setattr(nets, "ResNet18", lambda: resnet(width))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        encoder = stage.encoder(0)
    last = encoder.stages[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert last == (width == 16) == (not told)
