"""How fast a self-supervised training step is, where its time goes, and what bounds it.

    python -m labcode.throughput                         SimCLR, ResNet-18, batch 512, 32×32, on the GPU
    python -m labcode.throughput --batch 64 --width 8    something that a CPU can do, to try the command
    python -m labcode.throughput --out book/results/throughput.json

Views a second count everything that a step does: both views made on the device from uint8 images that live there, one
fused forward, the loss, backward, optimiser. Each way of running it (plain, channels last, compiled) is measured, and
the parts of a step by events in between, which costs a little, so parts are given as shares. The bound is the measured
rate of a large matrix product in the same precision. Where lightly is installed its recipe runs beside: its transforms
on PIL images in worker processes, two forwards, its loss.
"""

import argparse
import datetime
import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import augment, nets
from .ledger import put
from .provenance import commit, device_name, versions

WAYS = ("plain", "channels last", "channels last, compiled")
PARTS = ("augmentation", "forward", "backward", "optimiser")


class Clock:
    """Times on the device: CUDA events where there is a GPU, the wall clock elsewhere."""

    def __init__(self, device: torch.device):
        self.cuda, self.marks = device.type == "cuda", []

    def mark(self) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Between one mark and the next."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if self.cuda:
            torch.cuda.synchronize()
            return [a.elapsed_time(b) / 1000 for a, b in pairs]
        return [b - a for a, b in pairs]


def peak(device: torch.device, dtype: torch.dtype, side: int = 8192, repeats: int = 20) -> float:
    """Floating-point operations a second of a square matrix product, the best of several."""
    side, repeats = (side, repeats) if device.type == "cuda" else (1024, 5)
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    clock = Clock(device)
    for _ in range(repeats + 1):
        clock.mark()
        a @ b
    clock.mark()
    return 2 * side**3 / min(clock.seconds()[1:])


def flops(model: nn.Module, images: Tensor) -> int:
    """Floating-point operations of forward and backward of these images."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(images).float().square().mean().backward()
    model.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def make_step(images: Tensor, width: int, batch: int, way: str, device: torch.device) -> Callable[[Clock | None], None]:
    """A SimCLR training step in one of ``WAYS``; a clock that is given gets a mark between its parts."""
    from ..self_supervision.contrastive import SimCLR

    torch.manual_seed(0)
    model = SimCLR(nets.ResNet18(width), head="mlp").to(device)
    layout = torch.contiguous_format if way == "plain" else nets.memory_layout(model, device)
    model = model.to(memory_format=layout)
    if "compiled" in way:
        model.encoder.compile()
    half = torch.bfloat16 if device.type == "cuda" else None
    optimiser = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4, fused=True)
    generator = torch.Generator(device).manual_seed(0)

    def step(clock: Clock | None = None) -> None:
        mark = clock.mark if clock else lambda: None
        mark()
        index = torch.randint(len(images), (batch,), device=device, generator=generator)
        with torch.no_grad():
            views = augment.simclr_views(images[index], generator).contiguous(memory_format=layout)
        mark()
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            loss = model(views, index)
        mark()
        loss.backward()
        mark()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        mark()

    return step


def rate(step: Callable[[], None], views: int, steps: int, warmup: int, device: torch.device) -> float:
    """Views a second, from the whole of ``steps`` steps."""
    for _ in range(warmup):
        step()
    clock = Clock(device)
    clock.mark()
    for _ in range(steps):
        step()
    clock.mark()
    return views * steps / clock.seconds()[0]


def lightly_rate(images: Tensor, width: int, batch: int, steps: int, device: torch.device) -> float | None:
    """Views a second of lightly's recipe with the same encoder and optimiser; None where it is not installed."""
    if importlib.util.find_spec("lightly") is None:
        return None
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    transform = SimCLRTransform(images.shape[2], cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0)

    class Pictures(Dataset):
        pictures = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images[: 8 * batch].cpu()]
        __len__ = lambda self: (steps + 3) * batch  # noqa: E731
        __getitem__ = lambda self, i: transform(self.pictures[i % len(self.pictures)])  # noqa: E731

    workers = max(0, (os.cpu_count() or 1) - 1)
    loader = iter(DataLoader(Pictures(), batch, num_workers=workers, drop_last=True, pin_memory=device.type == "cuda"))
    encoder = nets.ResNet18(width).to(device)
    d = encoder.features
    head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 128)).to(device)
    criterion, half = NTXentLoss(0.5), torch.bfloat16 if device.type == "cuda" else None
    optimiser = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.06, momentum=0.9)

    def step() -> None:
        views = [v.to(device, non_blocking=True) for v in next(loader)]
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            loss = criterion(*(head(encoder(v)) for v in views))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return rate(step, 2 * batch, steps, 2, device)


def measure(width: int = 64, batch: int = 512, steps: int = 50, side: int = 32, ways: tuple[str, ...] = WAYS,
            device: torch.device | None = None) -> dict:  # fmt: skip
    """All figures as a dictionary that JSON can hold; a way that fails has its error in place of a rate."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randint(256, (max(4 * batch, 2048), 3, side, side), dtype=torch.uint8).to(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    best = peak(device, dtype)
    work = flops(nets.ResNet18(width).to(device), torch.rand(8, 3, side, side, device=device)) / 8
    found = {}
    for way in ways:
        try:
            step = make_step(images, width, batch, way, device)
            views = rate(step, 2 * batch, steps, min(10, steps), device)
            parts = [0.0] * len(PARTS)
            for _ in range(min(10, steps)):
                clock = Clock(device)
                step(clock)
                parts = [a + b for a, b in zip(parts, clock.seconds(), strict=True)]
            shares = {name: round(p / sum(parts), 3) for name, p in zip(PARTS, parts, strict=True)}
            of_peak = round(views * work / best, 3)
            found[way] = dict(views_per_second=round(views, 1), share_of_peak=of_peak, parts=shares)
        except Exception as error:  # a compiler that is missing must not cost the other figures
            found[way] = dict(error=f"{type(error).__name__}: {str(error)[:200]}")
    rates = {"labcode": max((w.get("views_per_second", 0.0) for w in found.values()), default=0.0)}
    peer = lightly_rate(images, width, batch, max(3, steps // 5), device)
    if peer:
        rates["lightly"] = round(peer, 1)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return dict(
        method="SimCLR", net=f"ResNet-18, width {width}", batch=batch, side=side, precision=str(dtype)[6:],
        peak_tflops=round(best / 1e12, 2), gflop_per_view=round(work / 1e9, 4), ways=found, views_per_second=rates,
        memory_gib=memory and round(memory, 2), device=device_name(device), versions=versions(), commit=commit(),
        date=datetime.date.today().isoformat(),
    )  # fmt: skip


def report(found: dict) -> str:
    """The figures in lines for a terminal."""
    side, peak_rate, work = (found[k] for k in ("side", "peak_tflops", "gflop_per_view"))
    lines = [
        f"{found['method']}, {found['net']}, batch {found['batch']}, {side}×{side}, {found['precision']}, "
        f"{found['device']}",
        f"a matrix product reaches {peak_rate} TFLOP/s; a view takes {work} GFLOP",
    ]
    for way, w in found["ways"].items():
        if "error" in w:
            lines.append(f"{way:26} {w['error']}")
        else:
            parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in w["parts"].items())
            of_peak = f"{100 * w['share_of_peak']:.0f} % of the peak"
            lines.append(f"{way:26} {w['views_per_second']:10,.0f} views/s, {of_peak}; {parts}")
    lines += [f"{name:26} {value:10,.0f} views/s" for name, value in found["views_per_second"].items()]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m labcode.throughput", description=__doc__.split("\n\n")[0])
    options.add_argument("--width", type=int, default=64, help="channels of ResNet-18's first stage")
    options.add_argument("--batch", type=int, default=512)
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--side", type=int, default=32, metavar="PIXELS")
    options.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options.add_argument("--out", type=Path, help="also write the figures as JSON")
    given = options.parse_args(arguments)
    found = measure(given.width, given.batch, given.steps, given.side, tuple(given.ways))
    print(report(found))
    if given.out:
        put(given.out, found)
    return 0
