"""Every public loss, found by its decorator: bad input gives a finite result or a ValueError that names the argument.

The shapes come from the annotations, so a new loss is tested as soon as it exists.
"""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
from accelerator import accelerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import labcode

SIZES = {"n": 6, "d": 5, "k": 4, "m": 7, "c": 3, "b": 6, "two_n": 12}
SCALARS = {"tau_plus": 0.1, "background": 4}  # where the default does not fit these sizes
FOLDER = Path(labcode.__file__).parent


def losses():
    found = {}
    for file in sorted(FOLDER.glob("*/**/*.py")):
        where = file.relative_to(FOLDER).with_suffix("").parts
        if file.stem != "__init__" and where[0] not in ("course", "data", "evaluate"):
            module = importlib.import_module(".".join(("labcode", *where)))
            for name, value in vars(module).items():
                if getattr(value, "is_loss", False) and not name.startswith("_"):
                    found[f"{value.__module__.removeprefix('labcode.')}.{value.__name__}"] = value
    return found


LOSSES = losses()


def tensor(annotation, generator):
    """A tensor of the annotated dtype and shape, the sizes of equal names equal; None for an optional one."""
    text = str(annotation)
    match = re.search(r"(Float|Int|Bool|Shaped)\[\w*\.?Tensor,\s*'([^']*)'\]", text)
    if not match:
        return None
    shape = []
    for name in match.group(2).split():
        name = name.lstrip("*#").split("=")[-1]
        shape.append(eval(name, {}, dict(SIZES)) if re.search(r"\W|^\d", name) else SIZES.get(name, 6))
    if match.group(1) == "Int":
        return torch.randint(0, 2, shape, generator=generator)
    if match.group(1) == "Bool":
        return torch.rand(shape, generator=generator) > 0.5
    return torch.randn(shape, generator=generator)


def arguments(loss, seed=0):
    generator, values = torch.Generator().manual_seed(seed), {}
    for name, parameter in inspect.signature(inspect.unwrap(loss)).parameters.items():
        value = tensor(parameter.annotation, generator)
        if value is not None and (parameter.default is inspect.Parameter.empty):
            values[name] = value
        elif name in SCALARS or parameter.default is inspect.Parameter.empty:
            values[name] = SCALARS.get(name, 1.0)
    return values


BREAK = {
    "empty": lambda t: t[:0],
    "one row": lambda t: t[:1],
    "odd rows": lambda t: t[:-1],
    "no columns": lambda t: t[..., :0],
    "flat": lambda t: t.flatten(),
    "three axes": lambda t: t[None],
    "integers": lambda t: t.to(torch.int64),
    "complex": lambda t: t.to(torch.complex64),
    "bfloat16": lambda t: t.bfloat16(),
    "half": lambda t: t.half(),
    "NaN": lambda t: t.index_fill(0, torch.tensor([0]), float("nan")),
    "infinite": lambda t: t.index_fill(0, torch.tensor([0]), float("inf")),
    "constant": lambda t: torch.ones_like(t),
    "zeros": torch.zeros_like,
    "large": lambda t: 30 * t,
    "small": lambda t: 1e-6 * t,
    "another device": lambda t: t.to("meta"),
    "a list": lambda t: t.tolist(),
}


def flat(result):
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    return [t for part in result for t in flat(part)] if isinstance(result, (tuple, list)) else []


# a singular value decomposition goes on until it has converged, and the host looks whether it has
LOOKING = {"self_supervision.redundancy.ssl_ey.whitened_correlation": "_linalg_svd|_linalg_check_errors"}


def test_losses_are_found():
    assert "self_supervision.contrastive.simclr.nt_xent" in LOSSES and len(LOSSES) >= 10


@pytest.mark.parametrize("name", LOSSES)
def test_good_input_gives_a_finite_scalar(name):
    assert all(torch.isfinite(t).all() for t in flat(LOSSES[name](**arguments(LOSSES[name]))))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_on_the_device_is_that_of_the_host_and_waits_for_nothing(name):
    given = arguments(LOSSES[name])
    wanted = flat(LOSSES[name](**given))
    with accelerator() as waits:
        moved = {k: v.to("gpu") if isinstance(v, Tensor) else v for k, v in given.items()}
        for value in moved.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                value.requires_grad_()
        waits.clear()
        found = flat(LOSSES[name](**moved))
        trained = [f for f in found if f.requires_grad]
        if trained:
            sum(f.sum() for f in trained).backward()
        waits = [w for w in waits if not re.search(LOOKING.get(name, "$^"), w)]
        assert not waits, waits
        assert all(f.device.type == "gpu" for f in found)
        for here, on in zip(wanted, found, strict=True):
            torch.testing.assert_close(on.detach().cpu(), here, rtol=1e-4, atol=1e-5)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", LOSSES)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_bad_input_is_named_or_survived(name, data):
    loss = LOSSES[name]
    given = arguments(loss, seed=data.draw(st.integers(0, 3)))
    floats = [k for k, v in given.items() if isinstance(v, Tensor) and v.is_floating_point() and v.ndim]
    which = data.draw(st.lists(st.sampled_from(floats), min_size=1, unique=True))
    how = data.draw(st.sampled_from(sorted(BREAK)))
    for argument in which:
        given[argument] = BREAK[how](given[argument])
    try:
        result = loss(**given)
    except ValueError as error:
        named = [k for k in inspect.signature(inspect.unwrap(loss)).parameters if re.search(rf"\b{k}\b", str(error))]
        assert named, f"{name} with {how} {which}: {error!s} names no argument"
    else:
        for value in flat(result):
            assert value.device.type == "meta" or torch.isfinite(value).all(), f"{name} with {how} {which}: {value}"


@pytest.mark.bad_input
@pytest.mark.parametrize("name", [n for n, f in LOSSES.items() if "tau" in inspect.signature(f).parameters])
@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(name, tau):
    with pytest.raises(ValueError, match="tau"):
        LOSSES[name](**(arguments(LOSSES[name]) | {"tau": tau}))


INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_and_places_may_be_integers_of_any_width(name):
    given = arguments(LOSSES[name])
    wanted = flat(LOSSES[name](**given))
    for argument, value in given.items():
        if isinstance(value, Tensor) and value.dtype == torch.int64:
            for dtype in INTEGERS:
                for a, b in zip(wanted, flat(LOSSES[name](**given | {argument: value.to(dtype)})), strict=True):
                    assert torch.equal(a, b), f"{name} with {argument} in {dtype}"


@pytest.mark.bad_input
@pytest.mark.parametrize("name", [n for n, f in LOSSES.items() if "tau" in inspect.signature(f).parameters])
def test_a_temperature_that_is_learnt_has_its_gradient(name):
    given = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
             for k, v in arguments(LOSSES[name]).items()}  # fmt: skip

    def total(tau):
        return sum(t.sum() for t in flat(LOSSES[name](**given | {"tau": tau})) if t.is_floating_point())

    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    if total(tau).requires_grad:
        total(tau).backward()
        assert float(tau.grad) == pytest.approx(float(total(0.5 + 1e-5) - total(0.5 - 1e-5)) / 2e-5, rel=1e-5, abs=1e-7)
