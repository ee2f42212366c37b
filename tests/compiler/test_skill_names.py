"""Names of skills: safe in a path whatever the file says, and the same from its head alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skillc_compiler.find import peek_name
from skillc_compiler.skill import Skill, parse_skill, read_skill
from skillc_compiler.skill_file import NAME

TRAVERSALS = [
    "..",
    ".",
    "../..",
    "../../etc/passwd",
    "a/../b",
    "a/b",
    "/x",
    "/etc",
    "//x",
    "\\x",
    "C:\\",
    "C:\\Windows\\System32",
    "~",
    "~/x",
    "~root",
    "$HOME",
    "$(reboot)",
    "`reboot`",
    "x;reboot",
    "x\\0y",
    "x\0y",
    "x.",
    "x ",
    ".hidden",
    "-rf",
    "--help",
    "x" * 255,
    "x" * 5000,
    "%2e%2e%2f",
    "a\tb",
    "CON",
    "Name",
    "NAME",
    "na\u0308me",
    "n\u00e4me",
    "ｎａｍｅ",
    "名前",
    "\U0001f600",
    "_",
    "---",
]


def named(name: str, folder: str = "demo") -> Skill:
    text = f"---\nname: {name}\ndescription: d\n---\n\nbody\n"
    return parse_skill(text.encode(), folder=folder)


@pytest.mark.parametrize("name", TRAVERSALS)
def test_names_are_safe_in_a_path(name: str, tmp_path: Path) -> None:
    for read in (
        named(name),
        parse_skill(b"---\ndescription: d\n---\nx", folder=name),
        named(name, name),
    ):
        assert NAME.fullmatch(read.name) and len(read.name) <= 64
        assert (tmp_path / read.name).resolve().parent == tmp_path.resolve()


def test_names_in_other_scripts_differ() -> None:
    names = {named(name, name).name for name in ("名前", "技能", "навык")}
    assert len(names) == 3
    assert all(re.fullmatch("skill-[0-9a-f]{8}", name) for name in names)
    assert named("名前", "notes").name == "notes"


NAMES = ["demo", "'demo'", '"Demo Two"', "demo # c", "demo\n  more", "", "x" * 70, "a\x07b", "名前"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_head_alone_gives_the_same_name(name: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "SKILL.md"
    path.parent.mkdir()
    for head in ("", "license: MIT\n", "metadata:\n  name: inner\n", "\n"):
        text = f"---\n{head}name: {name}\ndescription: d\n---\nname: body\n"
        path.write_bytes(text.replace("\n", end).encode())
        assert peek_name(path) == read_skill(path).name
