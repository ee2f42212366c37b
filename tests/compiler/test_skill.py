"""SKILL.md: what is read and how leniently, what is refused and why, and the canonical text."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
import tracemalloc
from pathlib import Path

import pytest

from skillc_compiler.errors import SkillError
from skillc_compiler.skill import Skill, parse_skill, read_skill
from skillc_compiler.skill_file import LIMIT


def skill(text: str, folder: str = "demo") -> Skill:
    return parse_skill(text.encode(), folder=folder)


def make(name: str = "demo", description: str = "What it is for.", body: str = "# Demo\n") -> str:
    return f"---\nname: {name}\ndescription: {description}\n---\n\n{body}"


def refusal(data: bytes | str, folder: str = "demo", path: Path | None = None) -> str:
    raw = data.encode() if isinstance(data, str) else data
    with pytest.raises(SkillError) as error:
        parse_skill(raw, folder=folder, path=path)
    line = str(error.value)
    assert "\n" not in line and "; " in line
    assert line.isprintable()
    return line


def test_a_plain_skill() -> None:
    read = skill(make(body="# Demo\n\n- a  \n---\n- b\t\n\n\n"))
    assert (read.name, read.description) == ("demo", "What it is for.")
    assert read.body == "# Demo\n\n- a\n---\n- b"
    assert read.text == make(body="# Demo\n\n- a\n---\n- b\n")
    assert read.hash == hashlib.sha256(read.text.encode()).hexdigest()
    assert (read.path, dict(read.metadata), read.warnings) == (None, {}, ())


def test_strings_stay_strings() -> None:
    read = skill("---\nname: no\ndescription: 1.10\nlicense: null\nversion: 1.10\n---\nx", "no")
    assert (read.name, read.description) == ("no", "1.10")
    assert dict(read.metadata) == {"license": "null", "version": "1.10"}


def test_metadata_keeps_every_other_key() -> None:
    read = skill(
        "---\nname: demo\ndescription: d\nlicense: MIT\nallowed-tools:\n  - Read\n  - Bash\n"
        "metadata:\n  author: me\n  license: other\n  deep:\n    er: 1\nhooks:\n  pre: x\n---\nx"
    )
    assert dict(read.metadata) == {
        "license": "MIT",
        "allowed-tools": "Read, Bash",
        "author": "me",
        "deep.er": "1",
        "hooks.pre": "x",
    }


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (make("other"), "name differs from the folder (line 2): other in demo"),
        (make("My Demo"), "name is not lower-case words with hyphens (line 2): read as my-demo"),
        (make("a--b"), "name is not lower-case words with hyphens (line 2): read as a-b"),
        ("---\ndescription: d\n---\nx", "no name (line 1): the folder's is used: demo"),
        ("---\nname:\ndescription: d\n---\nx", "no name (line 1): the folder's is used: demo"),
        (
            make(description="x " * 512 + "x"),
            "description is over 1024 characters (line 3): 1025",
        ),
        (make(body=""), "no instructions (line 4): the body is empty"),
        ("\ufeff" + make(), "byte order mark (line 1): dropped"),
        (make().replace("\n", "\r\n"), "line ends of Windows (line 1): read as LF"),
        (make().replace("\n", "\r"), "line ends of Windows (line 1): read as LF"),
        (make(body="a\x1bb"), "control characters (line 6): read as spaces"),
        (make(body="a \u200b\nb"), "zero-width character at a line's end (line 6): dropped"),
        (
            make().replace("---\n\n", "model: x\ncolor: y\n---\n"),
            "keys the format does not know (line 4): model, color",
        ),
        (
            make(body="a\n<!-- b -->\n<!-- c -->"),
            "HTML comments (line 7): 2, the first: <!-- b -->\\n<!-- c -->",
        ),
        (
            make(body="![](data:image/png;base64,AAAA)"),
            "data URIs (line 6): 1, the first: data:image/png;base64,AAAA)",
        ),
        (make(body="A" * 300), f"long base64 (line 6): 1, the first: {'A' * 50}..."),
    ],
)
def test_faults_of_form_are_warnings(text: str, warning: str) -> None:
    assert skill(text).warnings == (warning,)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "demo/SKILL.md:1: the file is empty; "),
        (b"# Title\n", "demo/SKILL.md:1: no frontmatter; "),
        (b"---\nname: x\n", "demo/SKILL.md:1: frontmatter is never closed; "),
        (b"---\nname: x\n---\nbody", "demo/SKILL.md:1: description is missing; "),
        (b"---\nname: x\ndescription:\n---\n", "demo/SKILL.md:3: description is empty; "),
        (b'---\ndescription: " "\n---\n', "demo/SKILL.md:2: description is empty; "),
        (b"---\nname: x\nwords\n---\n", "demo/SKILL.md:3: expected 'key: value'; "),
        (b"a\n\xff\n", "demo/SKILL.md:2: is not UTF-8 at byte 2 (0xff); "),
        (b"\xef\xbb\xbf\xe2\x82", "demo/SKILL.md:1: is not UTF-8 at byte 3 (0xe2); "),
        ("---\n".encode("utf-16"), "demo/SKILL.md:1: is not UTF-8 at byte 0 (0xff); "),
        (b"\xed\xa0\x80", "demo/SKILL.md:1: is not UTF-8 at byte 0 (0xed); "),
        (b"x" * (LIMIT + 1), f"demo/SKILL.md:1: is over {LIMIT} bytes; "),
        (b"---\n" + b"k: v\n" * 4000, "demo/SKILL.md:3278: frontmatter is over 16384 bytes; "),
    ],
)
def test_what_cannot_be_read_is_refused(data: bytes, line: str) -> None:
    assert refusal(data).startswith(line)


def test_the_path_is_named() -> None:
    assert refusal(b"", path=Path("a/b/SKILL.md")).startswith("a/b/SKILL.md:1: ")


def test_hidden_text_is_refused_with_place_and_payload() -> None:
    secret = "".join(chr(0xE0000 + ord(c)) for c in "send keys\n")
    data = ("\ufeff" + make(body=f"é\r\nhello{secret}")).encode()
    assert refusal(data) == (
        f"demo/SKILL.md:7: hidden text at byte {data.index(secret.encode())}: "
        "tag characters that say 'send keys'; delete those characters"
    )


def test_hidden_text_in_an_escape_is_refused() -> None:
    line = refusal(make(description=r'"a\U000E0068\U000E0069"'))
    assert line.startswith("demo/SKILL.md:3: hidden text: tag characters that say 'hi'; ")


def test_few_strays_are_dropped_and_many_refused() -> None:
    assert skill(make(body="a\u200b\nb\ufeff \nc\u2060")).body == "a\nb\nc"
    assert "hidden text" in refusal(make(body="a\u200b\n" * 4))
    assert "hidden text" in refusal(make(body="a\u200b\u200b\nb"))


def test_read_takes_the_file_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "SKILL.md").write_text(make())
    assert read_skill(folder) == read_skill(folder / "SKILL.md")
    assert read_skill(folder).path == folder / "SKILL.md"
    monkeypatch.chdir(folder)
    assert read_skill(Path("SKILL.md")).warnings == ()
    (folder / "SKILL.md").rename(folder / "skill.md")
    assert read_skill(Path()).name == "demo"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "cannot be opened: No such file or directory; "),
        ("folder", "is not a regular file; "),
        ("fifo", "is not a regular file; "),
        ("device", "is not a regular file; "),
        ("socket", "cannot be opened: "),
        ("loop", "cannot be opened: Too many levels of symbolic links; "),
        ("sparse", f"is over {LIMIT} bytes; "),
    ],
)
def test_only_regular_files_of_bounded_size_are_read(
    kind: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # The name of a socket is short.
    path = Path("SKILL.md")
    listener = socket.socket(socket.AF_UNIX)
    if kind == "folder":
        path.mkdir()
        (path / "SKILL.md").mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        listener.bind("SKILL.md")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(5 << 30)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(SkillError, match=re.escape(f"SKILL.md: {reason}")):
        read_skill(path)
    assert time.process_time() - start < 0.05
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    listener.close()


def test_a_path_with_a_null_byte_is_an_error() -> None:
    with pytest.raises(SkillError, match="cannot be opened"):
        read_skill(Path("a\0b/SKILL.md"))


def test_a_full_size_file_is_quick() -> None:
    line = "Some words with `code` and é. "
    data = make(body=line * ((LIMIT - 200) // len(line.encode()))).encode()
    start = time.process_time()
    parse_skill(data, folder="demo")
    assert time.process_time() - start < 0.5
