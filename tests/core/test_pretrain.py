"""From a folder of images to an encoder: what is read, what is refused, and that the file gives the same features."""

import os
import subprocess
import sys
import zlib

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


@pytest.mark.parametrize("change,told", [
    (dict(batch_size=8), "batch_size 16 there, 8 here"),
    (dict(seed=1), "seed 0 there, 1 here"),
    (dict(method="vicreg"), "method simclr there, vicreg here"),
    (dict(net="resnet18"), "net small there, resnet18 here"),
    (dict(steps=7), "steps 2 there, 7 here"),
    (dict(lr=0.1), "lr 0.001 there, 0.1 here"),
    (dict(images=1), "pixels [0-9a-f]{8} there, [0-9a-f]{8} here"),
    (dict(images=-1), "images 200 there, 199 here"),
])  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(photos, tmp_path, change, told):
    """Whatever decides the training; the file stays as it was."""
    images = pretrain.read_folder(photos, size=8).images
    given = dict(method="simclr", net="small", steps=2, batch_size=16, device="cpu", progress=False)
    given["checkpoint"] = tmp_path / "run"
    pretrain.pretrain(images, **given)
    before = (tmp_path / "run").read_bytes()
    if change.get("images") == 1:  # one bit of one image
        images = images.clone()
        images[7, 0, 4, 4] ^= 1
    elif change.get("images") == -1:
        images = images[:-1]
    with pytest.raises(ValueError, match=f"checkpoint .*run is of another run: .*{told}.*; delete it or name another"):
        pretrain.pretrain(images, **given | {k: v for k, v in change.items() if k != "images"})
    assert (tmp_path / "run").read_bytes() == before


def test_a_checkpoint_without_these_facts_and_a_batch_beyond_the_images(photos, tmp_path):
    images = pretrain.read_folder(photos, size=8).images[:32]
    given = dict(net="small", steps=2, device="cpu", progress=False, checkpoint=tmp_path / "run")
    pretrain.pretrain(images, batch_size=32, **given)
    pretrain.pretrain(images, batch_size=500, **given)  # the same batch: all there are
    state = torch.load(tmp_path / "run", weights_only=True)
    del state["model"]["_extra_state"]
    torch.save(state, tmp_path / "run")
    with pytest.raises(ValueError, match="is of another run: .*batch_size None there, 32 here"):
        pretrain.pretrain(images, batch_size=32, **given)


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


SHORT = ["--size", 8, "--steps", 2, "--batch", 16, "--net", "small"]


def test_the_command_refuses_another_batch_size(photos, tmp_path):
    """A run that was killed leaves its checkpoint; here one is made as the command names it."""
    found = pretrain.read_folder(photos, size=8)
    name = f"e.small-simclr-8-0-200-{zlib.crc32(found.images.numpy().tobytes()):08x}.checkpoint"
    options = dict(steps=2, batch_size=32, checkpoint=tmp_path / name, device="cpu", progress=False)
    pretrain.pretrain(found.images, "simclr", "small", **options)
    done = command("--images", photos, *SHORT, "--out", "e", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "is of another run: batch_size 32 there, 16 here" in done.stderr and not (tmp_path / "e").exists()
    done = command("--images", photos, *SHORT, "--batch", 32, "--out", "e", cwd=tmp_path)
    assert done.returncode == 0 and "going on from" in done.stdout and (tmp_path / "e").exists()


@pytest.mark.parametrize("out,told", [
    ("folder", "--out must be a file, got a folder, 'folder'"),
    ("new/", "--out must be a file, got a folder, 'new/'"),
    ("/dev/null", "--out must be a file, got '/dev/null', which is something else"),
    ("/proc/x/e.safetensors", "--out must be a file in a folder that can be made and written, got '/proc/x/e.safet"),
    ("file/e.safetensors", "--out must be a file in a folder that can be made and written, got 'file/e.safetensors'"),
])  # fmt: skip
def test_a_place_where_no_file_can_be_is_refused_before_the_training(photos, tmp_path, monkeypatch, capsys, out, told):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrain, "pretrain", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(SystemExit) as stopped:
        pretrain.main(["--images", str(photos), *map(str, SHORT), "--out", out])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and told in said and said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_what_could_not_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="file must be a file, got a folder"):
        pretrain.save(nets.SmallNet(size=8), tmp_path / "folder", size=8)

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrain.os, "replace", no_room)
    with pytest.raises(OSError, match="No space left"):
        pretrain.save(nets.SmallNet(size=8), tmp_path / "e", size=8)
    assert [p.name for p in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("umask,mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_encoder_may_be_read_by_whom_the_umask_lets(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        pretrain.save(nets.SmallNet(size=8), tmp_path / "e", size=8)
    finally:
        os.umask(before)
    assert (tmp_path / "e").stat().st_mode & 0o777 == mode
    pretrain.load(tmp_path / "e")


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_named(photos, tmp_path, capsys, seed):
    with pytest.raises(ValueError, match=f"seed must be in 0 … 2⁶³ − 1, got {seed}"):
        pretrain.pretrain(pretrain.read_folder(photos, size=8).images, net="small", steps=1, seed=seed)
    with pytest.raises(SystemExit) as stopped:
        pretrain.main(["--images", str(photos), "--seed", str(seed), "--out", str(tmp_path / "e")])
    assert stopped.value.code == 2 and f"--seed must be in 0 … 2⁶³ − 1, got {seed}" in capsys.readouterr().err
