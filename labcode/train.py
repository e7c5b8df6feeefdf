"""One training loop. A method supplies ``step(batch) -> {"loss": …}``; everything else is here, once."""

import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from . import parallel
from .data.batches import mixed_seed
from .data.files import write_aside


@dataclass
class History:
    """What a training left behind."""

    losses: Tensor  # (steps,) the loss of every step, on the CPU
    seconds: float  # wall clock of this process, without what a resumed run had done before
    steps: int
    resumed_at: int  # first step of this process; 0 for a run that was not interrupted
    ema: nn.Module | None  # the averaged model, when ``ema`` was asked for

    @property
    def steps_per_second(self) -> float:
        return (self.steps - self.resumed_at) / max(self.seconds, 1e-9)


def schedule(step: int, steps: int, lr: float, warmup: int, final: float = 0.0) -> float:
    """Linear warm-up over ``warmup`` steps, then half a cosine from ``lr`` to ``final``."""
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * progress))


def fit(
    model: nn.Module,
    step: Callable[..., dict[str, Tensor]],
    batches: Callable[[int], Tensor],
    *,
    steps: int,
    stretch: bool = True,
    lr: float = 2e-3,
    optimizer: str | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = "adamw",
    weight_decay: float = 1e-4,
    warmup: int | None = None,
    final_lr: float = 0.0,
    clip: float | None = None,
    ema: float | None = None,
    precision: str = "no",
    compile: bool = False,
    generators: Iterable[torch.Generator] = (),
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    progress: bool | None = None,
    label: str = "",
) -> History:
    """Train ``model`` in place.

    model               holds all that is learnt or carried along: encoder, heads, queues and banks as buffers
    step                ``step(batch) -> {"loss": scalar, …}``; calls the model's parts as it likes
    batches             ``batches(i)`` is the whole batch of step i, usually ``lab.data.shuffled(…)``; with several
                        processes each gets its share of the rows
    steps               number of updates, >= 1; four times as many at the course's long scale, unless ``stretch`` is
                        False, as for what evaluates
    lr, final_lr        peak and last learning rate; ``warmup`` steps (default 10 %) lead to the peak
    optimizer           "adamw", "sgd" (momentum 0.9) or a function of the parameter groups
    weight_decay        for matrices and filters; biases and norms have none
    clip                largest gradient norm, or None
    ema                 decay of an exponential moving average of the weights, or None
    precision           "no", "bf16" or "fp16"; the loss itself should leave autocast where it needs float32
    generators          random generators that ``step`` draws from: they are saved with a checkpoint
    checkpoint          file to write every ``checkpoint_seconds`` and at the end. A run that was killed and is
                        started again goes on from there; on the CPU it ends with the same bits.
    progress            a bar with loss and rate on stderr; None shows it after two seconds, on a terminal only

    Several processes (``accelerate launch``): parameters start equal, each process sees its rows of the batch, and
    gradients and losses are averaged after the backward pass. There is no wrapper, so ``step`` may call any module any
    number of times. BatchNorm takes its statistics over all processes, and losses that compare rows use
    ``parallel.gather``, as the methods of this package do: the step is that of one process with the whole batch. Each
    process draws random numbers of its own; afterwards all go on with the first one's. Other buffers, such as queues,
    are each process's own, and the first one's are kept.

    A checkpoint may go on with another number of processes: batches, weights and optimiser are those of the whole
    batch, only the random numbers differ, and a warning says so. With the same number all ends with the same bits.

    Raises ValueError for arguments out of range, for a checkpoint of another run and for a batch that the processes
    cannot share evenly, FloatingPointError for a loss that is not finite, naming the step and its learning rate,
    OSError for a checkpoint that could not be written (the one before stays).
    """
    with warnings.catch_warnings():  # of its progress bar, which wants widgets in a notebook; ours does not
        warnings.filterwarnings("ignore", message="IProgress not found")
        from accelerate import PartialState

    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not lr > 0:
        raise ValueError(f"lr must be positive, got {lr}")
    if precision not in ("no", "bf16", "fp16"):
        raise ValueError(f"precision must be 'no', 'bf16' or 'fp16', got {precision!r}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive or None, got {clip}")
    if warmup is not None and warmup < 0:
        raise ValueError(f"warmup must be at least 0 steps, got {warmup}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
    if ema is not None and not 0 <= ema < 1:
        raise ValueError(f"ema must be in [0, 1), got {ema}")
    steps = allowed(steps, stretch)
    warmup = max(1, steps // 10) if warmup is None else warmup
    device = next(model.parameters()).device
    processes = PartialState(cpu=device.type == "cpu")
    ranks, rank, main = processes.num_processes, processes.process_index, processes.is_main_process
    generators = tuple(generators)

    optim = _optimizer(model, optimizer, lr, weight_decay)
    half = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema is not None else None
    losses = torch.full((steps,), math.nan, device=device)
    _synchronise(model, ranks)
    if ranks > 1:
        parallel.synchronise_norms(model)
        _draw_apart(generators, rank)

    run = dict(
        version=2,
        steps=steps,
        lr=lr,
        final_lr=final_lr,
        warmup=warmup,
        weight_decay=weight_decay,
        precision=precision,
        ema=ema,
        clip=clip,
        optimizer=optimizer if isinstance(optimizer, str) else "own",
    )
    file = Path(checkpoint) if checkpoint else None
    first = 0
    if file and file.exists():
        first = _resume(file, run, model, optim, scaler, average, generators, losses, ranks, rank)

    def save(done: int) -> None:
        draws = _everyones(_draws(generators, device), ranks)
        if main:
            state = dict(
                run=run,
                step=done,
                model=model.state_dict(),
                optim=optim.state_dict() if done < steps else None,  # nothing goes on from the last step
                losses=losses,
                scaler=scaler.state_dict(),
                ema=average.state_dict() if average else None,
                draws=draws,
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            write_aside(file, partial(torch.save, state))

    if compile:
        step = torch.compile(step)
    bar = _bar(progress, main, first, steps, label)
    look_every = 1 if device.type == "cpu" else 50
    model.train()
    started = saved = time.perf_counter()
    for i in range(first, steps):
        rate = schedule(i, steps, lr, warmup, final_lr)
        for group in optim.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        batch = batches(i)
        if ranks > 1 and len(batch) % ranks:
            raise ValueError(f"batches must give a multiple of the {ranks} processes' number of rows, got {len(batch)}")
        batch = batch.chunk(ranks)[rank] if ranks > 1 else batch
        optim.zero_grad(set_to_none=True)
        with parallel.sharing(), torch.autocast(device.type, dtype=half, enabled=half is not None):
            loss = step(batch)["loss"]
        scaler.scale(loss).backward()
        losses[i] = _average(model, loss.detach(), ranks)
        if clip is not None:
            scaler.unscale_(optim)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optim)
        scaler.update()
        if average is not None:
            average.update_parameters(model)
        if (i + 1) % look_every == 0 or i + 1 == steps:  # the one place that waits for the device
            _check(
                losses, max(first, i + 1 - look_every), i + 1, steps, lambda s: schedule(s, steps, lr, warmup, final_lr)
            )
            bar.update(min(look_every, i + 1 - bar.n))
            bar.set_postfix(loss=f"{float(losses[i]):.3f}", refresh=False)
            if file and _first_says(time.perf_counter() - saved > checkpoint_seconds, device, ranks):
                save(i + 1)
                saved = time.perf_counter()
    seconds = time.perf_counter() - started
    bar.close()
    _synchronise(model, ranks)
    if file and first < steps:
        save(steps)
    if ranks > 1:
        _set_draws(_everyones(_draws(generators, device), ranks)[0], generators, device)
    model.eval()
    return History(losses.cpu(), seconds, steps, first, average.module.eval() if average else None)


def allowed(steps: int, stretch: bool = True) -> int:
    """So many steps of a training: four times as many at long scale, fewer in a dry run; see ``labcode.run``."""
    steps *= int(os.environ.get("LABCODE_STRETCH", 1)) if stretch else 1
    return min(steps, int(os.environ.get("LABCODE_MAX_STEPS", steps)))


def _optimizer(model: nn.Module, kind, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Weight decay on matrices and filters only. A module's ``lr_scale`` attribute scales its learning rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    scale_of = {}
    for module in model.modules():
        for parameter in module.parameters():
            scale_of[parameter] = getattr(module, "lr_scale", scale_of.get(parameter, 1.0))
    for parameter, scale in scale_of.items():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    listed = [dict(params=p, weight_decay=decay, lr_scale=scale, lr=lr) for (scale, decay), p in groups.items()]
    if not listed:
        raise ValueError("model has no parameter that requires a gradient")
    if kind == "adamw":
        return torch.optim.AdamW(listed, betas=(0.9, 0.95), fused=True)
    if kind == "sgd":
        return torch.optim.SGD(listed, momentum=0.9)
    if callable(kind):
        return kind(listed)
    raise ValueError(f"optimizer must be 'adamw', 'sgd' or a function, got {kind!r}")


def _resume(file, run, model, optim, scaler, average, generators, losses, ranks, rank) -> int:
    try:
        state = torch.load(file, map_location=losses.device, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint {file} cannot be read ({error}): delete it to start from the beginning"
        ) from error
    if different := sorted(k for k in run if state["run"].get(k) != run[k]):
        told = ", ".join(f"{k} {state['run'].get(k)} there, {run[k]} here" for k in different)
        raise ValueError(f"checkpoint {file} is of another run: {told}; delete it or name another file")
    model.load_state_dict(state["model"])
    if state["step"] < run["steps"]:
        optim.load_state_dict(state["optim"])
    scaler.load_state_dict(state["scaler"])
    if average:
        average.load_state_dict(state["ema"])
    losses.copy_(state["losses"])
    draws = state["draws"]
    if len(draws) != ranks:
        warnings.warn(f"{file} is of {len(draws)} processes, this is {ranks}: random numbers differ", stacklevel=3)
    _set_draws(draws[rank if len(draws) == ranks else 0], generators, losses.device)
    if len(draws) != ranks:
        _draw_apart(generators, rank, state["step"])
    return state["step"]


def _draws(generators, device) -> dict:
    """Where this process's random numbers stand."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return dict(rng=torch.get_rng_state(), cuda=cuda, generators=[g.get_state() for g in generators])


def _set_draws(draws: dict, generators, device) -> None:
    torch.set_rng_state(draws["rng"].cpu())
    if draws["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(draws["cuda"].cpu(), device)
    for generator, saved in zip(generators, draws["generators"], strict=True):
        generator.set_state(saved.cpu())


def _draw_apart(generators, rank: int, step: int = 0) -> None:
    """Random numbers of its own for every process but the first, which goes on with the run's."""
    if rank:
        torch.manual_seed(mixed_seed(torch.initial_seed(), rank, step))
        for generator in generators:
            generator.manual_seed(mixed_seed(generator.initial_seed(), rank, step))


def _everyones(mine: dict, ranks: int) -> list[dict]:
    found = [mine] * ranks
    if ranks > 1:
        torch.distributed.all_gather_object(found, mine)
    return found


def _first_says(mine: bool, device, ranks: int) -> bool:
    """The first process's word, so that all write a checkpoint at the same step."""
    if ranks == 1:
        return mine
    word = torch.tensor(float(mine), device=device)
    torch.distributed.broadcast(word, src=0)
    return bool(word)


def _synchronise(model: nn.Module, ranks: int) -> None:
    """Every process takes the first one's parameters and buffers."""
    if ranks > 1:
        for tensor in [*model.parameters(), *model.buffers()]:
            torch.distributed.broadcast(tensor.data, src=0)


def _average(model: nn.Module, loss: Tensor, ranks: int) -> Tensor:
    """The mean loss of the processes; gradients become their means. One all-reduce, flattened."""
    if ranks == 1:
        return loss
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([loss.view(1), *(g.flatten() for g in gradients)])
    torch.distributed.all_reduce(flat)
    mean, *parts = (flat / ranks).split([1, *(g.numel() for g in gradients)])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return mean[0]


def _check(losses: Tensor, start: int, end: int, steps: int, rate: Callable[[int], float]) -> None:
    bad = (~torch.isfinite(losses[start:end])).nonzero()
    if len(bad):
        at = start + int(bad[0])
        raise FloatingPointError(
            f"the loss is {float(losses[at])} at step {at} of {steps}, learning rate {rate(at):.3g}: "
            "lower lr, lengthen warmup or clip the gradient"
            + ("; at the first step, look at the range of the images" if at == 0 else "")
        )


def _bar(wanted: bool | None, main: bool, first: int, steps: int, label: str):
    from tqdm import tqdm  # not tqdm.auto: it warns where ipywidgets is missing, and pages need no widgets

    if wanted is None:
        quiet = os.environ.get("CI") or os.environ.get("LABCODE_PROGRESS") == "0"
        wanted = not quiet and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    return tqdm(
        total=steps, initial=first, desc=label, unit="step", disable=not (wanted and main), delay=2, leave=False
    )
