"""The table at full size, on a made-up benchmark: every method runs on another device without making the host wait."""

import json
from pathlib import Path
from types import SimpleNamespace

import accelerator
import pytest
import torch
import yaml

from labcode import data, nets
from labcode.course import leaderboard, queue, stage
from labcode.course.run import start

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A course in an empty folder whose CIFAR-10 is 256 random images, and whose ResNet-18 is the small network."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_toc.yml").write_text("")
    monkeypatch.chdir(tmp_path)
    for name, value in (("SCALE", "full"), ("MAX_STEPS", "")):  # `main` writes both: they are put back at the end
        monkeypatch.setenv(f"LABCODE_{name}", value)
    monkeypatch.delenv("LABCODE_MAX_STEPS")
    monkeypatch.setattr(stage.nets, "ResNet18", nets.SmallNet)
    monkeypatch.setattr(stage, "FULL", stage.Budget(3, 64, 0.06, "sgd", 5e-4))
    monkeypatch.setattr(leaderboard, "EPOCHS", 1)
    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (256, 3, 8, 8), dtype=torch.uint8, generator=g)

    def benchmark(name, device):
        y = (torch.arange(256) % 10).to(device)
        images = x.to(device)
        return SimpleNamespace(train_images=images, train_labels=y, test_images=images, test_labels=y, source="made up")

    monkeypatch.setattr(data, "benchmark", benchmark)
    return tmp_path


def test_its_page_lists_the_same_methods():
    listed = yaml.safe_load((ROOT / "book" / "leaderboard.yml").read_text())
    assert [row["method"] for row in listed] == list(leaderboard.entries()) and len(listed) == 12
    keys = {card["key"] for f in ROOT.glob("labcode/*/*/papers.yml") for card in yaml.safe_load(f.read_text())}
    assert all(row.get("paper", next(iter(keys))) in keys for row in listed)
    figures = [f for row in listed for f in row.get("published", ())]
    assert all(f["source"] and 0.5 < f.get("knn", f.get("probe")) < 1 for f in figures)


@pytest.mark.parametrize("name", [n for n, e in leaderboard.entries().items() if e.make] + ["supervised"])
def test_a_method_trains_on_another_device_and_no_step_waits(made, monkeypatch, name):
    monkeypatch.setenv("LABCODE_MAX_STEPS", "3")
    with accelerator.accelerator() as waits, accelerator.runs_on_it():
        found = leaderboard.measure(name, 0, stage.Stage(start("leaderboard/cifar10")))
        assert not [w for w in waits if "in a step" in w]
    assert 0 <= found["knn"] <= 1 and 0 <= found["probe"] <= 1 and found["epochs"] == 1


def test_rows_are_written_one_by_one_and_what_is_there_is_not_run_again(made, monkeypatch, capsys):
    names = {name: leaderboard.entries()[name] for name in ("untrained", "simclr")}
    monkeypatch.setattr(leaderboard, "entries", lambda: names)
    monkeypatch.setattr(leaderboard, "SEEDS", 2)
    assert leaderboard.main(["--dry", "2"]) == 0 and not leaderboard.file().exists()
    monkeypatch.delenv("LABCODE_MAX_STEPS")
    assert leaderboard.main(["--method", "simclr", "--seed", "1"]) == 0
    assert leaderboard.missing() == [("untrained", 0), ("simclr", 0), ("untrained", 1)]
    assert [w.paper for w in queue.rows()] == ["untrained 0", "simclr 0", "untrained 1"]
    assert queue.rows()[0].command[-4:] == ["--method", "untrained", "--seed", "0"]
    before = leaderboard.read()[0]
    assert leaderboard.main([]) == 0 and leaderboard.missing() == []
    rows = json.loads((made / "book" / "results" / "leaderboard.json").read_text())
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("untrained", 0), ("untrained", 1), ("simclr", 0), ("simclr", 1)]  # fmt: skip
    assert not list((made / ".checkpoints").rglob("*.pt"))  # a row that stands needs no checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(leaderboard, "code", lambda: "other code")
        assert {w.why for w in queue.rows()} == {"older than its code"} and len(leaderboard.missing()) == 4
    trained = []
    monkeypatch.setattr(leaderboard, "measure", lambda name, seed, _: trained.append((name, seed)) or before)
    assert leaderboard.main(["--method", "simclr"]) == 0 and trained == []
    assert leaderboard.main(["--method", "simclr", "--again"]) == 0 and trained == [("simclr", 0), ("simclr", 1)]
    assert before in rows and all(row[k] for row in rows for k in ("device", "date", "commit", "data", "versions"))
    for wrong in (["--dry", "0"], ["--seed", "2"], ["--seed", "-1"]):
        with pytest.raises(SystemExit):
            leaderboard.main(wrong)
    monkeypatch.setenv("LABCODE_TUNE", "1")
    assert leaderboard.main(["--method", "untrained", "--seed", "0"]) == 0 and leaderboard.read() == rows
    monkeypatch.delenv("LABCODE_TUNE")
    assert leaderboard.main([]) == 0 and "nothing is missing" in capsys.readouterr().out
    assert not list(made.rglob("*.tmp"))


def test_without_its_data_it_says_so_in_a_line(made, monkeypatch, capsys):
    def missing(*_, **__):
        raise data.DataError("cifar10 is not here, and the download failed")

    monkeypatch.setattr(data, "benchmark", missing)
    with pytest.raises(SystemExit) as stopped:
        leaderboard.main(["--method", "simclr"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said == "python -m labcode.leaderboard: cifar10 is not here, and the download failed\n"
