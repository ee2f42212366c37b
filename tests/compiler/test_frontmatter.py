"""The YAML subset of frontmatter: what it reads, how it says no, and what hostile input costs."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from skillc_compiler.frontmatter import (
    LIMIT,
    FrontmatterError,
    parse_frontmatter,
    split_frontmatter,
)


def read(text: str) -> dict[str, str]:
    front = parse_frontmatter(text.split("\n"))
    return {key: value.text for key, value in front.values.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k: no", "no"),
        ("k: 1.10", "1.10"),
        ("k: 2024-01-02", "2024-01-02"),
        ("k: 0o17", "0o17"),
        ("k: ~", "~"),
        ("k: Use when: x", "Use when: x"),
        ("k: http://x.y:80/a", "http://x.y:80/a"),
        ("k:", ""),
        ("k: # only a comment", ""),
        ("k: C# and F#", "C# and F#"),
        ("k: a # comment", "a"),
        ("k: a\n  b\n\n  c", "a b\nc"),
        ("k: a\n  # comment\n  b", "a b"),
        ("k:\n  a\n  b", "a b"),
        ('k: "a: b # c"', "a: b # c"),
        ("k: 'it''s'", "it's"),
        ("k: 'a' # c", "a"),
        (r'k: "a\tb\u00e9\x41\U0001F600\/\"\\"', 'a\tb\u00e9A\U0001f600/"\\'),
        (r'k: "\ud83d\ude00"', "\U0001f600"),
        (r'k: "\ud83d"', "\ufffd"),
        (r'k: "\UFFFFFFFF"', "\ufffd"),
        (r'k: "C:\dir"', "C:\\dir"),
        ('k: "a\n  b\n\n  c"', "a b\nc"),
        ('k: "a\\\n  b"', "ab"),
        ("k: 'a\n  b'", "a b"),
        ('k: "a" and "b"', '"a" and "b"'),
        ("k: 'tis the season", "'tis the season"),
        ("k: |\n  a\n   b\n\n  c\n", "a\n b\n\nc\n"),
        ("k: |-\n  a\n  b\n\n", "a\nb"),
        ("k: |+\n  a\n\n", "a\n\n\n"),
        ("k: >\n  a\n  b\n\n  c\n   d\n  e", "a b\nc\n d\ne\n"),
        ("k: >-\n  a\n  b", "a b"),
        ("k: >\n\n  a", "\na\n"),
        ("k: |2\n    a\n  b", "  a\nb\n"),
        ("k: |2-\n    a", "  a"),
        ("k: |-2\n    a", "  a"),
        ("k: | # comment\n  a", "a\n"),
        ("k: |\n  # kept\n  k2: kept", "# kept\nk2: kept\n"),
        ("k: |\nj: x", ""),
        ("k: > 5 items", "> 5 items"),
        ("k: [a, 'b, c', \"d\"]", "a, b, c, d"),
        ("k: [a,\n  b,\n]", "a, b"),
        ("k: [a,, b]", "[a,, b]"),
        ("k: [a,\n  b\n]", "a, b"),
        ("k: []", ""),
        ("k: [a, [b, c]]", "[a, [b, c]]"),
        ("k: {a: b}", "{a: b}"),
        ("k: [unclosed\nj: x", "[unclosed"),
        ("k:\n- a\n- 'b'", "a, b"),
        ("k:\n  - a # c\n  - b\n    more", "a, b more"),
        ("k:\n  - name: x\n    v: y", "name: x v: y"),
        ("k: - a", "- a"),
        ("k: &anchor a", "&anchor a"),
        ("k: *alias", "*alias"),
        ("k: !!python/object:os.system x", "!!python/object:os.system x"),
        ("k: @handle", "@handle"),
        ("k: %x", "%x"),
        ("k: a\u3000b", "a\u3000b"),
        ("k: --- x", "--- x"),
    ],
)
def test_scalars(text: str, value: str) -> None:
    assert read(text)["k"] == value


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a: 1\n\n# c\nb: 2", {"a": "1", "b": "2"}),
        ("m:\n  a: 1\n  b:\n    c: 2\nd: 3", {"m.a": "1", "m.b.c": "2", "d": "3"}),
        ("m:\n\n  # c\n  a: x: y", {"m.a": "x: y"}),
        ('"quoted key": 1', {"quoted key": "1"}),
        ("'k' : 1", {"k": "1"}),
        ("<<: *base\na: 1", {"<<": "*base", "a": "1"}),
        ("description:\n  Use when: x\nname: y", {"description": "Use when: x", "name": "y"}),
        ("description: a\n  b: c", {"description": "a b: c"}),
        ("name:x\ndescription:y", {"name": "x", "description": "y"}),
        ("  a: 1\n  b: 2", {"a": "1", "b": "2"}),
        ("m:\n\ta: 1\n\tb: 2", {"m.a": "1", "m.b": "2"}),
        ("m:\na: 1", {"m": "", "a": "1"}),
        ("a: 1\na: 2", {"a": "1"}),
        ("", {}),
    ],
)
def test_structure(text: str, values: dict[str, str]) -> None:
    assert read(text) == values


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("a: 1\na: 2", "key given twice, the first counts (line 2): a"),
        ("m:\n\ta: 1", "tab in the indentation (line 2): read as two spaces"),
        ("name:x", "no space after the colon (line 1): name"),
        ('a: "x', "quote is never closed (line 1): a is read as plain text"),
        ('a: "x" y', "text after the closing quote (line 1): a is read as plain text"),
        (
            "description: a #1",
            "text after ' #' is a comment (line 1): quote description to keep it",
        ),
    ],
)
def test_warnings(text: str, warning: str) -> None:
    assert parse_frontmatter(text.split("\n")).warnings == [warning]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("just words", 1),
        ("a: 1\nwords at the margin", 2),
        ("- a\n- b", 1),
        ("{a: 1}", 1),
        ("? a\n: b", 1),
        ("m:\n  a: 1\n  words", 3),
        ("a: 1\n: b", 2),
        ('"a": 1\n"b', 2),
    ],
)
def test_errors_name_the_line(text: str, line: int) -> None:
    with pytest.raises(FrontmatterError) as error:
        parse_frontmatter(text.split("\n"), first_line=11)
    assert error.value.line == line + 10
    assert "\n" not in str(error.value)


def test_split() -> None:
    lines, first, body = split_frontmatter("\n---  \na: |\n  --- inside\n---\nbody\n---\nmore")
    assert (lines, first, body) == (["a: |", "  --- inside"], 3, "body\n---\nmore")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "empty"),
        ("\n \n", 1, "empty"),
        ("\n# Title", 2, "no frontmatter"),
        ("----\na: 1\n---", 1, "no frontmatter"),
        ("---\na: 1\n", 1, "never closed"),
        ("---\na: 1\n ---\n", 1, "never closed"),
        ("---\n" + "a: 1\n" * 4000 + "---\n", 3278, "over 16384 bytes"),
    ],
)
def test_split_errors(text: str, line: int, what: str) -> None:
    with pytest.raises(FrontmatterError, match=what) as error:
        split_frontmatter(text)
    assert error.value.line == line


def bomb() -> str:
    levels = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    levels += [
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join(levels)


def fill(piece: str) -> str:
    return piece * (LIMIT // len(piece.encode()))


HOSTILE = {
    "bomb": bomb(),
    "brackets": "k: " + "[" * 5000,
    "braces": "k: " + fill("{"),
    "closed brackets": "k: " + "[" * 8000 + "]" * 8000,
    "commas": "k: [" + fill(",") + "]",
    "spaces in a list": "k: [a" + fill(" ") + "[",
    "deep maps": "\n".join(" " * i + "k:" for i in range(180)),
    "many keys": "\n".join(f"k{i}: x" for i in range(1600)),
    "equal keys": fill("k: x\n"),
    "open quotes": fill('k: "\n'),
    "nested open quotes": "k:\n" + fill(' k: "\n'),
    "stairs of quotes": "\n".join(" " * i + 'k: "' for i in range(170)),
    "backslashes": 'k: "' + fill("\\"),
    "escapes": 'k: "' + fill("\\u") + '"',
    "single quotes": "k: '" + fill("''"),
    "colons": fill(":"),
    "colons and spaces": fill(": "),
    "spaces": "k:" + fill(" "),
    "hashes": "k: " + fill("#"),
    "comments": fill("# x\n"),
    "spaces and a hash": "k: " + fill(" ") + "#x",
    "blank lines": "k: a\n" + fill("\n"),
    "blank lines between keys": "\n\n\n\n\n".join(["k: a"] * 1500),
    "blocks": fill("k: |\n"),
    "folded blanks": "k: >\n" + fill("  a\n\n"),
    "items": "k:\n" + fill("- a\n"),
    "empty items": "k:\n" + fill("-\n"),
    "dashes": fill("-"),
    "tabs": fill("\t"),
    "tabs and keys": fill("\tk:\n"),
    "one long key": fill("k") + ":",
    "open list over lines": "k: [\n" + fill(" [\n"),
    "nulls": "k: " + fill("\0"),
    "wide": "k: " + fill("\U0001f600"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_cheap(name: str) -> None:
    lines = HOSTILE[name].split("\n")

    def once() -> float:
        start = time.process_time()
        try:
            parse_frontmatter(lines)
        except FrontmatterError as error:
            assert "\n" not in str(error)
        return time.process_time() - start

    assert min(once() for _ in range(3)) < 0.1


def test_nothing_is_expanded() -> None:
    values = read(HOSTILE["bomb"])
    assert sum(map(len, values.values())) < len(HOSTILE["bomb"])


KEYS = st.from_regex(r"[a-z][a-z_-]{0,8}", fullmatch=True)
TEXTS = st.text("ab 1é漢\U0001f600:#'\"\\-[]{},&*!|>%@?~\n", max_size=40)


@settings(deadline=None)
@given(
    st.dictionaries(KEYS, TEXTS | st.dictionaries(KEYS, TEXTS, min_size=1), min_size=1),
    st.sampled_from([None, "'", '"', "|", ">"]),
    st.sampled_from([20, 80, 10000]),
)
@example({"a": " 111111111111111111 1"}, ">", 20)
def test_reads_what_a_full_yaml_library_writes(
    data: dict[str, str | dict[str, str]], style: str | None, width: int
) -> None:
    yaml = pytest.importorskip("yaml")
    assume(not any(isinstance(data.get(key), dict) for key in ("name", "description")))
    text = yaml.dump(data, default_style=style, width=width, allow_unicode=True)
    expected: dict[str, str] = {}
    # Its writer folds lines that begin with a space, which its reader, like ours, does not undo.
    for key, value in yaml.safe_load(text).items():
        inner = value.items() if isinstance(value, dict) else ()
        expected |= {f"{key}.{k}": v for k, v in inner} if inner else {key: str(value)}
    assert read(text) == expected
