"""YAML scalars to strings: plain, quoted, block and flow, each given as lines without indent."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CLOSED = {
    '"': re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"(.*)', re.S),
    "'": re.compile(r"'([^']*(?:''[^']*)*)'(.*)", re.S),
}
_ESCAPE = re.compile(
    r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\n|[0abtnvfre \"/\\N_LP])|(\n+)"
)
_SINGLE = re.compile(r"(\n+)")
_NAMED = dict(
    zip('0abtnvfre "/\\N_LP', '\0\a\b\t\n\v\f\r\x1b "/\\\x85\xa0\u2028\u2029', strict=True)
)
_COMMENT = re.compile(r"(?:^|\s)#")
_FLOW_ITEM = re.compile(r"""("[^"]*"\s*|'[^']*'\s*|[^,"'\[\]{}][^,\[\]{}]*)(?:,\s*|$)""")


def fold_plain(lines: Sequence[str]) -> tuple[str, bool]:
    """Join the lines of a plain scalar; the flag says that a trailing comment was cut off."""
    kept: list[str] = []
    cut = False
    for line in lines:
        comment = _COMMENT.search(line)
        kept.append(line[: comment.start()].rstrip() if comment else line)
        cut = cut or comment is not None
    return _SINGLE.sub(_fold, "\n".join(kept)).strip(), cut


def quoted(lines: Sequence[str]) -> tuple[str, str]:
    """Decode a quoted scalar; returns its text and an empty string, or "" and what is wrong."""
    text = "\n".join(lines)
    mark = text[0]
    match = _CLOSED[mark].match(text)
    if match is None:
        return "", "quote is never closed"
    rest = match[2].strip()
    if rest and not rest.startswith("#"):
        return "", "text after the closing quote"
    if mark == "'":
        return _SINGLE.sub(_fold, match[1].replace("''", "'")), ""
    decoded = _ESCAPE.sub(lambda m: _fold(m, 2) if m[2] else _unescape(m[1]), match[1])
    # JSON writes characters beyond U+FFFF as surrogate pairs; a lone half is no character.
    return decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), ""


def fold_block(lines: Sequence[str], *, folded: bool, chomp: str) -> str:
    """Join a block scalar; `chomp` is "" (one final newline), "-" (none) or "+" (all of them)."""
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    text = _fold_lines(lines[:end]) if folded else "\n".join(lines[:end])
    if chomp == "+":
        return text + "\n" * (len(lines) - end + (1 if end else 0))
    return text if chomp == "-" or not text else text + "\n"


def flow_list(lines: Sequence[str]) -> str:
    """Join a simple flow list as "a, b"; anything nested is kept as it was typed."""
    text = fold_plain(lines)[0]
    if not (text.startswith("[") and text.endswith("]")):
        return text
    inner, items, at = text[1:-1].strip(), [], 0
    while at < len(inner):
        match = _FLOW_ITEM.match(inner, at)
        if match is None:
            return text
        item = match[1].strip()
        items.append(item[1:-1] if item[0] in "\"'" else item)
        at = match.end()
    return ", ".join(items)


def _fold(match: re.Match[str], group: int = 1) -> str:
    """One line break is a space, n of them are n - 1 line breaks."""
    breaks = len(match[group])
    return " " if breaks == 1 else "\n" * (breaks - 1)


def _fold_lines(lines: Sequence[str]) -> str:
    """Fold a '>' block: breaks beside blank or more indented lines stay."""
    out: list[str] = []
    blanks = 0
    before = ""
    for line in lines:
        if not line.strip():
            blanks += 1
            continue
        kept = line[0] in " \t" or before[:1] in (" ", "\t")
        breaks = blanks + 1 if before and kept else blanks
        out.append("\n" * breaks if breaks or not before else " ")
        out.append(line)
        before, blanks = line, 0
    return "".join(out)


def _unescape(code: str) -> str:
    if code[0] in "xuU" and len(code) > 1:
        point = int(code[1:], 16)
        return chr(point) if point <= 0x10FFFF else "\ufffd"
    return _NAMED.get(code, "")
