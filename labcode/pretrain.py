"""A self-supervised encoder from a folder of images, without a label.

    python -m labcode.pretrain --images photos --method barlow_twins --out encoder.safetensors

Images are found in all subfolders. Where every image lies in a subfolder, the subfolders' names count as classes: they
take no part in the training, and the encoder is judged by them at the end. A run that was killed goes on where it
stopped when the same command is given again.

In a program: ``read_folder``, ``pretrain``, ``encode``, ``save`` and ``load`` do the same, one step each.
"""

import argparse
import json
import os
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from . import augment, nets
from .data import shuffled
from .train import fit

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm")
NETS = {"resnet18": nets.ResNet18, "small": nets.SmallNet}
FEWEST = 16  # images


def methods() -> dict[str, Callable[[nn.Module], nn.Module]]:
    """The methods that ``--method`` knows, each made from an encoder, with its paper's settings for small images."""
    from .self_supervision import contrastive, redundancy

    return {
        "simclr": partial(contrastive.SimCLR, tau=0.5, head="mlp"),
        "moco_v2": partial(contrastive.MoCo, tau=0.2, queue=4096, head="mlp"),
        "decoupled_uniformity": contrastive.DecoupledUniformity,
        "barlow_twins": partial(redundancy.TwoViews, loss=partial(redundancy.barlow_twins, lam=0.0051), dim=1024),
        "vicreg": partial(redundancy.TwoViews, loss=redundancy.vicreg, dim=1024),
        "ssl_ey": partial(redundancy.TwoViews, loss=redundancy.ssl_ey, dim=256),
    }


@dataclass(frozen=True)
class Folder:
    """What was read from a folder."""

    images: UInt8[Tensor, "n 3 s s"]
    files: tuple[Path, ...]
    labels: Int[Tensor, " n"] | None  # by the first subfolder's name; None where some images lie outside of one
    classes: tuple[str, ...]
    skipped: tuple[Path, ...]  # files with an image's ending that could not be read


def read_folder(
    folder: str | Path, size: int = 32, skip_unreadable: bool = False, progress: bool | None = None
) -> Folder:
    """All images under a folder, as one uint8 tensor (n, 3, size, size) in memory.

    An image's shorter side is resized to ``size`` (bicubic, antialiased) and its centre cut out. Grey images get three
    equal channels, transparent ones a black ground, and a photograph is turned as its camera held it.

    skip_unreadable  leave out what cannot be read instead of raising

    Raises FileNotFoundError for a folder that is not there, ValueError for a folder without images, for fewer than
    16 of them, for one that cannot be read (naming it), and for a size below 8.
    """
    from PIL import Image, ImageOps
    from tqdm import tqdm

    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"images: there is no folder {root}")
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, got {size}")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    if not files:
        raise ValueError(f"images: {root} holds no file that ends in {', '.join(ENDINGS)}, nor do its subfolders")
    show = sys.stderr.isatty() if progress is None else progress
    read, kept, skipped = [], [], []
    for file in tqdm(files, desc="reading", unit="image", disable=not show, delay=1, leave=False):
        try:
            with Image.open(file) as picture:
                if picture.mode[0] in "IF":  # 16 or 32 bits a pixel, which a conversion would clip without a word
                    raise ValueError(f"mode {picture.mode}, more than 8 bits a channel: convert it first")
                picture = ImageOps.exif_transpose(picture)
                if "A" in picture.getbands() or "transparency" in picture.info:
                    seen = picture.convert("RGBA")
                    picture = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
                picture = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
                pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if not skip_unreadable:
                raise ValueError(
                    f"images: {file} cannot be read ({error}): remove it, or pass --skip-unreadable to go on without"
                ) from error
            skipped.append(file)
            continue
        read.append(pixels.view(size, size, 3).permute(2, 0, 1))
        kept.append(file)
    if len(read) < FEWEST:
        raise ValueError(f"images: at least {FEWEST} are needed, {root} holds {len(read)} that can be read")
    inner = [file.relative_to(root).parts for file in kept]
    classes = sorted({parts[0] for parts in inner}) if all(len(parts) > 1 for parts in inner) else []
    labels = torch.tensor([classes.index(parts[0]) for parts in inner]) if len(classes) > 1 else None
    return Folder(torch.stack(read), tuple(kept), labels, tuple(classes) if labels is not None else (), tuple(skipped))


def pretrain(
    images: UInt8[Tensor, "n 3 s s"], method: str = "simclr", net: str = "resnet18", steps: int = 5000,
    batch_size: int = 256, lr: float = 1e-3, seed: int = 0, checkpoint: str | Path | None = None,
    device: str | torch.device | None = None, compile: bool = False, progress: bool | None = None,
) -> nn.Module:  # fmt: skip
    """Train an encoder on images without labels and return it, in evaluation mode, on the device.

    method      one of ``methods()``
    net         "resnet18" (CIFAR stem, 512 features) or "small" (for 8 to 32 pixels on a CPU, 256 features)
    steps       updates, >= 1; AdamW, a tenth of them warm-up, then half a cosine
    batch_size  images a step, each seen in two of SimCLR's views; at most the number of images is taken
    seed        0 … 2⁶³ − 1
    checkpoint  file to go on from after an interruption, see ``labcode.train.fit``; one of other images, or of another
                method, network, batch or seed, is refused
    device      the GPU if there is one; bfloat16 is used there

    Raises ValueError for an unknown method or net, for a checkpoint of another run and whatever else ``fit`` refuses;
    on a GPU whose memory is too small, MemoryError that says what to change.
    """
    known = methods()
    if method not in known:
        raise ValueError(f"method must be one of {', '.join(known)}, got {method!r}")
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 (n, 3, s, s), got {images.dtype} {tuple(images.shape)}")
    if net not in NETS:
        raise ValueError(f"net must be one of {', '.join(NETS)}, got {net!r}")
    if batch_size < 4:
        raise ValueError(f"batch_size must be at least 4, got {batch_size}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be in 0 … 2⁶³ − 1, got {seed}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    size, batch_size = images.shape[2], min(batch_size, len(images))
    look = dict(strength=0.5, blur_p=0.0) if size <= 64 else dict(strength=1.0, blur_p=0.5)
    facts = dict(method=method, net=net, batch_size=batch_size, seed=seed, size=size, views=look)
    if checkpoint:
        facts |= dict(images=len(images), pixels=_fingerprint(images))
    images = images.to(device)
    torch.manual_seed(seed)
    make = partial(nets.SmallNet, size=size) if net == "small" else NETS[net]
    model = known[method](make()).to(device, memory_format=torch.channels_last)
    generator = torch.Generator(device).manual_seed(seed)

    def step(index: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            views = augment.simclr_views(images[index], generator, **look)
        return {"loss": model(views.contiguous(memory_format=torch.channels_last), index)}

    try:
        fit(_Bound(model, facts, checkpoint), step, shuffled(len(images), batch_size, seed, device), steps=steps, lr=lr,
            weight_decay=1e-4, clip=5.0, precision="bf16" if device.type == "cuda" else "no", compile=compile,
            generators=[generator], checkpoint=checkpoint, progress=progress, label=method)  # fmt: skip
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"the GPU's memory does not hold {batch_size} images of {size}×{size}: take a smaller batch "
            f"(--batch {batch_size // 2}), smaller images (--size {size // 2}) or --net small"
        ) from error
    return model.encoder.eval()


class _Bound(nn.Module):
    """A method whose checkpoints hold what decides its training, and go on under the same facts alone."""

    def __init__(self, method: nn.Module, facts: dict, file: str | Path | None):
        super().__init__()
        self.method, self.facts, self.file = method, facts, file

    def get_extra_state(self) -> dict:
        return self.facts

    def set_extra_state(self, state: dict) -> None:
        pass  # ``load_state_dict`` looks at it before any weight is copied

    def load_state_dict(self, state: dict, **options):
        there = state.get("_extra_state", {})
        if different := [name for name, here in self.facts.items() if there.get(name) != here]:
            told = ", ".join(f"{name} {there.get(name)} there, {self.facts[name]} here" for name in different)
            raise ValueError(f"checkpoint {self.file} is of another run: {told}; delete it or name another file")
        return super().load_state_dict(state, **options)


def _fingerprint(images: UInt8[Tensor, "n 3 s s"]) -> str:
    """A checksum of all pixels."""
    return f"{zlib.crc32(images.cpu().numpy().tobytes()):08x}"


@torch.no_grad()
def encode(encoder: nn.Module, images: UInt8[Tensor, "n 3 s s"], chunk: int = 1024) -> Float[Tensor, "n d"]:
    """The encoder's features of images, without augmentation, on the encoder's device."""
    device = next(encoder.parameters()).device
    return torch.cat([encoder(part.to(device).float() / 255).float() for part in images.split(chunk)])


def save(encoder: nn.Module, file: str | Path, **facts: object) -> None:
    """The encoder's weights as safetensors, in one piece; ``facts`` (size, method, …) go into its metadata.

    A ``SmallNet`` needs the fact ``size`` to be loaded again.

    Raises ValueError for an encoder of another kind, for a file in whose place none can be written, and for a missing
    size.
    """
    from safetensors.torch import save as packed

    name = next((n for n, kind in NETS.items() if type(encoder) is kind), None)
    if name is None:
        raise ValueError(f"encoder must be one of {', '.join(NETS)}, got {type(encoder).__name__}")
    if name == "small" and "size" not in facts:
        raise ValueError("size must be among the facts of a SmallNet: its layers depend on it")
    file = writable(file, "file")
    weights = {k: v.contiguous().cpu() for k, v in encoder.state_dict().items()}
    aside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:  # not safetensors' own way to write, whose files only their owner may read
        aside.write_bytes(packed(weights, metadata={"labcode": json.dumps({"net": name} | facts)}))
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def writable(file: str | Path, name: str) -> Path:
    """The path of a file that can be written, or written anew: its folder is made, and tried.

    name  of the argument that the path came from, for the error: ValueError where no file can be
    """
    path = Path(file)
    if path.is_dir() or str(file).endswith(("/", os.sep)):
        raise ValueError(f"{name} must be a file, got a folder, {str(file)!r}: add a file's name to it")
    if path.exists() and not path.is_file():
        raise ValueError(f"{name} must be a file, got {str(file)!r}, which is something else, such as a device")
    probe = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        told = f"got {str(file)!r}, where that fails ({error.strerror})"
        raise ValueError(f"{name} must be a file in a folder that can be made and written, {told}") from error
    return path


def load(file: str | Path) -> tuple[nn.Module, dict]:
    """An encoder that ``save`` wrote, in evaluation mode on the CPU, and the facts stored with it.

    Raises ValueError for a file that is damaged or not of this command.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as stored:
            facts = json.loads((stored.metadata() or {})["labcode"])
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is no encoder of labcode.pretrain ({error})") from error
    try:
        encoder = nets.SmallNet(size=facts["size"]) if facts["net"] == "small" else NETS[facts["net"]]()
        encoder.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file} does not fit the network it names ({error})") from error
    return encoder.eval(), facts


def judge(encoder: nn.Module, folder: Folder) -> dict[str, float] | None:
    """kNN and linear probe by the subfolders' classes, on a fifth of the images held out; None without classes.

    The untrained network of the same kind is judged alike: it is what the training has to beat.
    """
    from .evaluate import held_out, knn, linear_probe

    torch.manual_seed(1)
    if folder.labels is None:
        return None
    held = held_out(folder.labels, len(folder.classes), 0.2, seed=0)
    if not held.any():
        return None
    y, y_held = folder.labels[~held], folder.labels[held]
    device = next(encoder.parameters()).device
    blank = type(encoder)(**({"size": folder.images.shape[2]} if isinstance(encoder, nets.SmallNet) else {})).to(device)
    nets.estimate_statistics(blank, (part.to(device).float() / 255 for part in folder.images.split(256)))
    found = {"chance": float(torch.bincount(y_held).max() / len(y_held))}
    for name, net in (("untrained", blank), ("trained", encoder)):
        z = encode(net, folder.images).cpu()
        found[f"{name}, kNN"] = knn(z[~held], y, z[held], y_held, k=min(20, len(y)))
        found[f"{name}, linear probe"] = linear_probe(z[~held], y, z[held], y_held).accuracy
    return found


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m labcode.pretrain", description=__doc__.split("\n\n")[0])
    options.add_argument("--images", required=True, metavar="FOLDER", help="images, in subfolders or not")
    options.add_argument("--method", default="simclr", choices=list(methods()))
    options.add_argument("--out", default="encoder.safetensors", metavar="FILE", help="where the encoder goes")
    options.add_argument("--net", choices=list(NETS), help="default: resnet18 on a GPU, small on a CPU")
    options.add_argument("--size", type=int, default=32, metavar="PIXELS", help="side to which images are brought")
    options.add_argument("--steps", type=int, default=5000)
    options.add_argument("--batch", type=int, default=256, metavar="IMAGES")
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--compile", action="store_true", help="torch.compile: a minute more, then faster")
    options.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be read")
    given = options.parse_args(arguments)
    if not 0 <= given.seed < 2**63:
        options.error(f"--seed must be in 0 … 2⁶³ − 1, got {given.seed}")
    net = given.net or ("resnet18" if torch.cuda.is_available() else "small")
    try:
        out = writable(given.out, "--out")
        folder = read_folder(given.images, given.size, given.skip_unreadable)
        about = f", {len(folder.classes)} classes by subfolder" if folder.classes else ""
        left = f"; {len(folder.skipped)} could not be read and are left out" if folder.skipped else ""
        print(f"{len(folder.images)} images of {given.size}×{given.size} pixels{about}{left}", flush=True)
        facts = dict(method=given.method, size=given.size, seed=given.seed, images=len(folder.images))
        run = [net, *facts.values(), _fingerprint(folder.images)]  # of these very images
        checkpoint = out.with_name(f"{out.name}.{'-'.join(map(str, run))}.checkpoint")
        where = "a GPU" if torch.cuda.is_available() else "the CPU"
        print(f"{given.method}, {net}, {given.steps} steps on {where}", flush=True)
        if checkpoint.exists():
            print(f"going on from {checkpoint}", flush=True)
        encoder = pretrain(folder.images, given.method, net, given.steps, given.batch, given.lr, given.seed, checkpoint,
                           compile=given.compile)  # fmt: skip
        save(encoder, out, steps=given.steps, **facts)
        checkpoint.unlink(missing_ok=True)
    except (FileNotFoundError, ValueError, FloatingPointError, MemoryError, OSError) as error:
        options.exit(2, f"{options.prog}: {error}\n")
    except KeyboardInterrupt:
        options.exit(130, f"\n{options.prog}: stopped; the same command goes on from the last checkpoint\n")
    print(f"wrote {out}")
    found = judge(encoder, folder)
    for name, value in (found or {}).items():
        print(f"{name:24} {value:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
