"""The hand-written phrases the generator draws from, divided into splits that share no wording."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

T = TypeVar("T")
SPLITS = ("train", "val", "test")
# Of every list of phrasings the last ones are never seen in training: (val, test) counts.
_HELD_SAY = (1, 2)
# Intents of the second file that mean what one of the first file means.
_TWINS = frozenset(
    (
        "dependency-audit sbom-generate image-build publish-package secret-scan db-seed logs-tail"
        " cpu-profile-remote cleanup-branches notebook-start"
    ).split()
)
_HELD_ASK = (1, 2)


@dataclass(frozen=True)
class Intent:
    """One operation: how documents call it, how users ask for it, words for its command."""

    id: str
    domain: str
    say: tuple[str, ...]
    head: tuple[str, ...]
    ask: tuple[str, ...]
    words: tuple[str, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Saying:
    """A literal, convention or prohibition: document sentences and the questions they answer."""

    id: str
    kind: str
    say: tuple[str, ...]
    ask: tuple[str, ...]
    cell: tuple[str, ...] = ()
    thing: str = "{v}"
    pattern: str = ""
    params: tuple[tuple[str, str], ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Qualifier:
    """What turns one operation into two commands that differ in one flag."""

    id: str
    say: tuple[str, ...]
    ask: tuple[str, ...]
    flag: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """Everything the generator may say in one split."""

    split: str
    intents: tuple[Intent, ...]
    qualifiers: tuple[Qualifier, ...]
    literals: tuple[Saying, ...]
    conventions: tuple[Saying, ...]
    prohibitions: tuple[Saying, ...]
    outside: tuple[str, ...]
    fillers: tuple[str, ...]
    sections: tuple[str, ...]
    descriptions: tuple[str, ...]
    intros: tuple[str, ...]
    chat: tuple[tuple[str, str], ...]
    projects: tuple[str, ...]
    tools: tuple[str, ...]
    nouns: tuple[str, ...]


@cache
def load(split: str) -> Lexicon:
    """Read the lexicon of `split` (train, val or test); phrasings are disjoint between splits."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    names = json.loads(_text("names.json"))
    more = {} if split != "train" else {row["id"]: row for row in _training_rows()}
    filler = list(_rows("filler.jsonl"))
    return Lexicon(
        split=split,
        intents=tuple(
            _intent(row, split, more)
            for part in "ab"
            for row in _rows(f"intents_{part}.jsonl")
            if row["id"] not in _TWINS
        ),
        qualifiers=tuple(_qualifier(row, split) for row in _rows("qualifiers.jsonl")),
        literals=tuple(_saying(row, split, more) for row in _rows("literals.jsonl")),
        conventions=tuple(_saying(row, split, more) for row in _rows("conventions.jsonl")),
        prohibitions=tuple(_saying(row, split, more) for row in _rows("prohibitions.jsonl")),
        outside=_slice([row["ask"] for row in _rows("outside.jsonl")], split)
        + _extra(more, {"id": "outside"}, "ask"),
        fillers=_slice([row["text"] for row in filler if row["kind"] == "sentence"], split),
        sections=_slice([row["text"] for row in filler if row["kind"] == "section"], split),
        descriptions=_slice([row["text"] for row in _rows("descriptions.jsonl")], split),
        intros=_slice([row["text"] for row in _rows("intros.jsonl")], split),
        chat=_slice([(row["ask"], row["answer"]) for row in _rows("chat.jsonl")], split),
        projects=_slice(names["projects"], split),
        tools=_slice(names["tools"], split),
        nouns=tuple(names["words"]),
    )


def _text(name: str) -> str:
    folder = resources.files("skillc_compiler.data") / "lexicon"
    return (folder / name).read_text(encoding="utf-8")


def _rows(name: str) -> Iterator[Mapping[str, Any]]:
    for line in _text(name).splitlines():
        if line.strip():
            yield json.loads(line)


def _slice(items: Sequence[T], split: str) -> tuple[T, ...]:
    """Every tenth item is validation, two of ten are test; the same cut every time."""
    wanted = {"val": (0,), "test": (1, 2)}.get(split, (3, 4, 5, 6, 7, 8, 9))
    picked = tuple(item for i, item in enumerate(items) if i % 10 in wanted)
    return picked or tuple(items)


def _phrases(items: Sequence[str], split: str, held: tuple[int, int]) -> tuple[str, ...]:
    val, test = held
    if len(items) <= val + test:
        return tuple(items)
    end = len(items) - test
    cut = {"test": items[end:], "val": items[end - val : end]}.get(split, items[: end - val])
    return tuple(cut)


def _training_rows() -> Iterator[Mapping[str, Any]]:
    """More wordings that only training uses; none is close to one of another split."""
    yield from _rows("phrases.jsonl")
    yield from _rows("sayings.jsonl")


More = Mapping[str, Mapping[str, Any]]


def _extra(more: More, row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(more.get(row["id"], {}).get(key, ()))


def _intent(row: Mapping[str, Any], split: str, more: More) -> Intent:
    heads = _phrases(row["head"], split, (0, 1)) if split != "val" else tuple(row["head"][:-1])
    return Intent(
        id=row["id"],
        domain=row["domain"],
        say=_phrases(row["say"], split, _HELD_SAY) + _extra(more, row, "say"),
        head=heads + _extra(more, row, "head"),
        ask=_phrases(row["ask"], split, _HELD_ASK) + _extra(more, row, "ask"),
        words=tuple(row["words"]),
        flags=tuple(row["flags"]),
    )


def _qualifier(row: Mapping[str, Any], split: str) -> Qualifier:
    return Qualifier(
        id=row["id"],
        say=_phrases(row["say"], split, (0, 1)) if split != "val" else tuple(row["say"][:-1]),
        ask=_phrases(row["ask"], split, (0, 1)) if split != "val" else tuple(row["ask"][:-1]),
        flag=tuple(row["flag"]),
    )


def _saying(row: Mapping[str, Any], split: str, more: More) -> Saying:
    return Saying(
        id=row["id"],
        kind=row.get("kind", "word"),
        say=_phrases(row["say"], split, _HELD_SAY) + _extra(more, row, "say"),
        ask=_phrases(row["ask"], split, _HELD_ASK) + _extra(more, row, "ask"),
        cell=tuple(row.get("cell", ())),
        thing=row.get("thing", "{v}"),
        pattern=row.get("pattern", ""),
        params=tuple(row.get("params", {}).items()),
        inputs=tuple(row.get("inputs", {}).items()),
    )
