"""Frames and commands drawn at random keep what they frame; the test split's stay held out."""

from __future__ import annotations

import itertools
import random

import pytest

from skillc_compiler.data import document, facts, generate
from skillc_compiler.data.commands import wild_shape
from skillc_compiler.data.forms import Forms, thinned
from skillc_compiler.data.generate import Generator, Shape
from skillc_compiler.data.lexicon import load
from skillc_compiler.data.words import Words


@pytest.fixture
def forms() -> Forms:
    return Forms(load("train").fillers, random.Random(1))


def test_a_line_states_its_phrase_and_its_value_once(forms: Forms) -> None:
    seen = set()
    for _ in range(500):
        line = forms.line("Restart The Queue", "xq --now")
        assert line.count("xq --now") == 1 and line.lower().count("restart the queue") == 1
        assert line == line.strip("\n") and not any(row.endswith(" ") for row in line.split("\n"))
        seen.add(line)
    assert len(seen) > 450


def test_questions_keep_their_phrase(forms: Forms) -> None:
    assert all("restart the queue" in forms.ask("restart the queue").lower() for _ in range(200))
    assert all("Restart?" in forms.around("Restart?") for _ in range(200))


def test_no_frame_of_the_test_split_is_drawn(forms: Forms) -> None:
    marks = ("=>", "- [ ]", "+ ")
    lines = [forms.line("restart the queue", "xq") for _ in range(3000)]
    assert not [line for line in lines if line.startswith(marks) or "=>" in line]
    asks = {forms.ask("@") for _ in range(3000)} | {forms.around("@") for _ in range(3000)}
    held = [frame.format(say="@", Say="@") for frame in facts._ASKS["test"]]
    held += [frame.format(ask="@") for frame in generate._DECORATIONS["test"] if frame != "{ask}"]
    assert not asks & set(held)


def test_thinned_phrases_lack_words_and_keep_their_order() -> None:
    rng = random.Random(2)
    phrase = "start the queue again after a crash"
    found = {thinned(phrase, rng, 0.3) for _ in range(50)}
    assert len(found) > 20
    for each in found:
        words = iter(phrase.split())
        assert all(word in words for word in each.split()) and len(each.split()) > 1
    assert thinned("restart", rng, 1.0) == "restart"


def test_only_training_is_free_of_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> str:
        raise AssertionError("drawn at random outside of training")

    for module, name in ((document, "Forms"), (facts, "wild_shape")):
        monkeypatch.setattr(module, name, refuse)
    for method in ("line", "ask", "around"):
        monkeypatch.setattr(Forms, method, refuse)
    for split in ("val", "test"):
        assert len(list(itertools.islice(Generator(split, 1), 40))) == 40
    with pytest.raises(AssertionError, match="outside of training"):
        list(itertools.islice(Generator("train", 1), 40))


def test_wild_commands_of_one_project_begin_alike_and_never_repeat() -> None:
    rng = random.Random(3)
    lexicon = load("train")
    words = Words(rng, lexicon.nouns, lexicon.tools)
    for _ in range(50):
        shape = wild_shape(words, rng)
        found = [shape(words, rng, "name", " --flag") for _ in range(8)]
        assert len({each.split(" ")[0] for each in found}) == 1
        assert len(set(found)) > 1
        assert all(each == each.strip() and "\n" not in each and "`" not in each for each in found)


def test_strings_from_elsewhere_become_commands() -> None:
    strings = ("zz one", "zz two", "zz three")
    samples = itertools.islice(Generator("train", 4, Shape(strings=strings)), 100)
    values = {fact.value for sample in samples for fact in sample.facts}
    assert set(strings) <= values
