"""Every paper is found by its name, and has code, tests and results where its name says."""

import pytest

from labcode.course import cards, find
from labcode.course.provenance import PACKAGE, root

CARDS = {card.key: card for card in cards.papers()}


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("Sort & Search", ["lifelong-benchmarks-ss"]),  # the file's name
        ("sortsearch", ["lifelong-benchmarks-ss"]),
        ("ODC", ["odct"]),  # a class
        ("jigclu", ["jigclu"]),
        ("clusters along tracks", ["odct"]),
        ("Effective Entropy", ["e2mc"]),  # words of the title
        ("no such paper", []),
        ("", []),
    ],
)
def test_a_paper_is_found_by_whatever_it_is_called(words, keys, capsys):
    assert find.main([words] if words else []) == (not keys)
    out = capsys.readouterr().out
    assert [key for key in CARDS if f"under {key!r}" in out] == keys, out


def test_every_paper_has_code_tests_and_results():
    for key, card in CARDS.items():
        assert [c.key for c in find.find(key)] == [key]
        files = find.files(card)
        assert files, f"{key}: none of {card.code} is written in {card.part}/{card.chapter}"
        tests = root() / "tests" / card.part / card.chapter
        assert any((tests / f"test_{f.stem}.py").exists() for f in files), f"{key}: no test for any of {files}"
        told = find.places(card)
        assert f"book/results/quick/{card.part}/{card.chapter}.json" in told and PACKAGE.name in told
