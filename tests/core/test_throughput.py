"""The speed command: its counts against arithmetic, its parts, and that one broken way does not cost the others."""

import json

import pytest
import torch

from labcode import nets
from labcode.course import throughput


def test_flops_of_the_network_are_those_of_its_shapes():
    width, side = 4, 8
    total, n_in, size = 3 * width * 9 * side**2, width, side
    for i, stride in enumerate((1, 2, 2, 2)):
        n_out, size = width * 2**i, size // stride
        total += (n_in + 3 * n_out) * n_out * 9 * size**2 + (n_in * n_out * size**2 if stride > 1 else 0)
        n_in = n_out
    forward = 2 * total  # a multiplication and an addition
    first = 2 * 3 * width * 9 * side**2  # the images want no gradient
    found = throughput.flops(nets.ResNet18(width), torch.rand(2, 3, side, side)) / 2
    assert found == pytest.approx(3 * forward - first, rel=1e-6)


def test_a_measurement_has_rates_parts_and_origin(tmp_path, capsys):
    arguments = ["--width", "2", "--batch", "8", "--steps", "2", "--side", "8", "--ways", "plain", "channels last"]
    assert throughput.main([*arguments, "--out", str(tmp_path / "made" / "t.json")]) == 0
    found = json.loads((tmp_path / "made" / "t.json").read_text())
    for way in ("plain", "channels last"):
        one = found["ways"][way]
        assert one["views_per_second"] > 0 and sum(one["parts"].values()) == pytest.approx(1, abs=0.01)
        assert one["share_of_peak"] == pytest.approx(
            one["views_per_second"] * found["gflop_per_view"] / found["peak_tflops"] / 1000, rel=0.3, abs=0.01
        )
    assert {"device", "commit", "date", "versions", "precision"} <= found.keys()
    assert "views/s" in capsys.readouterr().out and [p.name for p in (tmp_path / "made").iterdir()] == ["t.json"]


def test_a_way_that_fails_is_told_and_the_rest_measured(monkeypatch):
    make = throughput.make_step

    def broken(images, width, batch, way, device):
        if way != "plain":
            raise RuntimeError("no compiler")
        return make(images, width, batch, way, device)

    monkeypatch.setattr(throughput, "make_step", broken)
    found = throughput.measure(2, 4, 1, 8, ("plain", "channels last, compiled"))
    assert "views_per_second" in found["ways"]["plain"]
    assert found["ways"]["channels last, compiled"] == {"error": "RuntimeError: no compiler"}
    assert "no compiler" in throughput.report(found)
