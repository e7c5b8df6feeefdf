"""A self-supervised encoder from a folder of images, without a label.

    python -m labcode.pretrain --images photos --method barlow_twins --out encoder.safetensors

Images are found in all subfolders. Where every image lies in a subfolder, the subfolders' names count as classes: they
take no part in the training, and the encoder is judged by them at the end. A run that was killed goes on where it
stopped when the same command is given again.

    torchrun --nproc_per_node 2 -m labcode.pretrain --images photos

Several processes share every batch, each on a device of its own, and the first one speaks and writes.

In a program: ``read_folder``, ``pretrain``, ``encode``, ``save`` and ``load`` do the same, one step each.
"""

import argparse
import json
import math
import os
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from . import augment, nets
from .data import shuffled
from .data.files import writable, write_aside
from .data.folder import Folder, read_folder
from .train import fit

NETS = {"resnet18": nets.ResNet18, "small": nets.SmallNet}


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


def pretrain(
    images: UInt8[Tensor, "n 3 s s"], method: str = "simclr", net: str = "resnet18", steps: int = 5000,
    batch_size: int = 256, lr: float = 1e-3, seed: int = 0, checkpoint: str | Path | None = None,
    device: str | torch.device | None = None, compile: bool = False, progress: bool | None = None,
) -> nn.Module:  # fmt: skip
    """Train an encoder on images without labels and return it, in evaluation mode, on the device.

    method      one of ``methods()``
    net         "resnet18" (CIFAR stem, 512 features) or "small" (for 8 to 32 pixels on a CPU, 256 features)
    steps       updates, >= 1; AdamW, a tenth of them warm-up, then half a cosine
    batch_size  images a step, each seen in two of SimCLR's views; at most the number of images is taken. Several
                processes share them evenly
    seed        0 … 2⁶³ − 1
    checkpoint  file to go on from after an interruption, see ``labcode.train.fit``; one of other images, or of another
                method, network, batch or seed, is refused
    device      the GPU if there is one, and of several processes each takes its own; bfloat16 is used there

    Raises ValueError for an unknown method or net, for fewer than four images, for a checkpoint of another run and
    whatever else ``fit`` refuses; OSError for a checkpoint that could not be written;
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
    if len(images) < 4:
        raise ValueError(f"images must be at least 4, got {len(images)}")
    device = torch.device(device) if device else own_device()
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    size, batch_size = images.shape[2], min(batch_size, len(images) - len(images) % ranks)
    look = dict(strength=0.5, blur_p=0.0) if size <= 64 else dict(strength=1.0, blur_p=0.5)
    facts = dict(method=method, net=net, batch_size=batch_size, seed=seed, size=size, views=look)
    if checkpoint:
        facts |= dict(images=len(images), pixels=_fingerprint(images))
    images = images.to(device)
    torch.manual_seed(seed)
    make = partial(nets.SmallNet, size=size) if net == "small" else NETS[net]
    model = known[method](make())
    layout = nets.memory_layout(model, device)
    model.to(device, memory_format=layout)
    generator = torch.Generator(device).manual_seed(seed)

    def step(index: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            views = augment.simclr_views(images[index], generator, **look)
        return {"loss": model(views.contiguous(memory_format=layout), index)}

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


def own_device() -> torch.device:
    """The GPU of this process among those that were started together, or the CPU where there is no GPU.

    Raises ValueError for more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    mine, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if mine >= there:
        raise ValueError(f"process {mine} finds no GPU of its own: start at most {there} on this machine")
    torch.cuda.set_device(mine)
    return torch.device("cuda", mine)


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


def encode(encoder: nn.Module, images: Tensor, chunk: int = 1024) -> Float[Tensor, "n d"]:
    """The encoder's features of images, without augmentation, in float32 on the encoder's device.

    images  (n, 3, h, w), uint8 or floats in [0, 1]
    chunk   images at a time, >= 1; features do not depend on it

    The encoder works in evaluation mode and is left as it was, its running statistics too. Raises ValueError for images
    of another shape, type or range (also where some are no numbers) and for a chunk below 1.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (n, 3, height, width), got {tuple(images.shape)}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    whole = images.dtype == torch.uint8
    if not whole:
        if not images.is_floating_point():
            raise ValueError(f"images must be uint8 or floats in [0, 1], got {images.dtype}")
        low, high = images.aminmax()
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images must be uint8 or floats in [0, 1], got floats from {float(low):.4g} to {float(high):.4g}: "
                "scale them, or undo their normalisation"
            )
    if not len(images):
        return encode(encoder, images.new_zeros(1, *images.shape[1:]))[:0]
    held = next((p for p in encoder.parameters() if p.is_floating_point()), torch.zeros(()))
    with nets.evaluating(encoder):
        parts = (part.to(held.device) for part in images.split(chunk))
        scaled = ((part.float() / 255 if whole else part).to(held.dtype) for part in parts)
        return torch.cat([encoder(part).float() for part in scaled])


def save(encoder: nn.Module, file: str | Path, **facts: object) -> None:
    """The encoder's weights as safetensors, in one piece; ``facts`` (size, method, …) go into its metadata.

    A ``SmallNet`` needs the fact ``size`` to be loaded again. Numbers may be NumPy's and torch's.

    Raises ValueError for an encoder of another kind, for a file in whose place none can be written, for a missing or
    wrong size, another ``net``, and facts that are neither numbers nor texts nor lists of them.
    """
    from safetensors.torch import save as packed

    name = next((n for n, kind in NETS.items() if type(encoder) is kind), None)
    if name is None:
        raise ValueError(f"encoder must be one of {', '.join(NETS)}, got {type(encoder).__name__}")
    if name == "small" and "size" not in facts:
        raise ValueError("size must be among the facts of a SmallNet: its layers depend on it")
    if facts.get("net", name) != name:
        raise ValueError(f"net must be {name!r}, which the encoder is, got {facts['net']!r}")
    try:
        told = json.dumps({"net": name} | facts, default=lambda value: value.item())
    except (AttributeError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise ValueError(f"facts must be numbers, texts, or lists of them, got {facts} ({error})") from error
    weights = {k: v.contiguous().cpu() for k, v in encoder.state_dict().items()}
    _options(json.loads(told), weights)  # what could not be loaded is not saved
    # not safetensors' own way to write, whose files only their owner may read
    write_aside(writable(file, "file"), packed(weights, metadata={"labcode": told}))


def load(file: str | Path) -> tuple[nn.Module, dict]:
    """An encoder that ``save`` wrote, in evaluation mode on the CPU, and the facts stored with it.

    Raises ValueError for a file that is damaged or not of this command.
    """
    from safetensors import SafetensorError, safe_open

    if Path(file).is_dir():
        raise ValueError(f"{file} is no encoder of labcode.pretrain (it is a folder)")
    try:
        with safe_open(file, "pt") as stored:
            facts = json.loads((stored.metadata() or {})["labcode"])
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is no encoder of labcode.pretrain ({error})") from error
    try:
        encoder = NETS[facts["net"]](**_options(facts, weights))
        encoder.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{file} does not fit the network it names ({error})") from error
    return encoder.eval(), facts


def _options(facts: dict, weights: dict[str, Tensor]) -> dict[str, int]:
    """What makes a network of the kind that the facts name as wide as its weights."""
    if facts["net"] == "small":
        (width, pixels), (features, places) = weights["conv1.weight"].shape, weights["linear.weight"].shape
        deep = len(weights["conv2.weight"])
        side = 4 * math.isqrt(places // deep)
        if facts["size"] != side:
            raise ValueError(f"size must be that of the encoder's images, {side}, got {facts['size']!r}")
        return dict(width=width, features=features, size=side, channels=pixels // 16, deep=deep)
    width, channels = weights["stem.0.weight"].shape[:2]
    return dict(width=width, channels=channels)


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
    first = os.environ.get("RANK", "0") == "0"
    say = _say if first else lambda _: None
    net = given.net or ("resnet18" if torch.cuda.is_available() else "small")
    try:
        own_device()
    except ValueError as error:
        options.exit(2, f"{options.prog}: {error}\n")
    try:
        out = writable(given.out, "--out") if first else Path(given.out)
        folder = read_folder(given.images, given.size, given.skip_unreadable, progress=None if first else False)
        about = f", {len(folder.classes)} classes by subfolder" if folder.classes else ""
        left = f"; left out: {folder.report()}" if folder.report() else ""
        say(f"{len(folder.images)} images of {given.size}×{given.size} pixels{about}{left}")
        facts = dict(method=given.method, size=given.size, seed=given.seed, images=len(folder.images))
        run = [net, *facts.values(), _fingerprint(folder.images)]  # of these very images
        checkpoint = out.with_name(f"{out.name}.{'-'.join(map(str, run))}.checkpoint")
        if first:
            writable(checkpoint, "--out, whose checkpoint has a longer name,")
        say(f"{given.method}, {net}, {given.steps} steps on {_where()}")
        if first and checkpoint.exists():
            say(f"going on from {checkpoint}")
        encoder = pretrain(folder.images, given.method, net, given.steps, given.batch, given.lr, given.seed, checkpoint,
                           compile=given.compile)  # fmt: skip
        if first:
            save(encoder, out, steps=given.steps, **facts)
            checkpoint.unlink(missing_ok=True)
    except (ValueError, FloatingPointError, MemoryError, OSError) as error:
        told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        # each process has a memory of its own; whatever else is wrong is so for all, and the first one says it
        options.exit(2, f"{options.prog}: {told}\n" if first or isinstance(error, MemoryError) else None)
    except KeyboardInterrupt:
        told = f"\n{options.prog}: stopped; the same command goes on from the last checkpoint\n"
        options.exit(130, told if first else None)
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if not first:
        return 0
    say(f"wrote {out}")
    found = judge(encoder, folder)
    for name, value in (found or {}).items():
        say(f"{name:24} {value:.3f}")
    return 0


def _say(text: str) -> None:
    """Print it, whatever letters the terminal lacks or a file's name holds."""
    letters = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(letters, "backslashreplace").decode(letters), flush=True)


def _where() -> str:
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    kind = "GPU" if torch.cuda.is_available() else "CPU"
    return f"{ranks} processes, a {kind} each" if ranks > 1 else "a GPU" if kind == "GPU" else "the CPU"


if __name__ == "__main__":
    sys.exit(main())
