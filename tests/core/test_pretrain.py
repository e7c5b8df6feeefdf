"""From a folder of images to an encoder: what is read, what is refused, and that the file gives the same features."""

import errno
import importlib.util
import io
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labcode import nets, pretrain
from labcode.data import files

ROOT = Path(__file__).parents[2]


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


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """``python -m labcode.pretrain`` in this process: its status, and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            status = pretrain.main([str(a) for a in arguments])
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return run


def test_the_command_writes_an_encoder_and_judges_it(photos, tmp_path, command):
    (photos / ".DS_Store").touch()
    settings = ["--method", "simclr", "--size", 16, "--steps", 30, "--batch", 64, "--net", "small"]
    status, said, errors = command("--images", photos, *settings, "--out", tmp_path / "out" / "e.safetensors")
    assert status == 0, errors
    assert "200 images of 16×16 pixels, 10 classes by subfolder; left out: 1 hidden, 1 of another kind (1 .txt)" in said
    values = {line.rsplit(maxsplit=1)[0].strip(): float(line.split()[-1]) for line in said.splitlines()[-5:]}
    assert values["trained, linear probe"] > values["chance"] + 0.3
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["e.safetensors"]  # and no checkpoint


def test_the_command_tells_what_is_wrong_in_a_line(tmp_path):
    line = [sys.executable, "-m", "labcode.pretrain", "--images", tmp_path]
    found = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=found, capture_output=True, text=True)
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


def test_encoders_that_cannot_be_loaded_are_not_saved_and_odd_files_are_told(tmp_path):
    with pytest.raises(ValueError, match="size must be among the facts"):
        pretrain.save(nets.SmallNet(), tmp_path / "e")
    net = nets.SmallNet(size=8)
    for facts, told in ((dict(size=16), "size must be that of the encoder's images, 8, got 16"),
                        (dict(size="8"), "size must be .*, 8, got '8'"),
                        (dict(size=8, net="mine"), "net must be 'small', which the encoder is, got 'mine'"),
                        (dict(size=8, at=tmp_path), "facts must be numbers, texts"),
                        (dict(size=8, mean=np.zeros(3)), "facts must be numbers, texts")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            pretrain.save(net, tmp_path / "e", **facts)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="is a folder"):
        pretrain.load(tmp_path)
    with pytest.raises(ValueError, match="images must be uint8"):
        pretrain.pretrain(torch.rand(20, 3, 8, 8))


@pytest.mark.parametrize("facts", [
    "[]", "3", "null", '"x"', "{}", '{"net": "small"}', '{"net": ["small"], "size": 8}', '{"net": "vgg"}',
    '{"net": "resnet18"}', '{"net": "small", "size": "8"}', '{"net": "small", "size": null}', "[" * 200_000,
    '{"net": "small", "size": [8]}', '{"net": "small", "size": 20000}', '{"net": "small", "size": -8}', "{",
])  # fmt: skip
def test_a_file_with_odd_facts_is_told(tmp_path, facts):
    from safetensors.torch import save_file

    save_file(nets.SmallNet(size=8).state_dict(), tmp_path / "e", metadata={"labcode": facts})
    with pytest.raises(ValueError, match="e (is no encoder of labcode.pretrain|does not fit the network it names)"):
        pretrain.load(tmp_path / "e")


@pytest.mark.parametrize("make,channels,size", [
    (lambda: nets.ResNet18(16), 3, np.int64(8)), (lambda: nets.ResNet18(4, 1), 1, 8),
    (lambda: nets.SmallNet(32, 64, 12), 3, torch.tensor(12)), (lambda: nets.SmallNet(16, 24, 16, 1, 20), 1, 16),
])  # fmt: skip
def test_an_encoder_of_any_width_is_itself_again(tmp_path, make, channels, size):
    net = make().eval()
    torch.manual_seed(0)
    pretrain.save(net, tmp_path / "e", size=size)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0))), "saving draws nothing"
    again, facts = pretrain.load(tmp_path / "e")
    assert facts == {"net": "small" if isinstance(net, nets.SmallNet) else "resnet18", "size": int(size)}
    x = torch.rand(3, channels, int(size), int(size))
    assert torch.equal(again(x), net(x))


SHORT = ["--size", 8, "--steps", 2, "--batch", 16, "--net", "small"]


def test_the_command_refuses_another_batch_size(photos, tmp_path, command):
    """A run that was killed leaves its checkpoint; here one is made as the command names it."""
    found = pretrain.read_folder(photos, size=8)
    name = f"e.small-simclr-8-0-200-{zlib.crc32(found.images.numpy().tobytes()):08x}.checkpoint"
    options = dict(steps=2, batch_size=32, checkpoint=tmp_path / name, device="cpu", progress=False)
    pretrain.pretrain(found.images, "simclr", "small", **options)
    status, _, errors = command("--images", photos, *SHORT, "--out", "e")
    assert status == 2 and errors.count("\n") == 1, errors
    assert "is of another run: batch_size 32 there, 16 here" in errors and not (tmp_path / "e").exists()
    status, said, _ = command("--images", photos, *SHORT, "--batch", 32, "--out", "e")
    assert status == 0 and "going on from" in said and (tmp_path / "e").exists()


@pytest.mark.parametrize("letters,name,told", [
    ("utf-8", b"e\xff", "wrote e\\udcff"), ("ascii", "日".encode(), "wrote \\u65e5"), ("latin-1", b"e", "8×8 pixels"),
    ("utf-8", b"a\nb", "wrote a\nb"),
])  # fmt: skip
def test_what_the_terminal_cannot_show_stops_nothing(photos, tmp_path, monkeypatch, letters, name, told):
    monkeypatch.chdir(tmp_path)
    held = io.TextIOWrapper(io.BytesIO(), encoding=letters)
    monkeypatch.setattr(sys, "stdout", held)
    assert pretrain.main(["--images", str(photos), *map(str, SHORT), "--out", os.fsdecode(name)]) == 0
    held.flush()
    assert told in held.buffer.getvalue().decode(letters) and os.path.exists(name)


@pytest.mark.parametrize("out,told", [
    ("folder", "--out must be a file, got a folder, 'folder'"),
    ("new/", "--out must be a file, got a folder, 'new/'"),
    ("/dev/null", "--out must be a file, got '/dev/null', which is something else"),
    ("/proc/x/e.safetensors", "--out must be a file in a folder that can be made and written, got '/proc/x/e.safet"),
    ("file/e.safetensors", "--out must be a file in a folder that can be made and written, got 'file/e.safetensors'"),
    ("n" * 256, "(File name too long)"),
    ("n" * 216, "--out, whose checkpoint has a longer name, must be a file in a folder that can be made and written"),
    ("é" * 108, "--out, whose checkpoint has a longer name, must be a file in a folder that can be made and written"),
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


def test_a_full_disk_is_a_line_and_leaves_nothing(photos, tmp_path, command):
    """A limit on the size of files stands for the disk."""
    (tmp_path / "out").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        status, _, errors = command("--images", photos, *SHORT, "--out", "out/e")
        with pytest.raises(OSError, match="File too large: '.*e'"):
            pretrain.save(nets.SmallNet(size=8), "out/e", size=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2 and errors.count("\n") == 1 and errors.endswith(".checkpoint: File too large\n"), errors
    assert not list((tmp_path / "out").iterdir())
    status, _, errors = command("--images", photos, *SHORT, "--out", "out/e")
    assert status == 0 and [p.name for p in (tmp_path / "out").iterdir()] == ["e"], errors


def test_what_could_not_be_written_leaves_the_file_before(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="file must be a file, got a folder"):
        pretrain.save(nets.SmallNet(size=8), tmp_path / "folder", size=8)
    (tmp_path / "e").write_text("before")

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", no_room)
    with pytest.raises(OSError, match="No space left"):
        files.write_aside(tmp_path / "e", b"after")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["e", "folder"] and (tmp_path / "e").read_text() == "before"


@pytest.mark.parametrize("writer", [b"new", "new", lambda file: file.write(b"new")])
def test_a_file_is_written_whole_under_the_longest_name(tmp_path, writer):
    path = tmp_path / ("n" * 255)
    for _ in range(2):
        assert files.writable(path, "out") == path
        files.write_aside(path, writer)
        assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="File name too long: '.*nn'") as told:
        files.write_aside(tmp_path / ("n" * 256), writer)
    assert told.value.errno == errno.ENAMETOOLONG


def test_a_link_is_followed_and_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("there", "new"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "there").write_bytes(b"before")
    for name in ("there", "new"):
        assert files.writable(tmp_path / name, "out") == tmp_path / name
        files.write_aside(tmp_path / name, b"after")
        assert (tmp_path / name).is_symlink() and (tmp_path / "disk" / name).read_bytes() == b"after"
    (tmp_path / "nowhere").symlink_to(tmp_path / "no" / "disk")
    with pytest.raises(ValueError, match="out must be a file in a folder that can be made"):
        files.writable(tmp_path / "nowhere", "out")
    assert len(list(tmp_path.iterdir())) == 4 and len(list((tmp_path / "disk").iterdir())) == 2


def test_the_systems_reason_is_told_whatever_the_writer_makes_of_it(tmp_path):
    """As torch.save does, which ends in a RuntimeError about its archive."""

    def archive(file):
        class Full:
            def write(self, data):
                raise OSError(errno.ENOSPC, "No space left on device")

        file.file = Full()
        try:
            file.write(b"x")
        except OSError as error:
            raise RuntimeError("PytorchStreamWriter failed writing file data/0") from error

    with pytest.raises(OSError, match="No space left on device: '.*e'"):
        files.write_aside(tmp_path / "e", archive)

    def wrong(file):
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        files.write_aside(tmp_path / "e", wrong)
    with pytest.raises(OSError, match="No such file"):
        files.write_aside(tmp_path / "no" / "e", b"")
    assert not list(tmp_path.iterdir())


def test_a_name_that_another_program_takes_meanwhile_stays(tmp_path, monkeypatch):
    path, fstat = tmp_path / "e", os.fstat

    def meanwhile(number):
        (tmp_path / "other").write_text("theirs")
        os.replace(tmp_path / "other", path)
        return fstat(number)

    monkeypatch.setattr(files.os, "fstat", meanwhile)
    files._try_name(path)
    assert path.read_text() == "theirs"


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


# Features


@pytest.mark.parametrize("net", ["small", "resnet18"])
def test_features_are_of_the_image_alone_whatever_its_type_and_the_encoders_mode(net):
    torch.manual_seed(0)
    encoder = nets.SmallNet(size=8) if net == "small" else nets.ResNet18(width=16)
    x = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    encoder(torch.rand(64, 3, 8, 8))  # statistics that are not those of the start
    next(encoder.children()).eval()  # some of it is frozen
    modes = [module.training for module in encoder.modules()]
    state = {k: v.clone() for k, v in encoder.state_dict().items()}
    wanted = torch.cat([encoder.eval()(one[None].float() / 255) for one in x]).detach()
    for module, mode in zip(encoder.modules(), modes, strict=True):
        module.training = mode
    for images in (x, x.float() / 255, x.double() / 255):
        for chunk in (1, 7, 1024):
            found = pretrain.encode(encoder, images, chunk)
            assert torch.allclose(found, wanted, atol=1e-5) and found.dtype == torch.float32
    assert torch.allclose(pretrain.encode(encoder, x.half() / 255), wanted, atol=1e-2)
    assert torch.allclose(pretrain.encode(encoder.double(), x), wanted, atol=1e-5)
    encoder.float()
    assert [module.training for module in encoder.modules()] == modes
    assert all(torch.allclose(v, state[k]) for k, v in encoder.state_dict().items())
    assert pretrain.encode(encoder, x[:0]).shape == (0, encoder.features)
    assert pretrain.encode(torch.nn.Flatten(), x).shape == (20, 192)  # no parameter, no device of its own


def test_an_encoder_that_fails_is_left_as_it_was():
    encoder = nets.SmallNet(size=8).train()
    with pytest.raises(RuntimeError):
        pretrain.encode(encoder, torch.zeros(4, 3, 12, 12))
    assert encoder.training and encoder.norm1.training


@pytest.mark.parametrize("images,told", [
    (torch.rand(4, 3, 8, 8) * 255, "got floats from .* to 2.*: scale them"),
    (torch.rand(4, 3, 8, 8) - 0.5, "got floats from -0.* to 0.*: scale them"),
    (torch.full((4, 3, 8, 8), 1.5), "got floats from 1.5 to 1.5"),
    (torch.full((4, 3, 8, 8), torch.nan), "got floats from nan to nan"),
    (torch.full((4, 3, 8, 8), torch.inf), "got floats from inf to inf"),
    (torch.zeros(4, 3, 8, 8, dtype=torch.int64), "got torch.int64"),
    (torch.zeros(4, 3, 8, 8, dtype=torch.bool), "got torch.bool"),
    (torch.zeros(3, 32, 32, dtype=torch.uint8), r"got \(3, 32, 32\)"),
    (torch.zeros(4, 8, 8, 3, dtype=torch.uint8), r"got \(4, 8, 8, 3\)"),
    (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), r"got \(4, 1, 8, 8\)"),
])  # fmt: skip
def test_images_that_would_be_misread_are_refused(images, told):
    with pytest.raises(ValueError, match=f"images must be .*{told}"):
        pretrain.encode(nets.SmallNet(size=8), images)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        pretrain.encode(nets.SmallNet(size=8), torch.zeros(4, 3, 8, 8), chunk=0)


# Few, equal and one-sided images


@pytest.mark.parametrize("method", sorted(pretrain.methods()))
def test_the_fewest_and_equal_images_train(method):
    for images in (torch.full((16, 3, 8, 8), 100, dtype=torch.uint8), torch.zeros(5, 3, 8, 8, dtype=torch.uint8)):
        encoder = pretrain.pretrain(images, method, "small", steps=2, device="cpu", progress=False)
        assert pretrain.encode(encoder, images).isfinite().all()
    with pytest.raises(ValueError, match="images must be at least 4, got 3"):
        pretrain.pretrain(images[:3], method, "small", steps=1)


def test_one_class_and_a_class_an_image_are_trained_and_not_judged(tmp_path, command):
    for i in range(16):
        for root in ("one/class", f"many/{i:02}"):
            (tmp_path / root).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (9 * i, 0, 0)).save(tmp_path / root / f"{i}.png")
    for root, told in (("one", "16 images of 8×8 pixels\n"), ("many", "16 images of 8×8 pixels, 16 classes")):
        status, said, errors = command("--images", root, *SHORT, "--out", "e")
        assert status == 0 and told in said, errors
        assert said.splitlines()[-1] == "wrote e"


# Several processes


def test_two_processes_speak_and_write_once(tmp_path):
    for i in range(18):
        Image.new("RGB", (9, 9), (9 * i, 200 - 9 * i, 0)).save(tmp_path / f"{i}.png")
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "labcode.pretrain"]
    given = ["--images", tmp_path, *SHORT, "--batch", 500, "--out", tmp_path / "out" / "e"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *map(str, start + given)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = "18 images of 8×8 pixels; left out: 1 empty"  # where the first process will write
    assert done.stdout.splitlines() == [told, "simclr, small, 2 steps on 2 processes, a CPU each",
                                        f"wrote {tmp_path}/out/e"]  # fmt: skip
    assert "Error" not in done.stderr and "was not destroyed" not in done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["e"]
    pretrain.load(tmp_path / "out" / "e")


def test_of_several_processes_the_first_says_what_is_wrong(tmp_path, command, monkeypatch):
    for rank, said in ("0", 1), ("1", 0):
        monkeypatch.setenv("RANK", rank)
        status, _, errors = command("--images", tmp_path / "none")
        assert status == 2 and errors.count("there is no folder") == said == errors.count("\n")


@pytest.mark.parametrize("rank,gpus,wanted", [(0, 2, "cuda:0"), (1, 2, "cuda:1"), (2, 2, None), (1, 0, "cpu")])
def test_each_process_takes_its_own_device(monkeypatch, rank, gpus, wanted):
    taken = []
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    if wanted is None:
        with pytest.raises(ValueError, match="process 2 finds no GPU of its own: start at most 2"):
            pretrain.own_device()
    else:
        assert str(pretrain.own_device()) == wanted and taken == [rank] * (gpus > 0)


# Elsewhere


@pytest.mark.parametrize("net", ["small", "resnet18"])
def test_the_encoder_goes_to_other_programs(tmp_path, net):
    """``torch.export``, and ONNX where it is installed, for any batch; safetensors reads the file by itself."""
    from safetensors.torch import load_file

    torch.manual_seed(0)
    encoder = nets.SmallNet(size=16).eval() if net == "small" else nets.ResNet18(width=16).eval()
    pretrain.save(encoder, tmp_path / "e", size=16)
    weights = load_file(tmp_path / "e")
    assert all(torch.equal(v, weights[k]) for k, v in encoder.state_dict().items())
    x, more = torch.rand(3, 3, 16, 16), torch.rand(5, 3, 16, 16)
    any_batch = ({0: torch.export.Dim("n")},)
    exported = torch.export.export(encoder, (x,), dynamic_shapes=any_batch)
    assert torch.allclose(exported.module()(more), encoder(more), atol=1e-5)
    if importlib.util.find_spec("onnxscript") and importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        torch.onnx.export(encoder, (x,), tmp_path / "e.onnx", dynamo=True, dynamic_shapes=any_batch)
        session = onnxruntime.InferenceSession(tmp_path / "e.onnx")
        (found,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
        assert np.allclose(found, encoder(more).detach().numpy(), atol=1e-4)
