"""A run: its settings, what it refuses, what close() finds, and running one paper of a twin."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from labcode.course import cards, command, provenance, queue
from labcode.course import run as running
from labcode.course.twin import script

TWIN = """# %% [markdown]
# # Title

# %%
import labcode as lab
run = lab.start("p/c")
run.data = "toy"

# %% [markdown]
# (a)=
# ## A

# %%
run.claim("a", "a wins", ours=[0.9 - 0.1 * s for s in run.seeds], baseline=[0.1 for s in run.seeds], margin=0.2)

# %% [markdown]
# (b)=
# ## B

# %%
run.exact("b", "b holds", 1e-9, at_most=1e-6)

# %% [markdown]
# ## Exercises

# %%
run.close()
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course with one chapter of two papers, in an empty folder."""
    (tmp_path / "notebooks" / "p").mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text("")
    (tmp_path / "notebooks" / "p" / "c.py").write_text(TWIN)
    package = tmp_path / "package"
    (package / "p" / "c").mkdir(parents=True)
    blank = dict(kind="method", idea="i", reported="r", differs="d", code=["f"])
    listed = [dict(key=key, title=key.upper(), **blank) for key in "ab"]
    (package / "p" / "c" / "papers.yml").write_text(yaml.safe_dump(listed))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cards, "PACKAGE", package)
    for name in ("SEEDS", "SCALE", "WRITE", "PAPER", "MAX_STEPS", "TUNE"):
        monkeypatch.setenv(f"LABCODE_{name}", "")
        monkeypatch.delenv(f"LABCODE_{name}")
    return tmp_path


def written(course, scale="quick"):
    return json.loads((course / "book" / "results" / scale / "p" / "c.json").read_text())


def test_a_chapter_is_written_then_reproduced_by_one_seed(course, monkeypatch, capsys):
    monkeypatch.setenv("LABCODE_SEEDS", "3")
    monkeypatch.setenv("LABCODE_WRITE", "1")
    command.execute("p/c")
    assert [c["paper"] for c in written(course)["claims"]] == ["a", "b"]
    assert written(course)["seeds"] == [0, 1, 2]
    monkeypatch.setenv("LABCODE_SEEDS", "1")
    monkeypatch.setenv("LABCODE_WRITE", "0")
    command.execute("p/c")
    assert "all 2 committed records reproduced" in capsys.readouterr().out


def _run(**values):
    run = running.start("p/c")
    run.data = "toy"
    run.claim("a", "a wins", **(dict(ours=[0.9], baseline=[0.1], margin=0.2) | values))
    run.exact("b", "b holds", 1e-9, at_most=1e-6)
    return run


@pytest.fixture
def committed(course, monkeypatch):
    monkeypatch.setenv("LABCODE_WRITE", "1")
    _run().close()
    monkeypatch.setenv("LABCODE_WRITE", "0")
    return course


def test_close_names_a_value_that_rotted(committed):
    with pytest.raises(AssertionError, match="ours is 0.8 for seed 0, committed 0.9"):
        _run(ours=[0.8]).close()


def test_close_names_a_flipped_verdict(committed):
    with pytest.raises(AssertionError, match="turned from supported to smaller"):
        _run(ours=[0.15]).close()


def test_close_names_a_claim_that_vanished_and_a_paper_without_one(committed):
    run = running.start("p/c")
    run.data = "toy"
    run.claim("a", "a wins", ours=[0.9], baseline=[0.1], margin=0.2)
    with pytest.raises(AssertionError, match="“b holds” was not measured(.|\n)*b: a paper with no claim"):
        run.close()


def test_a_broken_method_is_judged_by_its_own_numbers(committed):
    """A verdict is taken over from the committed seeds only when the value is reproduced."""
    assert _run().records[0].verdict == "supported"
    assert _run(ours=[0.2]).records[0].verdict == "smaller"


def test_what_a_claim_refuses(course):
    run = running.start("p/c")
    with pytest.raises(ValueError, match="needs data"):
        run.claim("a", "s", ours=[1], baseline=[0], margin=0.1)
    run.data = "toy"
    with pytest.raises(ValueError, match="ours must have one value per seed, 1, got 2"):
        run.claim("a", "s", ours=[1, 2], baseline=[0], margin=0.1)
    with pytest.raises(ValueError, match="baseline must be finite"):
        run.claim("a", "s", ours=[1], baseline=[float("nan")], margin=0.1)
    run.claim("a", "s", ours=[1], baseline=[0], margin=0.1)
    with pytest.raises(ValueError, match="already recorded"):
        run.claim("a", "s", ours=[1], baseline=[0], margin=0.1)


@pytest.mark.parametrize(("name", "value"), [("LABCODE_SCALE", "huge"), ("LABCODE_SEEDS", "0")])
def test_settings_out_of_range(course, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name):
        running.start("p/c")
    with pytest.raises(ValueError, match="part/chapter"):
        running.start("moco")


def test_one_paper_runs_alone_and_leaves_the_others(course, monkeypatch):
    monkeypatch.setenv("LABCODE_WRITE", "1")
    command.execute("p/c")
    before = written(course)["claims"]
    monkeypatch.setenv("LABCODE_PAPER", "")
    command.execute("p/c", "b")
    after = written(course)["claims"]
    assert [c["paper"] for c in after] == ["a", "b"] and after[0] == before[0]


def test_a_section_ends_at_the_next_heading():
    only_b = script(TWIN, "b")
    assert "b holds" in only_b and "a wins" not in only_b and "run.close()" in only_b and "lab.start" in only_b
    assert len(only_b.splitlines()) <= len(TWIN.splitlines()) + 1
    with pytest.raises(ValueError, match="no section for paper 'zzz'"):
        script(TWIN, "zzz")


def test_the_queue_lists_what_is_missing_or_stale(course, monkeypatch):
    assert [paper[:3] for paper in queue.queue()] == [("p/c", "a", "missing"), ("p/c", "b", "missing")]
    monkeypatch.setenv("LABCODE_SCALE", "full")
    monkeypatch.setenv("LABCODE_WRITE", "1")
    command.execute("p/c")
    assert queue.queue() == []
    twin = course / "notebooks" / "p" / "c.py"
    twin.write_text(twin.read_text().replace("0.9 - 0.1", "0.8 - 0.1"))
    assert queue.queue()[0][:3] == ("p/c", "a", "older than its code")


def test_results_of_more_seeds_are_not_replaced_unless_asked(course, monkeypatch, capsys):
    monkeypatch.setenv("LABCODE_WRITE", "")  # `main` sets these: they are put back at the end
    monkeypatch.setenv("LABCODE_SEEDS", "")

    def seeds(*options):
        monkeypatch.setenv("LABCODE_PAPER", "")
        assert command.main(["p/c", *options]) == 0
        found = written(course)
        return [len(c["seeds"]) for c in found["claims"]], len(found["seeds"])

    assert seeds("--seeds", "3") == ([3, 3], 3)
    assert seeds("--seeds", "1") == ([3, 3], 3)
    assert seeds("--seeds", "2", "--paper", "a") == ([3, 3], 3)
    assert "the results that stand have 3 seeds, this run 2. --seeds 3 replaces" in capsys.readouterr().out
    assert seeds("--seeds", "4", "--paper", "a", "--compare") == ([3, 3], 3)
    assert seeds("--seeds", "4", "--paper", "a") == ([4, 3], 3)
    assert seeds("--seeds", "2", "--paper", "a", "--write") == ([2, 3], 3)
    assert seeds("--seeds", "1", "--write") == ([1, 1], 1)


@pytest.mark.parametrize(
    "options, told",
    [
        (["p/c", "--paper", "nonsense"], "no section for paper 'nonsense'; the sections are a, b"),
        (["p/none"], "no chapter 'p/none'"),
        (["p/c", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["p/c", "--dry", "0"], "--dry must be at least 1, got 0"),
        (["p/c", "--dry", "-3"], "--dry must be at least 1, got -3"),
        (["p/c", "--write", "--compare"], "exclude each other"),
        (["p/c", "--full-queue", "--dry", "2"], "--full-queue goes with --budget only, got chapter, dry"),
        ([], "name a chapter"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_a_line(course, capsys, options, told):
    with pytest.raises(SystemExit) as stopped:
        command.main(options)
    assert stopped.value.code == 2 and told in capsys.readouterr().err and not (course / "book").exists()


def test_papers_of_one_chapter_can_be_measured_at_the_same_time(course, monkeypatch):
    """The second paper's run begins and ends while the first one's is under way."""
    monkeypatch.setenv("LABCODE_WRITE", "1")
    twin = course / "notebooks" / "p" / "c.py"
    monkeypatch.setattr(running, "meanwhile", lambda: command.execute("p/c", "b"), raising=False)
    between = "from labcode.course import run as r; r.meanwhile(); import os; os.environ['LABCODE_PAPER'] = 'a'; "
    twin.write_text(TWIN.replace('run.claim("a"', between + 'run.claim("a"'))
    command.execute("p/c", "a")
    assert [c["paper"] for c in written(course)["claims"]] == ["a", "b"]


def test_the_queue_begins_with_most_claims_a_minute(course, monkeypatch):
    """a took 30 s at quick scale and b one; then b has an old full-scale result that took an hour."""
    for scale, change in (("quick", {"a": 30.0, "b": 1.0}), ("full", {"b": 3600.0})):
        monkeypatch.setenv("LABCODE_SCALE", scale)
        monkeypatch.setenv("LABCODE_WRITE", "1")
        monkeypatch.setenv("LABCODE_PAPER", "")
        command.execute("p/c", None if scale == "quick" else "b")
        file = course / "book" / "results" / scale / "p" / "c.json"
        text = json.loads(file.read_text())
        for claim in text["claims"]:
            claim["seconds"], claim["code"] = change[claim["paper"]], "old"
        file.write_text(json.dumps(text))
        wanted = dict(quick=[("b", "missing"), ("a", "missing")], full=[("a", "missing"), ("b", "older than its code")])
        assert [(paper.paper, paper.why) for paper in queue.queue()] == wanted[scale]
    assert {paper.paper: round(paper.minutes) for paper in queue.queue()} == {"a": 30, "b": 60}


def test_a_killed_paper_loses_no_finished_one(course, monkeypatch, capfd):
    """The second paper's process ends by kill -9; the first one's result stays and the queue holds the second alone."""
    twin = course / "notebooks" / "p" / "c.py"
    twin.write_text(twin.read_text().replace('run.exact("b"', 'import os; os.kill(os.getpid(), 9); run.exact("b"'))
    monkeypatch.setenv("PYTHONPATH", str(Path(running.__file__).parents[2]))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(queue, "rows", list)
    assert queue.run_queue(300.0) == 1
    assert "b: failed with exit status -9" in capfd.readouterr().out
    assert [c["paper"] for c in written(course, "full")["claims"]] == ["a"]
    record = written(course, "full")["claims"][0]
    assert all(record[field] for field in ("device", "date", "commit", "data")) and "seconds" in record
    assert [paper[:3] for paper in queue.queue()] == [("p/c", "b", "missing")] and not list(course.rglob("*.tmp"))


QUEUE = """
import pathlib, torch
from labcode.course import cards, queue
queue.rows = list
torch.cuda.is_available, cards.PACKAGE = lambda: True, pathlib.Path("package")
queue.run_queue(300.0)
"""
DIE = 'import os, pathlib; pathlib.Path("died").touch(); os.killpg(0, 9)'
RENAME = f"import os; os.replace = lambda *a: exec({DIE!r})"  # dies as it puts a file in its place
MOMENTS = {
    "while the first result is renamed": ('run.claim("a"', f'{RENAME}; run.claim("a"', []),
    "in the second paper": ('run.exact("b"', f'exec({DIE!r}); run.exact("b"', ["a"]),
}  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_queue_loses_no_finished_result_and_goes_on(course, monkeypatch, moment):
    """kill -9 of the queue and all that it started; then the same queue again, undisturbed, has everything."""
    monkeypatch.setenv("PYTHONPATH", str(Path(running.__file__).parents[2]))
    where, how, kept = MOMENTS[moment]
    twin = course / "notebooks" / "p" / "c.py"

    def queue(change=lambda text: text):
        twin.write_text(change(TWIN))
        return subprocess.run([sys.executable, "-c", change(QUEUE)], start_new_session=True).returncode

    assert queue(lambda text: text.replace(where, how, 1)) == -9 and (course / "died").exists()
    file = course / "book" / "results" / "full" / "p" / "c.json"
    assert ([c["paper"] for c in written(course, "full")["claims"]] if file.exists() else []) == kept
    assert queue() == 0 and [c["paper"] for c in written(course, "full")["claims"]] == ["a", "b"]


def test_the_queue_takes_what_fits_into_the_budget(course, monkeypatch, capsys):
    times = (("a", 30.0), ("b", 2.0))
    long, short = (queue.Waiting("p/c", key, "missing", minutes, 9 - minutes / 9) for key, minutes in times)
    started = []
    long = long._replace(worth=10.0)
    monkeypatch.setattr(queue, "queue", lambda: [long, short])
    monkeypatch.setattr(queue, "rows", list)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(queue.subprocess, "run", lambda command, **_: started.append(command[5]) or done)
    for budget, order in ((None, ["a", "b"]), (7200.0, ["a", "b"]), (600.0, ["b", "a"]), (30.0, [])):
        started.clear()
        assert queue.run_queue(budget) == 0 and started == order
    assert "2 still wait" in capsys.readouterr().out


def test_a_dry_run_judges_and_writes_nothing(course, monkeypatch, capsys):
    monkeypatch.setenv("LABCODE_MAX_STEPS", "2")
    monkeypatch.setenv("LABCODE_WRITE", "1")
    command.execute("p/c")
    assert "dry run" in capsys.readouterr().out and not (course / "book").exists()


def test_importing_is_cheap():
    code = (
        "import torch, sys, time; before = set(sys.modules); t = time.perf_counter(); import labcode as lab;"
        "lab.start; lab.papers; lab.train; lab.nets; lab.augment; lab.evaluate; lab.data.scenes;"
        "print(time.perf_counter() - t, *sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torchvision", "sklearn", "skimage", "matplotlib", "scipy", "accelerate"} & set(out[1:])
    assert float(out[0]) < 1.0  # 0.1 s when measured; the bound only catches a heavy import


def test_tuning_has_seeds_and_splits_of_its_own_and_leaves_the_ledger_alone(course, monkeypatch, capsys):
    command.main(["p/c", "--seeds", "2"])
    before = written(course)
    for name in ("LABCODE_WRITE", "LABCODE_SEEDS"):
        monkeypatch.delenv(name, raising=False)
    command.main(["p/c", "--seeds", "3", "--tune"])
    assert "tuning: 2 records made, none compared, nothing written" in capsys.readouterr().out
    assert written(course) == before
    run = running.start("p/c")
    assert run.seeds == (100, 101, 102) and run.splits == ("fit", "validation") and "tuning" in repr(run)
    monkeypatch.delenv("LABCODE_TUNE")
    assert running.start("p/c").splits == ("train", "test") and running.start("p/c").seeds == (0, 1, 2)


def test_statements_chosen_after_a_look_are_measured_on_later_seeds(course, monkeypatch):
    twin = course / "notebooks" / "p" / "c.py"
    twin.write_text(twin.read_text().replace('lab.start("p/c")', 'lab.start("p/c", first_seed=5)'))
    command.main(["p/c", "--seeds", "3", "--write"])
    assert written(course)["seeds"] == [5, 6, 7] == written(course)["claims"][0]["seeds"]
    monkeypatch.setenv("LABCODE_SEEDS", "2")
    assert running.start("p/c", first_seed=98).seeds == (98, 99)
    assert "2 seeds from 98 on" in repr(running.start("p/c", first_seed=98))
    for amiss in (-1, 99):
        with pytest.raises(ValueError, match=f"first_seed must be 0 to 98 for 2 seeds, got {amiss}"):
            running.start("p/c", first_seed=amiss)
    monkeypatch.setenv("LABCODE_TUNE", "1")
    assert running.start("p/c", first_seed=5).seeds == (100, 101)


def test_a_summary_is_written_with_the_results_and_compared(course, monkeypatch):
    rows = {"random": [0.2], "labels": [0.9]}
    monkeypatch.setenv("LABCODE_WRITE", "1")
    run = _run()
    run.summarise("accuracy", rows, floor="random", ceiling="labels")
    run.close()
    assert written(course)["summary"]["rows"] == rows
    monkeypatch.setenv("LABCODE_WRITE", "0")
    changed = "random is 0.5 for seed 0, committed 0.2"
    for values, word in (({"random": [0.5]}, changed), ({}, "the summary was not made")):
        run = _run()
        if values:
            run.summarise("accuracy", rows | values)
        with pytest.raises(AssertionError, match=word):
            run.close()
    monkeypatch.setenv("LABCODE_PAPER", "a")  # one paper alone leaves the chapter's summary as it is
    monkeypatch.setenv("LABCODE_WRITE", "1")
    _run().close()
    assert written(course)["summary"]["rows"] == rows


@pytest.fixture
def package(course, monkeypatch):
    """Two chapters and a library: p/c imports a loss and, inside a function, a network; p/d imports a probe."""
    package = course / "package"
    files = {
        "p/c/__init__.py": "from .method import f\n",
        "p/c/method.py": "from ...loss import g\n\n\ndef f():\n    from labcode import nets\n",
        "p/d/__init__.py": "from ...evaluate.probe import linear\n",
        "loss.py": "def g():\n    return 1\n",
        "nets/__init__.py": "from .conv import net\n",
        "nets/conv.py": "net = 1\n",
        "evaluate/__init__.py": "",
        "evaluate/probe.py": "linear = 1\n",
        "plots.py": "colour = 1\n",
        "course/run.py": "start = 1\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    (course / "notebooks" / "p" / "d.py").write_text("# %%\nimport labcode as lab\nlab.plots.colour\n")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    return package


# what is written to a file of the package, and whether p/c measures anew because of it
EDITS = {
    "its own method": ("p/c/method.py", "f = 2\n", True),
    "a library module behind it": ("loss.py", "def g():\n    return 2\n", True),
    "one that a function imports": ("nets/conv.py", "net = 2\n", True),
    "comments and docstrings": ("loss.py", '"""New."""\n\n\ndef g():\n    """Says."""\n    return 1  # one\n', False),
    "another chapter": ("p/d/__init__.py", "x = 2\n", False),
    "what another chapter imports": ("evaluate/probe.py", "linear = 2\n", False),
    "what draws": ("plots.py", "colour = 2\n", False),
    "what writes down": ("course/run.py", "start = 2\n", False),
}


@pytest.mark.parametrize("edit", EDITS)
def test_results_are_of_the_code_behind_a_chapter_and_of_no_other(package, edit):
    file, text, other = EDITS[edit]
    before, folder = provenance.fingerprint("p/c"), provenance.checkpoints("p/c", "long")
    (package / file).write_text(text)
    assert (provenance.fingerprint("p/c") != before) == other
    assert (provenance.checkpoints("p/c", "long") != folder) == other


def test_results_of_a_scale_stay_valid_when_another_scale_changes(package):
    def marks():
        return [provenance.fingerprint("p/c", scale) for scale in ("quick", "long", "full")]

    def written(text):
        (package / "p" / "c" / "method.py").write_text(f"é = '…'; f = {text}\n")

    written("run.pick(quick=(1, 2), full=run.pick(quick=3, long=4, full=5))")
    quick, long, full = marks()
    written("run.pick(quick=(9, 2), long=(1, 2), full=run.pick(quick=3, long=4, full=5))")
    assert [a == b for a, b in zip(marks(), (quick, long, full), strict=True)] == [False, True, True]
    written("run.pick(quick=(1, 2), full=run.pick(quick=9, long=9,\n    full=5))  # of both")
    assert marks() == [quick, long, full]
    written("run.pick(quick=(1, 2), full=run.pick(quick=3, long=4, full=6))")
    assert [a == b for a, b in zip(marks(), (quick, long, full), strict=True)] == [True, True, False]
    written("other.pick((1, 2), full=5)")  # no choice by scale
    assert quick not in marks() and len(set(marks())) == 1


def test_a_hash_sign_in_a_string_is_no_comment():
    text = 'colour = "#ff0000"  # red\n"""no docstring here"""\n\n\ndef f():\n    """Says."""\n    return "# x"\n'
    assert provenance.bare(text, "quick") == 'colour = "#ff0000"\n"""no docstring here"""\ndef f():\n    return "# x"\n'


def test_long_scale_stretches_trainings_and_takes_its_own_settings_where_given(course, monkeypatch):
    import torch

    from labcode.train import allowed, fit

    monkeypatch.setenv("LABCODE_SCALE", "long")
    run = running.start("p/c")
    assert run.pick(quick=1, full=2) == 1 and run.pick(quick=1, long=3, full=2) == 3 and run.device.type == "cpu"
    with pytest.raises(TypeError, match="medium"):
        run.pick(quick=1, medium=2, full=3)
    assert allowed(10) == 40 and allowed(10, stretch=False) == 10
    model = torch.nn.Linear(1, 1)
    step = lambda batch: {"loss": model(batch).square().mean()}  # noqa: E731
    assert fit(model, step, lambda i: torch.ones(2, 1), steps=3, progress=False).steps == 12
    monkeypatch.setenv("LABCODE_MAX_STEPS", "7")
    assert allowed(10) == 7
    monkeypatch.delenv("LABCODE_MAX_STEPS")
    monkeypatch.setenv("LABCODE_SCALE", "quick")
    running.start("p/c")
    assert allowed(10) == 10


CURVED = TWIN.replace(
    'run.claim("a"',
    """values = [[x + SHIFT + 0.1 * s for s in run.seeds] for x in (1, 2, 4)]
made = run.curve("a", "over x", [1, 2, 4], {"ours": values}, "x", "y")
import torch
sheet = run.picture("a", "what it saw", torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0)), "Noise.")
run.claim("a\"""",
)


def test_curves_and_pictures_are_kept_compared_and_shown_beside_longer_ones(course, monkeypatch, capsys):
    monkeypatch.setenv("LABCODE_WRITE", "1")
    for scale, shift in (("quick", 0), ("long", 1)):
        monkeypatch.setenv("LABCODE_SCALE", scale)
        (course / "notebooks" / "p" / "c.py").write_text(CURVED.replace("SHIFT", str(shift)))
        command.execute("p/c")
    curve = written(course)["curves"][0]
    assert curve["x"] == [1, 2, 4] and curve["arms"] == {"ours": [[1.0], [2.0], [4.0]]} and curve["device"]
    kept = course / "book" / "results" / "long" / "p" / "c" / "a-what-it-saw.png"
    assert 0 < kept.stat().st_size <= 40_000
    assert not (course / "book" / "results" / "quick" / "p" / "c").exists(), "the minute's is drawn anew every time"

    monkeypatch.setenv("LABCODE_SCALE", "quick")
    monkeypatch.setenv("LABCODE_WRITE", "0")
    looks = "; print(list(made.longer), made.longer['long'].band('ours')[0][0], list(sheet.sheets))\nrun.claim("
    text = CURVED.replace("SHIFT", "0").replace("\nrun.claim(", looks.replace("; ", "\n", 1), 1)
    (course / "notebooks" / "p" / "c.py").write_text(text)
    command.execute("p/c")
    assert "['long'] 2.0 ['quick', 'long']" in capsys.readouterr().out
    (course / "notebooks" / "p" / "c.py").write_text(CURVED.replace("SHIFT", "0.5"))
    with pytest.raises(AssertionError, match="over x.*ours at 1 is 1.5 for seed 0, committed 1"):
        command.execute("p/c")
    (course / "notebooks" / "p" / "c.py").write_text(TWIN)
    with pytest.raises(AssertionError, match="“over x” was not measured"):
        command.execute("p/c")


def test_a_curve_of_seconds_is_the_machines_and_not_compared(course):
    def drawn(values, ylabel):
        return running.start("p/c").curve("a", "over x", [1, 2], {"ours": [[v] for v in values]}, "x", ylabel)

    for ylabel, differs in (("accuracy", 2), ("seconds", 0), ("seconds a row", 0)):
        assert len(drawn([1.0, 2.0], ylabel).differs(drawn([3.0, 9.0], ylabel))) == differs
    other = running.start("p/c").curve("a", "over x", [1, 3], {"ours": [[1], [2]]}, "x", "seconds")
    assert drawn([1.0, 2.0], "seconds").differs(other)


def test_a_point_at_which_all_seeds_agree_is_judged_by_the_spread_of_its_curve():
    """Counts: five seeds found six clusters at the second point, between nine and ten times as many at the first."""
    from labcode.course.curves import Curve

    def counted(first, second, seeds):
        where = (seeds, "digits", "cpu", {}, "commit", "code", "date")
        return Curve("p", "classes", [1, 20], {"found": [first, second]}, "preference", "found over true", *where)

    old = counted([9.2, 9.7, 9.5, 8.7, 10.0], [1.5] * 5, [0, 1, 2, 3, 4])
    assert counted([9.2], [1.25], [0]).differs(old) == []
    assert "at 20 is 2.75 for seed 0" in counted([9.2], [2.75], [0]).differs(old)[0]
    flat = counted([9.5] * 5, [1.5] * 5, [0, 1, 2, 3, 4])
    assert "at 20 is 1.25 for seed 0" in counted([9.5], [1.25], [0]).differs(flat)[0]


def test_a_curve_wants_points_and_one_finite_value_a_seed(course):
    run = running.start("p/c")
    run.data = "toy"
    for x, arms, match in [
        ([1], {"a": [[1.0]]}, "two points"),
        ([1, 2], {"a": [[1.0]]}, "each of the 2 points"),
        ([1, 2], {"a": [[1.0], [float("nan")]]}, "1 finite values"),
        ([1, 2], {"a": [[1.0, 2.0], [1.0, 2.0]]}, "1 finite values"),
    ]:
        with pytest.raises(ValueError, match=match):
            run.curve("a", "c", x, arms, "x", "y")
    run.curve("a", "c", [1, 2], {"a": [[1.0], [2.0]]}, "x", "y")
    with pytest.raises(ValueError, match="already"):
        run.curve("a", "c", [1, 2], {"a": [[1.0], [2.0]]}, "x", "y")


def test_a_contact_sheet_is_small_and_shows_every_pixel():
    import io

    import numpy as np
    import torch
    from PIL import Image

    from labcode.course.curves import sheet

    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None].repeat(3, 1, 1)
    shown = np.asarray(Image.open(io.BytesIO(sheet(x, columns=2, scale=4))).convert("L"))
    assert shown.shape == (18, 18) and shown[0, 0] == 0 and shown[0, 7] == 255 and shown[17, 17] == 255
    assert len(sheet(torch.rand(64, 3, 32, 32))) <= 40_000
    for wrong in (torch.rand(3, 2, 8, 8), 2 * torch.ones(1, 8, 8), torch.rand(0, 8, 8)):
        with pytest.raises(ValueError, match="images must"):
            sheet(wrong)
    with pytest.raises(ValueError, match="show fewer"):
        sheet(torch.rand(400, 3, 32, 32))


def test_what_carries_over_has_a_row_a_claim_and_a_column_a_scale(course, monkeypatch):
    monkeypatch.setenv("LABCODE_WRITE", "1")
    monkeypatch.setenv("LABCODE_SCALE", "long")
    command.execute("p/c")
    monkeypatch.setenv("LABCODE_SCALE", "quick")
    run = running.start("p/c")
    run.data = "toy"
    run.claim("a", "a wins", ours=[0.2], baseline=[0.1], margin=0.2)
    html = run.carry_over()._repr_html_()
    assert html.startswith("<!-- carry-over p/c -->")
    row = html[html.index("a wins") : html.index("</tr>", html.index("a wins"))]
    assert "smaller" in row.split("</td>")[0] and "supported" in row.split("</td>")[1] and "–" in row.split("</td>")[2]
    assert '<a href="#a">a</a> <small>r</small>' in html and "b holds" in html
