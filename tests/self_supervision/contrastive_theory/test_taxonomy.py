"""The review's taxonomy: where methods stand, and what their objectives ask for."""

import pytest

from labcode.self_supervision import contrastive_theory as T


def test_methods_stand_where_their_sources_put_them():
    families = {m.name: m.family for m in T.METHODS}
    assert families["classifier"] == "supervised" and families["CPC, SimCLR"] == "multi-view"
    assert families["semi-supervised autoencoder"] == "semi-supervised"
    assert families["variational autoencoder"] == "single-view"
    kept = {m.name: m.keeps for m in T.METHODS}
    assert kept["autoencoder"] == ("shared", "private") and kept["VICReg, Barlow Twins"] == ("shared",)
    assert {m.name for m in T.METHODS if m.contrastive} == {"Deep InfoMax", "CPC, SimCLR", "multi-view bottleneck"}
    assert {m.family for m in T.METHODS} == {"supervised", "semi-supervised", "multi-view", "single-view"}


def test_every_method_has_its_line():
    lines = T.taxonomy_table().splitlines()
    assert len(lines) == 1 + len(T.METHODS)
    assert all(line.startswith(m.name) for m, line in zip(T.METHODS, lines[1:], strict=True))


@pytest.mark.bad_input
def test_what_no_objective_asks_for_is_refused():
    label = ("label",)
    for field, wrong in (("asked", ((), "critic")), ("asked", (("views",), "critic")), ("through", (label, "hope"))):
        with pytest.raises(ValueError, match=field):
            T.Method("new", *wrong)
    with pytest.raises(ValueError, match="charges"):
        T.Method("new", ("label",), "classifier", "a fee")
