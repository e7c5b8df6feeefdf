"""Shapes and types are checked in tests only: every annotated function of labcode runs under jaxtyping here."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["LABCODE_PROGRESS"] = "0"
for _name in ("LABCODE_SCALE", "LABCODE_SEEDS", "LABCODE_WRITE", "LABCODE_MAX_STEPS", "LABCODE_PAPER", "LABCODE_TUNE"):
    os.environ.pop(_name, None)

import jaxtyping  # noqa: E402
import pytest  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
# What computes on tensors; the ledger, the cards and the command line check their own arguments.
CHECKED = [
    f"labcode.{name}"
    for name in ("augment", "evaluate", "nets", "loss", "foundations", "self_supervision", "imperfect_labels")
]
jaxtyping.install_import_hook(CHECKED, "checker.check")

import accelerator  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
accelerator.register()


@pytest.fixture(autouse=True)
def _seeded():
    """Networks that a test makes without a seed are the same whatever ran before it, alone or on another worker."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _types(request):
    """Tests marked ``bad_input`` see what a user sees: the function's own error, not the type checker's."""
    off = request.node.get_closest_marker("bad_input") is not None
    jaxtyping.config.update("jaxtyping_disable", off)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
