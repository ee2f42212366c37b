"""The generator: reproducible, well-formed, and with splits that share no wording."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import pytest

from skillc_compiler.data.commands import shapes
from skillc_compiler.data.generate import UNKNOWN, Generator, Question, Sample, Shape
from skillc_compiler.data.lexicon import SPLITS, load
from skillc_compiler.data.tools import (
    DONE,
    FAILED,
    SHELL_NAMES,
    shell_call,
    slim_box,
    tool,
    tool_box,
)
from skillc_compiler.skill import parse_skill


def draw(split: str, count: int, seed: int = 1, shape: Shape | None = None) -> list[Sample]:
    return list(itertools.islice(Generator(split, seed, shape), count))


def test_same_seed_same_samples() -> None:
    assert draw("train", 20) == draw("train", 20)
    assert draw("train", 20) != draw("train", 20, seed=2)


@pytest.mark.parametrize("split", SPLITS)
def test_texts_are_canonical_skills(split: str) -> None:
    for sample in draw(split, 60):
        skill = parse_skill(sample.text.encode(), folder=sample.name)
        assert skill.text == sample.text
        assert skill.name == sample.name


@pytest.mark.parametrize("split", SPLITS)
def test_answers_stand_in_the_text(split: str) -> None:
    for sample in draw(split, 120):
        for question in sample.questions:
            if question.kind in ("command", "literal"):
                assert question.answer in sample.text
            if question.kind == "outside":
                assert question.answer == UNKNOWN


def test_every_kind_of_question_occurs() -> None:
    kinds = {q.kind for sample in draw("train", 200) for q in sample.questions}
    assert kinds == {"command", "literal", "apply", "never", "outside", "chat"}


def phrases(split: str) -> dict[str, set[str]]:
    lexicon = load(split)
    sayings = (*lexicon.literals, *lexicon.conventions, *lexicon.prohibitions)
    return {
        "say": {s for intent in lexicon.intents for s in intent.say},
        "ask": {a for intent in lexicon.intents for a in intent.ask},
        "saying": {s for saying in sayings for s in saying.say},
        "question": {a for saying in sayings for a in saying.ask},
        "outside": set(lexicon.outside),
        "filler": {*lexicon.fillers, *lexicon.sections},
    }


def test_splits_share_no_wording() -> None:
    for one, other in itertools.combinations(SPLITS, 2):
        ours, theirs = phrases(one), phrases(other)
        for kind, mine in ours.items():
            assert mine and theirs[kind], kind
            assert not mine & theirs[kind], (one, other, kind)


def test_test_split_has_its_own_command_shapes() -> None:
    assert not set(shapes("train")) & set(shapes("test"))


def shingles(text: str, size: int = 12) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def overlap(texts: Iterable[str], known: set[tuple[str, ...]]) -> float:
    """The largest share of one text's 12-word runs that stand in `known`."""
    worst = 0.0
    for text in texts:
        own = shingles(text)
        worst = max(worst, len(own & known) / max(len(own), 1))
    return worst


def test_no_near_duplicates_across_splits() -> None:
    known = set().union(*(shingles(sample.text) for sample in draw("train", 1500)))
    assert overlap((sample.text for sample in draw("test", 200)), known) < 0.2
    # The measure does see repetition.
    assert overlap((sample.text for sample in draw("train", 20)), known) == 1.0


def test_a_command_with_a_tool_is_answered_by_a_call() -> None:
    shell = tool("bash", ("command",), "Run it.")
    other = tool("read", ("filePath",), "Read it.")
    question = Question("command", "Run the tests.", 'make t "x"', (other, shell))
    assert question.reply == (
        '<tool_call>\n{"name": "bash", "arguments": {"command": "make t \\"x\\""}}\n</tool_call>'
    )
    assert Question("literal", "Port?", "80", (shell,)).reply == "80"


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        load("dev")


def test_documents_grow_with_their_facts() -> None:
    short = draw("train", 30, shape=Shape(facts=(2, 2)))
    long = draw("train", 30, shape=Shape(facts=(12, 12)))
    assert sum(len(s.text) for s in long) > 2 * sum(len(s.text) for s in short)
    assert all(len(sample.facts) == 12 for sample in long)


def test_tool_boxes_hold_one_shell_and_sequels_follow_calls() -> None:
    generator = Generator("train", 2)
    closings = set()
    for sample in itertools.islice(generator, 60):
        tools = tool_box(generator.rng, 2)
        for question in generator.with_tools(sample, tools, 0.5).questions:
            names = [t["function"]["name"] for t in question.tools]
            assert len(names) == 3 and sum(name in SHELL_NAMES for name in names) == 1
            assert question.sequel is None or question.calls
            if question.sequel:
                closings.add(question.sequel[1])
    assert closings == {DONE, FAILED}


def test_the_slim_agent_is_the_one_that_init_opencode_sets_up() -> None:
    folder = Path(__file__).resolve().parents[2] / "plugin" / "opencode"
    own = resources.files("skillc_compiler.data") / "slim.json"
    assert own.read_text("utf-8") == (folder / "slim.json").read_text("utf-8")
    box = slim_box(["deploy", "audit"])
    names = [t["function"]["name"] for t in box]
    assert names == ["bash", "edit", "read", "use_skill", "write"]
    asked = box[3]["function"]["parameters"]["properties"]["name"]
    assert asked["enum"] == ["audit", "deploy"]
    assert slim_box([])[3]["function"]["parameters"]["properties"]["name"]["enum"] == []
    assert '"name": "bash"' in shell_call(box, "make")
