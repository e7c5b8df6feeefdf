"""What the pages tell a programmer to type runs, word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
PYTHON = re.compile(r"```python\n(.*?)```", re.S)


@pytest.mark.parametrize("page", ["book/reuse.md", "README.md"])
def test_the_code_on_the_page_runs(page, tmp_path):
    digits = load_digits()
    for i in range(60):
        folder = tmp_path / "photos" / str(digits.target[i])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(folder / f"{i}.png")
    code = "\n".join(PYTHON.findall((ROOT / page).read_text(encoding="utf-8")))
    assert code, "the page has no code"
    short = {"LABCODE_MAX_STEPS": "2", "LABCODE_PROGRESS": "0", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, cwd=tmp_path, env=os.environ | short, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_commands_options_exist():
    page = (ROOT / "book" / "reuse.md").read_text(encoding="utf-8")
    page = re.sub(r"torchrun .*? -m", "python -m", page)  # which has options of its own
    line = [sys.executable, "-m", "labcode.pretrain", "--help"]
    told = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"--[a-z-]+", page))
    assert len(options) > 3 and all(option in told for option in options - {"--help"})
