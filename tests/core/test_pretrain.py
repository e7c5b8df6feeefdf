"""From a folder of images to an encoder: what is read, what is refused, and that the file gives the same features."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from labcode import nets, pretrain


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Digits as photographs of odd sizes, in a subfolder a class."""
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("photos")
    digits = load_digits()
    for i in range(200):
        folder = root / f"digit {digits.target[i]}" / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((digits.images[i] * 15).astype(np.uint8)).resize((20 + i % 5, 24))
        picture.save(folder / f"{i:03}.{('png', 'jpg', 'JPEG')[i % 3]}")
    (root / "notes.txt").write_text("no image")
    return root


def test_images_are_cut_square_and_folders_are_classes(photos):
    found = pretrain.read_folder(photos, size=16)
    assert found.images.shape == (200, 3, 16, 16) and found.images.dtype == torch.uint8
    assert len(found.classes) == 10 and not found.skipped
    inside = [f.relative_to(photos).parts[0] for f in found.files]
    assert [found.classes[y] for y in found.labels] == inside


def test_pixels_are_those_of_the_file(tmp_path):
    """A wide picture: the middle third is kept, resized; grey, alpha and the camera's turn are undone."""
    stripe = np.zeros((12, 36, 3), np.uint8)
    stripe[:, 12:24] = 200
    for i in range(17):
        Image.fromarray(stripe).save(tmp_path / f"{i:02}.png")
    Image.fromarray(stripe[:, :, 0]).convert("LA").save(tmp_path / "90.png")
    tall, exif = Image.fromarray(np.rot90(stripe).copy()), Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    tall.save(tmp_path / "91.png", exif=exif)
    found = pretrain.read_folder(tmp_path, size=12)
    assert (found.images[0] == 200).all() and found.labels is None and found.classes == ()
    assert torch.equal(found.images[-2], found.images[0]) and torch.equal(found.images[-1], found.images[0])


def test_what_a_folder_must_hold(tmp_path, photos):
    with pytest.raises(FileNotFoundError, match="no folder"):
        pretrain.read_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no file that ends in"):
        pretrain.read_folder(tmp_path)
    with pytest.raises(ValueError, match="size must be at least 8 pixels, got 4"):
        pretrain.read_folder(photos, size=4)
    for i in range(3):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match="at least 16 are needed, .* holds 3"):
        pretrain.read_folder(tmp_path)


def test_an_unreadable_image_is_named_or_left_out(tmp_path):
    for i in range(20):
        Image.effect_noise((30, 30), 50).convert("RGB").save(tmp_path / f"{i}.jpg")
    whole = (tmp_path / "7.jpg").read_bytes()
    (tmp_path / "7.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "8.jpg").write_text("no image at all")
    with pytest.raises(ValueError, match="7.jpg cannot be read"):
        pretrain.read_folder(tmp_path)
    found = pretrain.read_folder(tmp_path, skip_unreadable=True)
    assert len(found.images) == 18 and [f.name for f in found.skipped] == ["7.jpg", "8.jpg"]


@pytest.mark.parametrize("method", sorted(pretrain.methods()))
def test_every_method_trains_and_its_file_gives_the_same_features(photos, tmp_path, method):
    images = pretrain.read_folder(photos, size=8).images[:32]
    encoder = pretrain.pretrain(images, method, "small", steps=2, batch_size=16, device="cpu", progress=False)
    pretrain.save(encoder, tmp_path / "e.safetensors", size=8, method=method)
    again, facts = pretrain.load(tmp_path / "e.safetensors")
    assert facts == {"net": "small", "size": 8, "method": method}
    assert torch.equal(pretrain.encode(encoder, images), pretrain.encode(again, images))
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_it_refuses_what_it_does_not_know(photos, tmp_path, monkeypatch):
    images = pretrain.read_folder(photos, size=8).images
    for bad, word in ((dict(method="magic"), "method must be one of"), (dict(net="vgg"), "net must be one of"),
                      (dict(batch_size=2), "batch_size must be at least 4")):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            pretrain.pretrain(images, **bad)
    with pytest.raises(ValueError, match="encoder must be one of"):
        pretrain.save(torch.nn.Linear(2, 2), tmp_path / "e")
    (tmp_path / "e").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is no encoder"):
        pretrain.load(tmp_path / "e")

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pretrain, "fit", full)
    with pytest.raises(MemoryError, match=r"does not hold 200 images of 8×8: .*--batch 100.*--size 4.*--net small"):
        pretrain.pretrain(images, net="small", device="cpu")


def test_an_interrupted_run_goes_on(photos, tmp_path):
    images = pretrain.read_folder(photos, size=8).images
    options = dict(net="small", steps=6, batch_size=16, device="cpu", progress=False)
    whole = pretrain.pretrain(images, checkpoint=tmp_path / "whole", **options)
    state = torch.load(tmp_path / "whole", weights_only=True)
    again = pretrain.pretrain(images, checkpoint=tmp_path / "whole", **options)  # nothing is left to do
    assert state["step"] == 6
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def command(*arguments, cwd):
    line = [sys.executable, "-m", "labcode.pretrain", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_command_writes_an_encoder_and_judges_it(photos, tmp_path):
    settings = ["--method", "simclr", "--size", 16, "--steps", 30, "--batch", 64, "--net", "small"]
    done = command("--images", photos, *settings, "--out", tmp_path / "out" / "e.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "200 images of 16×16 pixels, 10 classes by subfolder" in done.stdout
    values = {line.rsplit(maxsplit=1)[0].strip(): float(line.split()[-1]) for line in done.stdout.splitlines()[-5:]}
    assert values["trained, linear probe"] > values["chance"] + 0.3
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["e.safetensors"]  # and no checkpoint


def test_the_command_tells_what_is_wrong_in_a_line(tmp_path):
    done = command("--images", tmp_path, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "holds no file that ends in" in done.stderr


def test_estimated_statistics_are_those_of_the_batches():
    torch.manual_seed(0)
    net, x = nets.SmallNet(width=8), torch.rand(64, 3, 8, 8)
    momentum = net.norm1.momentum
    nets.estimate_statistics(net, x.split(32))
    seen = []
    net.norm1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net(x)
    halves = seen[0].view(2, -1, 8)
    assert torch.allclose(net.norm1.running_mean, halves.mean(1).mean(0), atol=1e-5)
    assert torch.allclose(net.norm1.running_var, halves.var(1).mean(0), atol=1e-5)
    assert not net.training and net.norm1.momentum == momentum


def test_what_a_conversion_would_damage_is_refused_or_laid_on_black(tmp_path):
    for i in range(17):
        Image.new("RGBA", (9, 9), (255, 255, 255, 0 if i == 3 else 255)).save(tmp_path / f"{i:02}.png")
    found = pretrain.read_folder(tmp_path, size=8)
    assert (found.images[3] == 0).all() and (found.images[4] == 255).all()
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="deep.png .*more than 8 bits a channel"):
        pretrain.read_folder(tmp_path, size=8)


def test_encoders_that_cannot_be_loaded_are_not_saved_and_odd_files_are_told(tmp_path):
    with pytest.raises(ValueError, match="size must be among the facts"):
        pretrain.save(nets.SmallNet(), tmp_path / "e")
    pretrain.save(nets.SmallNet(size=8), tmp_path / "e", size=16)
    with pytest.raises(ValueError, match="does not fit the network it names"):
        pretrain.load(tmp_path / "e")
    with pytest.raises(ValueError, match="images must be uint8"):
        pretrain.pretrain(torch.rand(20, 3, 8, 8))
