"""The training loop: resume to the bit, averages, errors that name the step, several processes."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from labcode.data import shuffled
from labcode.train import fit, schedule

DATA = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))


def setting(seed=0, **options):
    """A small regression with dropout and a generator of its own: both kinds of randomness a resume must restore."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 1))
    generator = torch.Generator().manual_seed(seed)

    def step(index):
        x = DATA[index] + 0.1 * torch.randn(len(index), 5, generator=generator)
        return {"loss": (model(x)[:, 0] - DATA[index].sum(1)).square().mean()}

    settings = dict(steps=60, lr=0.01, generators=[generator], ema=0.9, clip=1.0)
    return model, lambda: fit(model, step, shuffled(64, 16, seed), **(settings | options))


def test_it_learns_and_reports():
    model, train = setting(steps=300)
    history = train()
    assert history.losses.shape == (300,) and history.losses[-20:].mean() < 0.3 * history.losses[:20].mean()
    assert not model.training and history.resumed_at == 0 and history.steps_per_second > 0


def test_schedule():
    rates = [schedule(i, 100, 1.0, 10) for i in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and max(rates) == 1.0
    assert rates[55] == pytest.approx(0.5, abs=0.02) and rates[-1] < 0.001
    assert schedule(100, 100, 1.0, 10, final=0.2) == pytest.approx(0.2)


def test_ema_is_the_average_of_the_weights():
    torch.manual_seed(0)
    model, seen = nn.Linear(3, 1), []
    x = torch.randn(8, 3)

    def step(index):
        seen.append(model.weight.detach().clone())
        return {"loss": model(x).square().mean()}

    history = fit(model, step, lambda i: torch.arange(8), steps=10, ema=0.8, warmup=1)
    wanted = None
    for weight in [*seen[1:], model.weight.detach()]:
        wanted = weight.clone() if wanted is None else 0.8 * wanted + 0.2 * weight
    assert torch.allclose(history.ema.weight, wanted, atol=1e-6)


def test_norms_and_biases_are_not_decayed_and_lr_scale_counts():
    torch.manual_seed(0)
    fast, slow = nn.Linear(3, 3), nn.Linear(3, 3)
    slow.lr_scale = 0.0
    model = nn.ModuleList([fast, slow])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit(
        model,
        lambda i: {"loss": 0.0 * sum(p.sum() for p in model.parameters())},
        lambda i: torch.arange(1),
        steps=5,
        lr=0.1,
        weight_decay=0.5,
    )
    after = model.state_dict()
    assert torch.equal(after["0.bias"], before["0.bias"]) and torch.equal(after["1.weight"], before["1.weight"])
    assert (after["0.weight"].abs() < before["0.weight"].abs()).all()


def test_clipping_bounds_the_update():
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    before = model.weight.detach().clone()
    fit(
        model,
        lambda i: {"loss": 1e6 * model.weight.sum()},
        lambda i: torch.arange(1),
        steps=1,
        lr=1.0,
        warmup=1,
        clip=0.5,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0),
        weight_decay=0.0,
    )
    assert (model.weight.detach() - before).norm() == pytest.approx(0.5, rel=1e-3)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    reference, train = setting()
    wanted = train()
    file = tmp_path / "run.pt"

    model, train = setting(checkpoint=file, checkpoint_seconds=0.0)
    calls = {"n": 0}
    forward = type(model).forward

    def dies(self, x):
        calls["n"] += 1
        if calls["n"] == 35:
            raise KeyboardInterrupt
        return forward(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", dies)
        with pytest.raises(KeyboardInterrupt):
            train()
    again, train = setting(seed=0, checkpoint=file)
    torch.manual_seed(999)  # whatever the new process did before
    history = train()
    assert 0 < history.resumed_at <= 34
    for a, b in zip(reference.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(wanted.losses, history.losses)
    assert torch.equal(wanted.ema[0].weight, history.ema[0].weight)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_kill_9_and_start_again(tmp_path):
    """A process of its own is killed at a random moment; the second one ends with the bits of an undisturbed run."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, time, hashlib, torch; sys.path.insert(0, sys.argv[2])\n"
        "import test_train\n"
        "slow = len(sys.argv) > 3\n"
        "model, train = test_train.setting(steps=400, checkpoint=sys.argv[1], checkpoint_seconds=0.0)\n"
        "if slow: model.register_forward_hook(lambda *a: time.sleep(0.02))\n"
        "train()\n"
        "print(hashlib.sha256(b''.join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest())\n"
    )
    here = os.path.dirname(__file__)
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(here))}

    def start(file, *more):
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / file), here, *more],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    whole = start("a.pt")
    killed = start("b.pt", "slow")
    deadline = time.time() + 60
    while not (tmp_path / "b.pt").exists() and killed.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert torch.load(tmp_path / "b.pt", weights_only=True)["step"] < 400
    again = start("b.pt")
    assert whole.communicate(timeout=120)[0] == again.communicate(timeout=120)[0] != ""


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    setting(checkpoint=tmp_path / "run.pt")[1]()
    with pytest.raises(ValueError, match="another run: lr 0.01 there, 0.02 here"):
        setting(checkpoint=tmp_path / "run.pt", lr=0.02)[1]()
    (tmp_path / "run.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be read"):
        setting(checkpoint=tmp_path / "run.pt")[1]()


def test_a_finished_run_is_not_trained_again(tmp_path):
    setting(checkpoint=tmp_path / "run.pt")[1]()
    model, train = setting(seed=0, checkpoint=tmp_path / "run.pt")
    assert train().resumed_at == 60
    assert torch.load(tmp_path / "run.pt", weights_only=True)["optim"] is None  # two thirds of the file, of no use


def test_a_loss_that_is_not_finite_names_step_and_rate():
    model, count = nn.Linear(2, 1), []

    def step(index):
        count.append(0)
        return {"loss": model(torch.ones(1, 2)).sum() * (float("nan") if len(count) == 8 else 1)}

    with pytest.raises(FloatingPointError, match=r"loss is nan at step 7 of 20, learning rate 0\.\d+"):
        fit(model, step, lambda i: torch.arange(1), steps=20, lr=0.1)


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(state, file):
        file.write(b"half")
        raise RuntimeError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RuntimeError, match="no space left"):
        setting(checkpoint=tmp_path / "run.pt")[1]()
    assert not list(tmp_path.iterdir())


def test_a_first_loss_that_is_not_finite_points_to_the_images():
    model = nn.Linear(2, 1)
    with pytest.raises(FloatingPointError, match="at step 0 of 3.* range of the images"):
        fit(model, lambda b: {"loss": model(torch.ones(1, 2)).sum() * float("nan")}, lambda i: torch.arange(1), steps=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(clip=0.0), "clip"),
        (dict(warmup=-1), "warmup"),
        (dict(weight_decay=-0.1), "weight_decay"),
        (dict(steps=0), "steps"),
        (dict(lr=0.0), "lr"),
        (dict(precision="f8"), "precision"),
        (dict(ema=1.0), "ema"),
        (dict(optimizer="adam"), "optimizer"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        setting(**options)[1]()


def test_bfloat16_trains():
    _, train = setting(precision="bf16", steps=200)
    losses = train().losses
    assert losses[-20:].mean() < 0.5 * losses[:20].mean()


def test_two_processes_take_the_step_of_one(tmp_path):
    """With a loss that is a mean over rows, two processes with half the batch each end where one ends."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch; from torch import nn; from labcode.train import fit; from labcode.data import shuffled\n"
        "import os; rank = os.environ.get('RANK', '0')\n"
        "x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))\n"
        "torch.manual_seed(int(rank)); model = nn.Linear(5, 1)\n"
        "step = lambda i: {'loss': (model(x[i])[:, 0] - x[i].sum(1)).square().mean()}\n"
        "fit(model, step, shuffled(64, 16), steps=30, lr=0.01)\n"
        "torch.save(model.state_dict(), sys.argv[1] + rank)\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    environment = os.environ | {"PYTHONPATH": root, "ACCELERATE_USE_CPU": "true"}
    # accelerate launch starts GPUs through torch.distributed.run; on a CPU it starts one process only, so call that
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([sys.executable, str(script), str(tmp_path / "one")], env=environment, check=True, timeout=120)
    subprocess.run([*launch, str(script), str(tmp_path / "two")], env=environment, check=True, timeout=180)
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one0", "two0"))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-6)
    other = torch.load(tmp_path / "two1", weights_only=True)
    assert all(torch.equal(two[name], other[name]) for name in two)


def test_one_process_takes_whatever_batches_give():
    """Its step alone says what a batch is: a scalar, a pair, nothing."""
    model, seen = torch.nn.Linear(2, 1), []

    def step(batch):
        seen.append(batch)
        return {"loss": model.weight.sum()}

    fit(model, step, lambda i: torch.tensor(i), steps=2, progress=False)
    assert [int(b) for b in seen] == [0, 1]
