"""Drawing: what is refused, and what lands where."""

import matplotlib

matplotlib.use("Agg")
import pytest  # noqa: E402
import torch  # noqa: E402

from labcode import plots  # noqa: E402
from labcode.course.curves import Curve  # noqa: E402

PARTS = {"image": (0, 0), "encoder": (1, 0, "trained"), "queue": (1, 1, "store"), "loss": (2, 0, "loss")}


def test_a_diagram_draws_every_part_arrow_and_kind():
    arrows = [("image", "encoder"), ("encoder", "loss", "z"), ("queue", "loss", "negatives", "stop")]
    axis = plots.diagram(PARTS, arrows).axes[0]
    assert {t.get_text() for t in axis.texts if t.get_text()} == {*PARTS, "z", "negatives ✕"}
    tips = [t.arrow_patch for t in axis.texts if getattr(t, "arrow_patch", None)]
    assert [tip.get_linestyle() for tip in tips] == ["-", "-", "--"]
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["trained", "store", "loss"]
    with pytest.raises(ValueError, match="'nowhere'"):
        plots.diagram(PARTS, [("image", "nowhere")])
    with pytest.raises(ValueError, match="kind in data, trained"):
        plots.diagram({"a": (0, 0, "net")}, [])


def test_a_longer_curve_lies_over_the_points_in_its_arms_colour():
    told = dict(paper="a", name="c", xlabel="x", ylabel="y", data="toy", device="CPU", versions={"a": "1"},
                commit="c", code="c", date="d", seeds=[0, 1])  # fmt: skip
    found = Curve(x=[1, 10], arms={"ours": [[1, 2], [3, 4]], "theirs": [[0, 0], [1, 1]]}, log=True, **told)
    found.longer = {"long": Curve(x=[1, 10, 100], arms={"ours": [[2, 2], [3, 3], [4, 4]]}, **told)}
    axis = plots.curve(found, floor=0.5).axes[0]
    drawn = {line.get_label(): line for line in axis.lines}
    assert list(drawn["ours"].get_ydata()) == [1.5, 3.5] and list(drawn["ours, long"].get_xdata()) == [1, 10, 100]
    assert drawn["ours"].get_color() == drawn["ours, long"].get_color() != drawn["theirs"].get_color()
    assert axis.get_xscale() == "log" and axis.get_xlabel() == "x"


def test_a_longer_curve_of_named_points_stands_over_the_same_names():
    told = dict(paper="a", name="c", xlabel="x", ylabel="y", data="toy", device="CPU", versions={"a": "1"},
                commit="c", code="c", date="d", seeds=[0, 1])  # fmt: skip
    found = Curve(x=["none", "hard"], arms={"b": [[1, 1], [3, 3]]}, **told)
    arms = {"a": [[0, 0]] * 3, "b": [[1, 1], [2, 2], [4, 4]]}
    found.longer = {"long": Curve(x=["none", "easy", "hard"], arms=arms, **told)}
    axis = plots.curve(found).axes[0]
    drawn = {line.get_label(): line for line in axis.lines}
    assert list(drawn["b"].get_xdata()) == [0, 2] and list(drawn["b, long"].get_xdata()) == [0, 1, 2]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["none", "easy", "hard"]
    assert drawn["b"].get_color() == drawn["b, long"].get_color() != drawn["a, long"].get_color()


def test_rows_of_images_have_names():
    figure = plots.images(torch.rand(6, 3, 4, 4), rows=2, names=("seen", "made"))
    assert [axis.texts[0].get_text() for axis in figure.axes if axis.texts] == ["seen", "made"]


def test_pictures_that_would_all_be_white_are_refused():
    x = torch.rand(2, 3, 4, 4)
    for wrong, got in ((255 * x, "up to 2"), (x[0], r"\(3, 4, 4\)"), (x[:, :2], r"\(2, 2"), (x[:0], r"\(0, 3")):
        with pytest.raises(ValueError, match=got):
            plots.images(wrong)
    plots.images(1.3 * x - 0.1)
