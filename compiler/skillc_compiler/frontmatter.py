"""The YAML that skills are written in, and no more: every value stays the string it was typed as.

Anchors, aliases, tags and merge keys are plain text, flow maps are kept as typed, nested maps
become dotted keys, lists become one string. Nothing here recurses, and the input is at most `LIMIT`
bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from skillc_compiler.scalars import flow_list, fold_block, fold_plain, quoted

LIMIT = 16 * 1024
"""Most bytes of frontmatter that are read."""

TEXT_KEYS = ("name", "description")
"""Keys whose value is text however it is indented, so a colon in it never makes it a map."""

_BLOCK = re.compile(r"([|>])(?:([1-9])([+-])?|([+-])([1-9])?)?(?:\s+#.*)?")
_BARE = re.compile(r"(name|description):(\S.*)")


class FrontmatterError(ValueError):
    """The frontmatter cannot be read; `line` counts from 1, `what` and `todo` are one line each."""

    def __init__(self, line: int, what: str, todo: str) -> None:
        super().__init__(f"line {line}: {what}; {todo}")
        self.line, self.what, self.todo = line, what, todo


@dataclass(frozen=True, slots=True)
class Value:
    """One scalar and the line its key is on, counted from 1."""

    text: str
    line: int


@dataclass(slots=True)
class Frontmatter:
    """Values by dotted key in file order, and warnings as "reason (line N): detail"."""

    values: dict[str, Value] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def split_frontmatter(text: str) -> tuple[list[str], int, str]:
    """Return the frontmatter's lines, the number of the first of them, and the body after it.

    `text` has LF line ends. Raises FrontmatterError when it has none, or more than LIMIT bytes.
    """
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    if start == len(lines):
        raise FrontmatterError(1, "the file is empty", "write a name, a description and a body")
    if lines[start].rstrip() != "---":
        raise FrontmatterError(
            start + 1, "no frontmatter", "start with '---', 'name:', 'description:' and '---'"
        )
    size = 0
    for end in range(start + 1, len(lines)):
        if lines[end].rstrip() == "---":
            return lines[start + 1 : end], start + 2, "\n".join(lines[end + 1 :])
        size += len(lines[end].encode()) + 1
        if size > LIMIT:
            raise FrontmatterError(
                end + 1, f"frontmatter is over {LIMIT} bytes", "move text into the body"
            )
    raise FrontmatterError(
        start + 1, "frontmatter is never closed", "add a line '---' above the body"
    )


def parse_frontmatter(lines: Sequence[str], first_line: int = 1) -> Frontmatter:
    """Read `lines` of frontmatter, the first of which is line `first_line` of its file.

    Raises FrontmatterError at a line that is no 'key: value', comment, or part of a value.
    """
    reader = _Reader(lines, first_line)
    reader.read()
    return reader.result


class _Reader:
    """Walks the lines once; `parents` holds the open maps as (indent, dotted prefix)."""

    def __init__(self, lines: Sequence[str], first_line: int) -> None:
        self.result = Frontmatter()
        self.lines = [self._untab(line, first_line + i) for i, line in enumerate(lines)]
        self.first_line = first_line
        self.at = 0
        self.parents: list[tuple[int, str]] = []

    def _untab(self, line: str, number: int) -> str:
        content = line.lstrip(" \t")
        lead = line[: len(line) - len(content)]
        if "\t" in lead and content:
            self._warn("tab in the indentation", number, "read as two spaces")
        return lead.replace("\t", "  ") + content.rstrip()

    def _warn(self, reason: str, line: int, detail: str) -> None:
        self.result.warnings.append(f"{reason} (line {line}): {detail}")

    def read(self) -> None:
        while self.at < len(self.lines):
            line = self.lines[self.at]
            content = line.lstrip()
            if content and content[0] != "#" and line != "...":
                self._entry(len(line) - len(content), content)
            else:
                self.at += 1

    def _entry(self, indent: int, content: str) -> None:
        number = self.first_line + self.at
        pair = _pair(content)
        if pair is None and (bare := _BARE.fullmatch(content)):
            pair = bare[1], bare[2]
            self._warn("no space after the colon", number, bare[1])
        if pair is None:
            raise FrontmatterError(
                number, "expected 'key: value'", "indent the line if it continues the one above"
            )
        while self.parents and indent <= self.parents[-1][0]:
            self.parents.pop()
        key = self.parents[-1][1] + pair[0] if self.parents else pair[0]
        self.at += 1
        text = self._value(key, pair[1], indent, number)
        if text is None:
            self.parents.append((indent, key + "."))
        elif key in self.result.values:
            self._warn("key given twice, the first counts", number, key)
        else:
            self.result.values[key] = Value(text, number)

    def _value(self, key: str, raw: str, indent: int, number: int) -> str | None:
        """The value that starts with `raw`, or None when a map follows."""
        if not raw or raw[0] == "#":
            content = self._below(indent)
            if _is_item(content):
                return self._items(indent)
            if not content:
                return ""
            if _pair(content) and key not in TEXT_KEYS:
                return None
            raw = content
            self.at += 1
        return self._scalar(key, raw, indent, number)

    def _scalar(self, key: str, raw: str, indent: int, number: int) -> str:
        if block := _BLOCK.fullmatch(raw):
            return self._block(block, indent)
        if raw[0] in "[{":
            return flow_list([raw, *self._flow_rest(raw, indent)])
        rest = self._rest(indent, keep_comments=raw[0] in "\"'")
        if raw[0] in "\"'":
            text, problem = quoted([raw, *rest])
            if not problem:
                return text
            self._warn(problem, number, f"{key} is read as plain text")
        text, comment = fold_plain([raw, *rest])
        if comment and key in TEXT_KEYS:
            self._warn("text after ' #' is a comment", number, f"quote {key} to keep it")
        return text

    def _below(self, indent: int) -> str:
        """Move to the next line with content; return it if it belongs to a key at `indent`."""
        at = self.at
        while at < len(self.lines) and (self.lines[at].lstrip() or "#")[0] == "#":
            at += 1
        if at == len(self.lines):
            return ""
        content = self.lines[at].lstrip()
        depth = len(self.lines[at]) - len(content)
        if depth < indent or (depth == indent and not _is_item(content)):
            return ""
        self.at = at
        return content

    def _items(self, indent: int) -> str:
        items: list[str] = []
        while content := self._below(indent):
            self.at += 1
            if content[0] == "-" and _is_item(content):
                lines = [content[1:].strip()]
                text, problem = quoted(lines) if lines[0][:1] in ('"', "'") else ("", "plain")
                items.append(fold_plain(lines)[0] if problem else text)
            else:
                items[-1] += " " + content
        return ", ".join(item.strip() for item in items)

    def _rest(self, indent: int, *, keep_comments: bool) -> list[str]:
        """The more indented lines that continue a scalar, stripped, without trailing blanks."""
        rest: list[str] = []
        end = self.at
        for at in range(self.at, len(self.lines)):
            content = self.lines[at].lstrip()
            if content and len(self.lines[at]) - len(content) <= indent:
                break
            if keep_comments or content[:1] != "#":
                rest.append(content)
            if content:
                end = at + 1
        self.at = end
        while rest and not rest[-1]:
            rest.pop()
        return rest

    def _flow_rest(self, raw: str, indent: int) -> list[str]:
        rest: list[str] = []
        depth = _depth(raw)
        while depth > 0 and self.at < len(self.lines):
            content = self.lines[self.at].lstrip()
            inside = len(self.lines[self.at]) - len(content) > indent
            if content and not inside and content[0] not in "]}":
                break
            rest.append(content)
            depth += _depth(content)
            self.at += 1
        return rest

    def _block(self, header: re.Match[str], indent: int) -> str:
        lines: list[str] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line and len(line) - len(line.lstrip()) <= indent:
                break
            lines.append(line)
            self.at += 1
        given = header[2] or header[5]
        first = next((line for line in lines if line), "")
        depth = indent + int(given) if given else len(first) - len(first.lstrip())
        cut = [line[min(depth, len(line) - len(line.lstrip())) :] for line in lines]
        return fold_block(cut, folded=header[1] == ">", chomp=header[3] or header[4] or "")


def _pair(content: str) -> tuple[str, str] | None:
    """Split 'key: rest' at the first colon that ends a key; None when there is none."""
    if content[0] in "\"'":
        close = content.find(content[0], 1)
        if close < 0 or not re.match(r"\s*:(\s|$)", content[close + 1 :]):
            return None
        return content[1:close].strip(), content[close + 1 :].lstrip()[1:].strip()
    if _is_item(content) or content[0] in "[]{},|>%@`" or content[:2] == "? ":
        return None
    colon = re.search(r":(?=\s|$)", content)
    if colon is None or not content[: colon.start()].strip():
        return None
    return content[: colon.start()].strip(), content[colon.end() :].strip()


def _is_item(content: str) -> bool:
    return content == "-" or content[:2] == "- "


def _depth(text: str) -> int:
    return text.count("[") + text.count("{") - text.count("]") - text.count("}")
