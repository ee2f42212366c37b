"""The texts that suites are made of: documents, variants, needles, padding."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

import pytest

from skillc.evaluate.documents import cut, middle, read_documents, sections
from skillc.evaluate.needle_text import NOISE, STRINGS, many_case, number_case, string_case
from skillc.evaluate.sweep import padded
from skillc.evaluate.variants import VARIANTS, Source
from skillc_compiler.data.generate import Generator
from skillc_compiler.errors import ProjectError
from skillc_compiler.skill import parse_skill

TEXT = """\
---
name: graft
description: Grafting.
---

# Graft

Intro.

## One

Run `make one`.

```sh
# not a heading
make two
```

## Two

The end.
"""


def words(text: str) -> int:
    return len(text.split())


def sources(count: int) -> list[Source]:
    generator = Generator("test", 5)
    return [Source(generator.sample(), "test") for _ in range(count)]


def test_sections_join_to_the_text_and_fences_hold_no_headings() -> None:
    parts = sections(TEXT)
    assert "".join(part.heading + part.body for part in parts) == TEXT
    assert [part.heading.strip() for part in parts] == ["", "# Graft", "## One", "## Two"]


def test_a_text_is_halved_where_a_section_begins() -> None:
    first, rest = middle(TEXT)
    assert first + rest == TEXT
    assert rest.startswith("## One")
    first, rest = middle("one\ntwo\nthree\nfour\n")
    assert (first, rest) == ("one\ntwo\n", "three\nfour\n")


def test_a_long_text_is_cut_after_a_line() -> None:
    skill = parse_skill(TEXT.encode(), folder="graft")
    letters = dict(enumerate(skill.text))
    short = cut(
        skill, 60, lambda text: list(range(len(text))), lambda ids: "".join(letters[i] for i in ids)
    )
    assert skill.text.startswith(short.text) and len(short.text) <= 60
    assert short.text.endswith("\n") and short.hash != skill.hash
    assert cut(skill, 10**6, lambda text: [0], lambda ids: "") is skill


def test_documents_come_from_plain_and_compressed_lines(tmp_path: Path) -> None:
    rows = [{"text": TEXT.replace("graft", f"graft-{n}")} for n in range(10)]
    rows[3] = {"text": "no frontmatter"}
    data = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(data, "utf-8")
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(data.encode()))
    names = [skill.name for skill in read_documents(tmp_path / "a.jsonl", 3)]
    assert names == ["graft-0", "graft-4", "graft-7"]
    assert names == [skill.name for skill in read_documents(tmp_path / "a.jsonl.xz", 3)]
    assert len(read_documents(tmp_path / "a.jsonl", 100)) == 9


@pytest.mark.parametrize("data", [b"{}\n", b"[1]\n", b"not json\n", b"\xff\n"])
def test_documents_that_cannot_be_read_are_one_line(tmp_path: Path, data: bytes) -> None:
    for name in ("bad.jsonl", "bad.jsonl.xz"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ProjectError, match="JSON lines") as caught:
            read_documents(tmp_path / name, 1)
        assert "\n" not in str(caught.value)
    (tmp_path / "none.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(ProjectError, match="no SKILL"):
        read_documents(tmp_path / "none.jsonl", 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_keep_every_value_and_parse(name: str) -> None:
    changed = 0
    for number, source in enumerate(sources(60)):
        text = VARIANTS[name](source, random.Random(number))
        again = VARIANTS[name](source, random.Random(number))
        assert text == again
        skill = parse_skill(text.encode(), folder=source.sample.name)
        assert skill.name == source.sample.name
        for fact in source.sample.facts:
            if fact.kind != "apply" and fact.value in source.sample.text:
                assert fact.value in text, (name, fact)
        changed += text != source.sample.text
    assert changed >= 30


def test_a_paraphrase_says_it_in_other_words() -> None:
    kept = said = 0
    for number, source in enumerate(sources(60)):
        text = VARIANTS["paraphrase"](source, random.Random(number))
        for fact in source.sample.facts:
            if fact.kind in ("literal", "never"):
                said += 1
                kept += fact.say in text
    assert said > 20 and kept <= said // 4


def test_plaintext_has_no_markdown_and_reorder_the_same_lines() -> None:
    for number, source in enumerate(sources(60)):
        plain = VARIANTS["plaintext"](source, random.Random(number))
        body = plain[len(source.front) :]
        assert "`" not in body and "**" not in body and "|---" not in body
        assert not any(line.startswith(("#", "- ", "* ", "| ")) for line in body.splitlines()) or (
            "```" in source.body
        )
        other = VARIANTS["reorder"](source, random.Random(number))
        assert sorted(filter(None, other.splitlines())) == sorted(
            filter(None, source.sample.text.splitlines())
        )


def test_a_needle_lies_at_its_depth_in_a_text_of_the_wanted_size() -> None:
    rng = random.Random(1)
    for low, high in ((32, 128), (512, 1024)):
        for depth in (0, 4, 9):
            case = number_case(rng, low, high, depth, words)
            (ask,) = case.asks
            body = case.skill.body
            needle = f"The special magic number is {ask.question.answer}."
            assert body.count(needle) == 1 and len(ask.question.answer) == 4
            assert low - words(NOISE) - 1 <= words(body) <= high
            place = body.splitlines().index(needle) / max(1, len(body.splitlines()) - 1)
            assert abs(place - depth / 9) <= (0.51 if high == 128 else 0.1)


def test_many_needles_and_strings() -> None:
    rng = random.Random(2)
    case = many_case(rng, 300, 8, words)
    assert len({ask.question.ask for ask in case.asks}) == 8
    for ask in case.asks:
        name = ask.question.ask.removeprefix("What is the magic number of the ").partition("?")[0]
        assert f"of the {name} is {ask.question.answer}." in case.skill.body
    for length in STRINGS:
        (ask,) = string_case(rng, length, 100, words).asks
        assert len(ask.question.answer) == length


def test_padding_adds_only_distractors() -> None:
    sample = Generator("val", 3).sample()
    body = sample.text.partition("\n---\n\n")[2].strip()
    for length in (400, 1500):
        text = padded(sample.text, length, words)
        assert body in text and 0.85 * length <= words(text) <= length
    assert words(padded(sample.text, 5, words)) == words(sample.text)
