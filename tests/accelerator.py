"""A second device that needs no GPU, to find what would go wrong on one.

    with accelerator() as waits:
        x = torch.randn(4, 3, device="gpu")     # lives on gpu:0, its values lie in ordinary memory
        x + torch.ones(3)                       # RuntimeError, as on CUDA: two devices
        float(x.sum())                          # counted in ``waits``: the host waits for the device

    python tests/accelerator.py self_supervision/redundancy [barlow-twins]   a chapter's full-scale cells on it, three
                                                                             small steps a training, narrow nets

It refuses what CUDA refuses (tensors of two devices in one operation, ``numpy()``, a CPU generator for a tensor on the
device) and notes where the host has to wait: values that are read, copies between the two, sizes that depend on values,
as far as ``READING`` lists them. It knows nothing of streams, graphs, precision or speed.
"""

import collections
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cpu")  # until the first ``accelerator()``
aten = torch.ops.aten
CROSSING = {aten.copy_.default, aten._to_copy.default}
READING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.unique_consecutive.default, aten.unique_dim.default, aten.bincount.default,
    aten.repeat_interleave.Tensor, aten.linalg_inv_ex.default, aten._linalg_eigh.default, aten._linalg_svd.default,
    aten.linalg_lstsq.default, aten._linalg_check_errors.default, aten.multinomial.default,
}  # fmt: skip
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
RealGenerator = torch.Generator


class OnDevice(Tensor):
    """A tensor on the device, around one that holds its values."""

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnDevice":
        made = Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            layout=values.layout, device=DEVICE,
        )  # fmt: skip
        made.values_ = values
        return made

    def __init__(self, values: Tensor):
        pass

    def __repr__(self) -> str:
        return f"{self.values_!r} on {self.device}"

    def __deepcopy__(self, memo: dict) -> Tensor:
        memo[id(self)] = copied = self.detach().clone().requires_grad_(self.requires_grad)
        return copied

    def numpy(self, **_) -> None:
        raise TypeError("can't convert gpu:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_, **__) -> None:
        self.numpy()

    def tolist(self) -> list:
        _wait("tolist")
        return self.values_.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        return _call(function, arguments, keywords or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class Generator(RealGenerator):
    """Draws like a CPU generator, and says where it is."""

    def __new__(cls, device="cpu"):
        made = RealGenerator.__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    device = property(lambda self: DEVICE if self.place.type == "gpu" else self.place)


WAITS: list[collections.Counter] = []  # of the ``accelerator()`` that is open


def _wait(what) -> None:
    frames = [f for f in traceback.extract_stack() if re.search(r"\b(labcode|notebooks)\b.\w+", f.filename)]
    place = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in frames[:-4:-1])
    stepping = any(f.name == "fit" and re.search(r"= step\(|scaler|average\.update", f.line or "") for f in frames)
    for counter in WAITS:
        counter["in a step: " * stepping + f"{what} {place}"] += 1


def _there(device) -> bool:
    return device is not None and torch.device(device).type == "gpu"


def _call(function, arguments, keywords):
    leaves = tree_leaves((arguments, keywords))
    tensors = [t for t in leaves if isinstance(t, Tensor)]
    held = [isinstance(t, OnDevice) for t in tensors]
    target = keywords.get("device")
    inside = _there(target) if target is not None else any(held)
    if function is aten.copy_.default:
        inside = held[0]
    if any(held) and function not in CROSSING:
        strange = [t for t, on in zip(tensors, held, strict=True) if not on and t.ndim]
        if function in INDEXING and held[0]:  # a tensor on the device may be indexed from the host: a copy, so a wait
            for _ in strange:
                _wait("index from the host")
        elif strange:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, gpu:0 and cpu: "
                f"{function} of {[(tuple(t.shape), str(t.device)) for t in tensors]}"
            )
    boolean = function in INDEXING and any(t is not None and t.dtype == torch.bool for t in arguments[1])
    if any(held) and (function in READING or boolean):
        _wait(function)
    if function in CROSSING and held[-1] != inside and not keywords.get("non_blocking"):
        _wait(function)
    plain = keywords | ({"device": torch.device("cpu")} if target is not None else {})
    values = lambda t: t.values_ if isinstance(t, OnDevice) else t  # noqa: E731
    out = function(*tree_map(values, arguments), **tree_map(values, plain))
    if not inside:
        return out
    out = tree_map(lambda t: OnDevice(t) if isinstance(t, Tensor) else t, out)
    return return_and_correct_aliasing(function, arguments, keywords, out)


class _Dispatch(TorchDispatchMode):
    """Also what takes no tensor, such as ``torch.zeros(3, device="gpu")``."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        on = any(isinstance(t, OnDevice) for t in tree_leaves((arguments, keywords)))
        call = _call if on or _there(keywords.get("device")) else lambda f, a, k: f(*a, **k)
        return call(function, arguments, keywords)


class _Functions(TorchFunctionMode):
    """``torch.tensor`` of numbers on the device is made on the host and copied, which CUDA waits for; and a generator
    must be where the result will be.
    """

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = dict(keywords or {})
        generator = keywords.get("generator")
        if generator is not None:
            like = arguments[0] if arguments and isinstance(arguments[0], Tensor) else keywords.get("device", "cpu")
            wanted, found = (like if isinstance(like, Tensor) else torch.ones(0, device=like)).device, generator.device
            if wanted.type != found.type:
                raise RuntimeError(f"Expected a '{wanted.type}' device type for generator but found '{found.type}'")
        if function in (torch.tensor, torch.as_tensor) and _there(keywords.get("device")):
            place = keywords.pop("device")
            return function(*arguments, **keywords).to(place)
        if function is Tensor.new_tensor and isinstance(arguments[0], OnDevice):
            like, *given = arguments
            return torch.tensor(*given, **{"dtype": like.dtype} | keywords).to(like.device)
        return function(*arguments, **keywords)


class _Backend(backend_registration._DummyBackendModule):
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])
    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())


def _gru(*arguments):
    """PyTorch has a kernel of its own for recurrent cells on a GPU; here the host does it."""
    here = tree_map(lambda t: t.cpu() if isinstance(t, Tensor) else t, arguments)
    return tree_map(lambda t: t.to(DEVICE), torch._C._VariableFunctions.gru(*here))


def register() -> None:
    """Make "gpu" known, once a process, and before its first backward pass: autograd counts the devices there."""
    global DEVICE
    if DEVICE.type == "cpu":
        backend_registration._setup_privateuseone_for_python_backend("gpu", backend_module=_Backend())
        DEVICE = torch.device("gpu", 0)


@contextlib.contextmanager
def accelerator() -> Iterator[collections.Counter]:
    """While it is open, "gpu" is a device. Gives what waits for it: {operation and where it was asked for: times}."""
    register()
    WAITS.append(collections.Counter())
    try:
        with mock.patch.object(torch, "Generator", Generator), mock.patch.object(torch._VF, "gru", _gru), _Dispatch(), \
                _Functions():  # fmt: skip
            yield WAITS[-1]
    finally:
        WAITS.pop()


def runs_on_it():
    """A patch that puts every run of a chapter on the device."""
    from labcode.course.run import Run

    made = Run.__init__

    def init(self, *arguments, **keywords):
        made(self, *arguments, **keywords)
        self.device = DEVICE

    return mock.patch.object(Run, "__init__", init)


def main(chapter: str, paper: str | None = None) -> int:
    """The chapter's full-scale cells on the device, and what waited for it, to look at."""
    os.environ.update(LABCODE_PROGRESS="0", LABCODE_SEEDS="1", MPLBACKEND="agg")
    import dataclasses

    from labcode.course import command, stage
    from labcode.nets import conv
    from labcode.self_supervision import pretext

    def narrow(made):
        init = made.__init__
        return mock.patch.object(made, "__init__", lambda self, *_, **given: init(self, **given | {"width": 8}))

    train = stage.Stage.pretrain

    def short(self, *given, batch_size=None, **options):
        return train(self, *given, batch_size=min(batch_size or 32, 32), **options)

    small = dataclasses.replace(stage.FULL, batch_size=32)
    with accelerator() as waits, runs_on_it(), narrow(conv.ResNet18), narrow(pretext.StagedResNet), \
            mock.patch.object(stage, "FULL", small), mock.patch.object(stage.Stage, "pretrain", short):  # fmt: skip
        status = command.main([chapter, "--dry", "3", "--scale", "full", *(["--paper", paper] if paper else [])])
    for what, times in waits.most_common():
        print(f"{times:6} {what}")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
