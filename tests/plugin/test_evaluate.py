"""Evaluation: what counts as right, what the figures mean, what bad suites say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skillc.evaluate.cases import Ask, generated_cases, handwritten_cases
from skillc.evaluate.report import figures, interval, table
from skillc.evaluate.scoring import Mark, answered, is_leak, is_right
from skillc_compiler.data.generate import UNKNOWN, Question
from skillc_compiler.data.tools import tool
from skillc_compiler.errors import ProjectError

TOOL = tool("bash", ("command",), "Run it.")
CALL = '<tool_call>\n{"name": "bash", "arguments": {"command": "make t"}}\n</tool_call>'


def ask(kind: str = "command", expect: str = "make t", match: str = "exact") -> Ask:
    return Ask(Question(kind, "What?", expect), match)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("make t", "make t"),
        (" `make t` \n", "make t"),
        (CALL, "make t"),
        ("<tool_call>{broken}</tool_call>", "<tool_call>{broken}</tool_call>"),
        ("", ""),
    ],
)
def test_what_an_answer_says(text: str, said: str) -> None:
    assert answered(text) == said


def test_exact_means_the_whole_answer() -> None:
    assert is_right(ask(), "`make t`")
    assert not is_right(ask(), "make test")
    assert not is_right(ask(), "Run make t")


def test_contains_and_regex() -> None:
    assert is_right(ask("never", "Stock Editor", "contains"), "the stock editor!")
    assert not is_right(ask("never", "stock editor", "contains"), "the editor")
    assert is_right(ask("apply", r"^v\d+$", "regex"), "v12")
    assert not is_right(ask("apply", r"^v\d+$", "regex"), "v1.2")


def test_with_tools_a_command_wants_a_call() -> None:
    offered = Ask(Question("command", "Test.", "make t", (TOOL,)))
    assert is_right(offered, CALL)
    assert not is_right(offered, "make t")
    assert not is_right(ask(), CALL)


def test_leaks_are_literals_of_the_skill() -> None:
    outside = Ask(Question("outside", "Logo?", UNKNOWN))
    text = "Run `make t` now. It is on Friday."
    assert is_leak(outside, "make t", text)
    assert is_leak(outside, "You run make t.", text)
    assert not is_leak(outside, UNKNOWN, text)
    assert not is_leak(outside, "No idea.", text)
    assert not is_leak(ask(), "make t", text)


def mark(arm: str, skill: str, right: bool, kind: str = "command") -> Mark:
    return Mark(arm, skill, kind, right, right, 3 if right else 1, 4, False, "")


def test_figures_by_arm_and_kind() -> None:
    marks = [
        mark("none", "a", False),
        mark("none", "b", False, "literal"),
        mark("adapter", "a", True),
        mark("adapter", "b", False, "literal"),
        mark("adapter", "b", True, "outside"),
    ]
    found = figures(marks, ("none", "adapter"))
    assert found["none_exact"] == 0.0
    assert found["adapter_exact"] == 0.5
    assert found["adapter_command"] == 1.0
    assert found["adapter_literal"] == 0.0
    assert found["adapter_entry"] == 0.5
    assert found["adapter_recall"] == 0.5
    assert found["adapter_token"] == 0.5
    assert found["adapter_outside"] == 1.0
    assert found["outside_leak"] == 0.0
    assert found["questions"] == 2 and found["skills"] == 2
    assert "| adapter | 0.500 |" in table(found, ("none", "adapter"))


def test_the_interval_holds_the_share_and_narrows() -> None:
    few = [mark("adapter", str(i), i % 2 == 0) for i in range(10)]
    many = [mark("adapter", str(i), i % 2 == 0) for i in range(1000)]
    (low, high), (low2, high2) = interval(few), interval(many)
    assert low <= 0.5 <= high and low2 <= 0.5 <= high2
    assert high2 - low2 < high - low
    assert interval([]) == (0.0, 0.0)


def test_generated_cases_are_reproducible_and_without_chat() -> None:
    cases = generated_cases("test", 12, 3)
    assert cases == generated_cases("test", 12, 3)
    assert all(a.kind != "chat" for case in cases for a in case.asks)


def test_generated_cases_that_are_called_the_same_are_counted_apart() -> None:
    cases = generated_cases("test", 240, 7)
    texts = [case.skill.text for case in cases]
    assert len({case.skill.name for case in cases}) == len(cases) == len(set(texts))
    renamed = [case for case in cases if f"name: {case.skill.name}\n" not in case.skill.text]
    assert len(renamed) in range(1, 40)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROW = {
    "id": "graft",
    "text": "---\nname: graft\ndescription: Grafting.\n---\n\nRun `make t`.\n",
    "queries": [
        {"kind": "command", "ask": "Test it.", "expect": "make t", "match": "exact"},
        {"kind": "outside", "ask": "Logo?", "expect": "", "match": "exact"},
    ],
}


def test_handwritten_file(tmp_path: Path) -> None:
    (case,) = handwritten_cases(write(tmp_path / "set.jsonl", ROW))
    assert case.skill.name == "graft"
    assert [a.question.answer for a in case.asks] == ["make t", UNKNOWN]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "x"}, "'text'"),
        ({**ROW, "queries": [{**ROW["queries"][0], "match": "fuzzy"}]}, "fuzzy"),  # type: ignore[dict-item]
        (
            {**ROW, "queries": [{"kind": "apply", "ask": "?", "expect": "(", "match": "regex"}]},
            "unterminated",
        ),
        ([1, 2], "set.jsonl:2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, reason: str) -> None:
    with pytest.raises(ProjectError) as caught:
        handwritten_cases(write(tmp_path / "set.jsonl", ROW, row))
    assert "set.jsonl:2" in str(caught.value) and reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_or_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="no skills in it"):
        handwritten_cases(write(tmp_path / "empty.jsonl"))
    with pytest.raises(ProjectError, match="cannot be read"):
        handwritten_cases(tmp_path / "none.jsonl")
