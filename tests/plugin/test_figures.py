"""The object that measurements print."""

from __future__ import annotations

import json

import pytest

from skillc.figures import figures_object, print_figures


@pytest.mark.parametrize(
    ("seconds", "sign", "bound", "met"),
    [
        (0.2, "<", 0.25, True),
        (0.3, "<", 0.25, False),
        (0.25, "<=", 0.25, True),
        (2.0, ">=", 2.5, False),
        (3.0, ">", 2.5, True),
        (0.0, "==", 0.0, True),
    ],
)
def test_met(seconds: float, sign: str, bound: float, met: bool) -> None:
    made = figures_object("one", {"seconds": seconds}, {"seconds": (sign, bound)})
    assert made["met"] is met
    assert made["targets"] == {"seconds": [sign, bound]}


def test_a_target_without_its_figure_is_not_met() -> None:
    assert figures_object("one", {}, {"seconds": ("<", 1.0)})["met"] is False


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_figures("one", {"seconds": 0.5}, {}, as_json=True)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert set(json.loads(printed)) == {"name", "figures", "targets", "met", "machine"}


def test_lines_name_the_target(capsys: pytest.CaptureFixture[str]) -> None:
    print_figures("one", {"seconds": 0.5}, {"seconds": ("<", 0.25)}, as_json=False)
    printed = capsys.readouterr().out
    assert "(target < 0.25)" in printed
    assert printed.endswith("targets NOT met\n")
