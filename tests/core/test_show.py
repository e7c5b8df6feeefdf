"""``lab.show`` leaves what computes and nothing else."""

import ast

import pytest

import labcode as lab
from labcode.course.show import essence

WHOLE = '''@float32
@torch.no_grad()
def f(x, tau):
    """Says what it is.

    And more.
    """
    check_matrix("x", x)
    if tau <= 0:
        raise ValueError(
            f"tau must be positive, got {tau}"
        )
    if x.ndim == 1:
        x = x[None]
    else:
        raise ValueError("x")
    assert x.ndim == 2
    for row in x:
        if row.sum() < 0:
            raise ValueError("row")
        y = row / tau

    return y
'''
LEFT = """@torch.no_grad()
def f(x, tau):
    if x.ndim == 1:
        x = x[None]
    else:
        raise ValueError("x")
    for row in x:
        y = row / tau

    return y"""


def test_checks_docstrings_and_decorators_go_and_all_else_stays():
    assert essence(WHOLE) == LEFT


def test_a_function_that_only_checks_is_shown():
    only = 'def check(x):\n    if x:\n        raise ValueError("x")'
    assert essence(only) == only


def test_what_is_left_of_every_public_function_is_python():
    from labcode.self_supervision import contrastive, predictive, redundancy

    for module in (contrastive, redundancy, predictive):
        for name in dir(module):
            if callable(thing := getattr(module, name)) and getattr(thing, "__module__", "").startswith("labcode"):
                ast.parse(lab.show(thing).text)


def test_a_piece_is_named_by_its_first_and_last_line():
    from labcode.course import show

    piece = show.show(show.show, start="texts, places", end="texts, places")
    assert piece.text == "texts, places = [], []" and "show.py, line" in piece.where
    with pytest.raises(ValueError, match="start must"):
        show.show(show.show, start="no such line")
    with pytest.raises(ValueError, match="end must"):
        show.show(show.show, start="return Source", end="texts, places")
