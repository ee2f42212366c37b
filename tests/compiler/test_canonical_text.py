"""The canonical text: equal for equal meaning, and unchanged by reading it again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillc_compiler.errors import SkillError
from skillc_compiler.skill import Skill, parse_skill


def skill(text: str, folder: str = "demo") -> Skill:
    return parse_skill(text.encode(), folder=folder)


def make(name: str = "demo", description: str = "What it is for.", body: str = "# Demo\n") -> str:
    return f"---\nname: {name}\ndescription: {description}\n---\n\n{body}"


@pytest.mark.parametrize(
    "variant",
    [
        make().replace("\n", "\r\n"),
        "\ufeff" + make(),
        "\n\n" + make(),
        make(body="\n\n# Demo  \n\n\n"),
        make().replace("What it is for.", '"What it is for."'),
        make().replace("What it is for.", ">\n  What it\n  is for."),
        make().replace("name: demo\n", ""),
        make().replace("---\n\n", "license: MIT\n---\n"),
    ],
)
def test_equal_meaning_has_equal_hash(variant: str) -> None:
    assert skill(variant).hash == skill(make()).hash


def test_composed_and_decomposed_are_one() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    texts = [make(description=text, body=text) for text in (composed, decomposed)]
    texts.append(make(description=r'"cafe\u0301"', body=composed))
    assert len({skill(text).hash for text in texts}) == 1


@pytest.mark.parametrize(
    "description",
    [
        "Use when: x",
        'say "hi"',
        '"a" and "b"',
        "'tis",
        "a # b",
        "# a",
        "> a",
        ">",
        "|",
        "- a",
        "-",
        "[a]",
        "{a: b}",
        "&a *b !c",
        "a\\b",
        "@x",
        "\u3000a\u3000b",
        "---",
        "null",
    ],
)
def test_canonical_text_keeps_any_description(description: str) -> None:
    first = skill(make(description=json.dumps(description)))
    assert first.description == description.strip()
    assert_stable(first)


def assert_stable(first: Skill) -> None:
    again = parse_skill(first.text.encode(), folder=first.name)
    assert (again.text, again.hash) == (first.text, first.hash)
    assert (again.name, again.description, again.body) == (
        first.name,
        first.description,
        first.body,
    )


WORDS = ["---", "name: x", "description: ", "metadata:", "B: ", "- ", "<!--", "\\n", "\\u0301"]
UNUSUAL = "\r\x00\x07\x85\u2028\u3000\u037e\u212b\u0301\ufe0f\u200b\u200d\u0645\u064b漢"
PIECES = st.sampled_from(WORDS) | st.sampled_from("\n\n \tae#\"'\\>|[" + UNUSUAL)
ANY = st.lists(PIECES | st.characters(exclude_categories=["Cs"]), max_size=40).map("".join)


@settings(deadline=None, max_examples=300)
@given(ANY, ANY, ANY)
def test_reading_the_canonical_text_again_changes_nothing(name: str, extra: str, body: str) -> None:
    text = f"---\nname: {name}\ndescription: {extra}\n---\n{body}"
    try:
        first = skill(text)
    except SkillError as error:
        assert "\n" not in str(error)
        return
    assert_stable(first)


@settings(deadline=None)
@given(st.binary(max_size=300) | ANY.map(str.encode))
def test_no_input_crashes_the_reader(data: bytes) -> None:
    for whole in (data, b"---\ndescription: x\n" + data, b"---\ndescription: x\n---\n" + data):
        try:
            assert_stable(parse_skill(whole, folder="demo"))
        except SkillError as error:
            assert str(error).isprintable()


def test_hidden_text_that_only_the_normal_form_shows_is_refused() -> None:
    text = make(body="q\u0301\u064b\u200cx")
    with pytest.raises(SkillError, match=r"hidden text: .* that say 'U\+200C'; "):
        skill(text)
