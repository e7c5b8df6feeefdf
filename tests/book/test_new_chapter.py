"""`make chapter` writes a skeleton that lint, the cards and the twin's reader accept, and overwrites nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from labcode.course import cards, twin

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book"))
import new_chapter  # noqa: E402


@pytest.fixture
def course(tmp_path, monkeypatch):
    """The plan and one chapter's twin, in an empty folder."""
    twin = "notebooks/self_supervision/redundancy.py"
    for place in ("book/plan.yml", "book/plan_papers.yml", "pyproject.toml", twin):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place, tmp_path / place)
    monkeypatch.setattr(new_chapter, "ROOT", tmp_path)
    monkeypatch.setattr(cards, "PACKAGE", tmp_path / "labcode")
    return tmp_path


@pytest.mark.parametrize("name", ["clustering/deep_clustering", "decisions/combinatorial"])
def test_a_skeleton_is_accepted_by_lint_cards_and_twin(course, name, capsys):
    assert new_chapter.main([name]) == 0
    text, setup = (course / "notebooks" / f"{name}.py").read_text(), new_chapter.setup_cell()
    shutil.rmtree(course / "notebooks" / "self_supervision")
    lint = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=course, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout
    keys = [p["key"] for p in yaml.safe_load((ROOT / "book" / "plan_papers.yml").read_text())[name]]
    assert cards.keys(name) == keys
    assert list(dict.fromkeys(key for key, *_ in twin.sections(text) if key)) == keys
    assert setup in text and "REPOSITORY" in setup
    assert (course / "tests" / name / "broken.yml").exists()


@pytest.mark.parametrize("there", ["labcode/clustering/subspaces", "notebooks/clustering/subspaces.py"])
def test_what_stands_is_not_touched(course, there, capsys):
    (course / there).parent.mkdir(parents=True, exist_ok=True)
    (course / there).touch() if there.endswith(".py") else (course / there).mkdir()
    before = sorted(course.rglob("*"))
    assert new_chapter.main(["clustering/subspaces"]) == 2 and there in capsys.readouterr().err
    assert sorted(course.rglob("*")) == before


def test_an_unknown_name_is_refused_with_those_that_are_close(course, capsys):
    assert new_chapter.main(["clustering/deep"]) == 2 and "clustering/deep_clustering" in capsys.readouterr().err
    assert new_chapter.main([]) == 2


def test_the_plan_knows_every_paper_once_and_written_cards_agree_with_it():
    plan = yaml.safe_load((ROOT / "book" / "plan.yml").read_text())
    papers = yaml.safe_load((ROOT / "book" / "plan_papers.yml").read_text())
    counted = {f"{part['slug']}/{c['slug']}": c["papers"] for part in plan["parts"] for c in part["chapters"]}
    assert {name: len(listed) for name, listed in papers.items()} == counted and sum(counted.values()) == 536
    keys = [p["key"] for listed in papers.values() for p in listed]
    assert len(set(keys)) == len(keys)
    titles = {p["key"]: p["title"] for listed in papers.values() for p in listed}
    for card in cards.papers():
        assert card.title == titles[card.key] and card.key in [p["key"] for p in papers[f"{card.part}/{card.chapter}"]]
