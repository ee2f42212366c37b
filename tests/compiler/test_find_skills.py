"""Finding skills: order, equal names, links, and folders that are hostile or broken."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from skillc_compiler import find
from skillc_compiler.find import PROJECT_ROOTS, Found, find_skills, peek_name


def write(folder: Path, name: str | None = None) -> Path:
    """A skill in `folder`, by default named like it; returns its SKILL.md."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "SKILL.md"
    path.write_text(f"---\nname: {name or folder.name}\ndescription: d\n---\n\n# Title\n")
    return path


def names(found: list[Found]) -> list[str]:
    return [one.name for one in found]


def search(*roots: Path, allowed: tuple[Path, ...] = ()) -> tuple[list[Found], list[str]]:
    problems: list[str] = []
    found = find_skills(roots, allowed=allowed, report=problems.append)
    assert all("\n" not in problem for problem in problems)
    return found, problems


def test_roots_in_order_and_skills_by_name(tmp_path: Path) -> None:
    for i, root in enumerate(PROJECT_ROOTS):
        write(tmp_path / root / f"b{i}")
        write(tmp_path / root / f"a{i}")
    roots = [tmp_path / root for root in PROJECT_ROOTS]
    found, problems = search(*roots)
    assert names(found) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]
    assert found[2] == Found("a1", roots[1] / "a1" / "SKILL.md", roots[1])
    assert problems == []


def test_missing_roots_hold_nothing(tmp_path: Path) -> None:
    assert search(tmp_path / "none") == ([], [])
    assert find_skills([]) == []


def test_the_nearer_of_equal_names_wins(tmp_path: Path) -> None:
    near = write(tmp_path / "near" / "x")
    far = [write(tmp_path / "far" / "x"), write(tmp_path / "far" / "y", "x")]
    (found,) = find_skills([tmp_path / "near", tmp_path / "far"])
    assert (found.path, found.shadows) == (near, tuple(far))
    (found,) = find_skills([tmp_path / "far", tmp_path / "near"])
    assert (found.path, found.shadows) == (far[0], (far[1], near))


def test_equal_folders_of_other_names_are_both_found(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x", "first")
    write(tmp_path / "b" / "x", "second")
    assert names(find_skills([tmp_path])) == ["first", "second"]


def test_names_that_differ_only_in_writing_are_equal(tmp_path: Path) -> None:
    for i, name in enumerate(["caf\u00e9", "cafe\u0301", "Cafe", "CAF\u00c9"]):
        write(tmp_path / str(i), name)
    (found,) = find_skills([tmp_path])
    assert (found.name, len(found.shadows)) == ("cafe", 3)


def test_depth_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path
    for i in range(8):
        folder = folder / f"d{i}"
        write(folder)
    assert names(find_skills([tmp_path])) == [f"d{i}" for i in range(6)]


def test_skills_inside_skills_are_found_but_not_in_resources(tmp_path: Path) -> None:
    write(tmp_path / "pack")
    for inner in ("more", "assets/template", "references/r", "scripts/s"):
        write(tmp_path / "pack" / inner)
    write(tmp_path / "references" / "plain")
    assert names(find_skills([tmp_path])) == ["pack", "more", "plain"]


@pytest.mark.parametrize("name", [".git", "node_modules", ".venv", "__pycache__"])
def test_other_tools_folders_are_skipped(tmp_path: Path, name: str) -> None:
    write(tmp_path / name / "x")
    write(tmp_path / ".curated" / "y")
    assert names(find_skills([tmp_path])) == ["y"]


def test_a_root_may_be_a_skill(tmp_path: Path) -> None:
    write(tmp_path / "one")
    assert names(find_skills([tmp_path / "one"])) == ["one"]


def test_lower_case_files_count_once(tmp_path: Path) -> None:
    write(tmp_path / "a").rename(tmp_path / "a" / "skill.md")
    write(tmp_path / "b")
    (tmp_path / "b" / "skill.md").write_text("x")
    assert [one.path.name for one in find_skills([tmp_path])] == ["skill.md", "SKILL.md"]


def test_folders_without_skills_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "FOLDERS", 20)
    for i in range(50):
        write(tmp_path / "many" / f"s{i}")
        (tmp_path / "empty" / f"e{i}").mkdir(parents=True)
        (tmp_path / "skill" / f"e{i}").mkdir(parents=True)
    write(tmp_path / "skill")
    assert len(find_skills([tmp_path / "many"])) == 50
    assert names(find_skills([tmp_path / "skill"])) == ["skill"]
    found, problems = search(tmp_path / "empty", tmp_path / "many")
    assert len(found) == 50
    assert problems == [f"{tmp_path / 'empty'}: has over 20 folders without a skill; name fewer"]


def test_an_installers_links_are_followed_once(tmp_path: Path) -> None:
    real = write(tmp_path / ".agents/skills/x")
    claude = tmp_path / ".claude/skills"
    claude.mkdir(parents=True)
    (claude / "x").symlink_to("../../.agents/skills/x")
    (claude / "y").mkdir()
    (claude / "y/SKILL.md").symlink_to("../../../.agents/skills/x/SKILL.md")
    roots = [tmp_path / root for root in PROJECT_ROOTS]
    found, problems = search(*roots)
    assert [(one.name, one.path, one.shadows) for one in found] == [("x", real, ())]
    assert problems == []
    (found_by_link,) = search(claude, allowed=(tmp_path,))[0]
    assert found_by_link.path == claude / "y" / "SKILL.md"


def test_a_link_to_a_whole_root_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "x")
    (tmp_path / ".skills").symlink_to("elsewhere")
    found, problems = search(tmp_path / ".skills", tmp_path / "elsewhere")
    assert [one.path for one in found] == [tmp_path / ".skills/x/SKILL.md"]
    assert problems == []


def test_real_folders_come_before_links_to_them(tmp_path: Path) -> None:
    write(tmp_path / "deep/er/real")
    (tmp_path / "a-link").symlink_to("deep/er/real")
    assert [one.path for one in find_skills([tmp_path])] == [tmp_path / "deep/er/real/SKILL.md"]


def test_links_out_of_the_project_are_refused(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "secret")
    root = tmp_path / "project" / ".skills"
    write(root / "good")
    (root / "folder").symlink_to(outside.parent)
    (root / "file").mkdir()
    (root / "file/SKILL.md").symlink_to(outside)
    (root / "similar").symlink_to(tmp_path / "project-2")
    write(tmp_path / "project-2")
    found, problems = search(root, allowed=(tmp_path / "project",))
    assert names(found) == ["good"]
    assert sorted(problem.split(":")[0] for problem in problems) == [
        str(root / "file/SKILL.md"),
        str(root / "folder"),
        str(root / "similar"),
    ]
    found, problems = search(root, allowed=(tmp_path / "outside", tmp_path / "project-2"))
    assert (sorted(names(found)), problems) == (["good", "project-2", "secret"], [])


def test_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/SKILL.md").symlink_to("SKILL.md")
    found, problems = search(tmp_path)
    assert [one.path for one in found] == [tmp_path / "a/x/SKILL.md"]
    assert [problem.split(":")[0] for problem in problems] == [
        str(tmp_path / "gone"),
        str(tmp_path / "a/self"),
        str(tmp_path / "x/SKILL.md"),
    ]
    assert all("link leads nowhere" in problem for problem in problems)


def test_links_to_files_are_of_no_interest(tmp_path: Path) -> None:
    write(tmp_path / "root" / "x")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "root" / "README.md").symlink_to("../README.md")
    found, problems = search(tmp_path / "root")
    assert (names(found), problems) == (["x"], [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folders_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    (tmp_path / "a").chmod(0)
    found, problems = search(tmp_path)
    (tmp_path / "a").chmod(0o700)
    assert (names(found), len(problems)) == (["b"], 1)


def test_what_cannot_be_searched_is_reported_and_the_rest_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    (tmp_path / "file").write_text("x")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, problems = search(tmp_path / "file", tmp_path)
    assert names(found) == ["b"]
    assert problems == [
        f"{tmp_path}/file: cannot be searched: Not a directory; check its permissions",
        f"{tmp_path}/a: cannot be searched: Permission denied; check its permissions",
    ]


def test_files_that_cannot_be_read_are_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary/SKILL.md").write_bytes(b"---\nname: \xff\n---")
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo/SKILL.md")
    (tmp_path / "folder/SKILL.md").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/SKILL.md").touch()
    assert names(find_skills([tmp_path])) == ["binary", "empty", "fifo", "folder"]


def test_names_of_no_encoding_are_shown_safely(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"bad\xff\n")
    write(folder, "fine")
    (tmp_path / os.fsdecode(b"link\xfe")).symlink_to("nowhere")
    found, problems = search(tmp_path)
    assert names(found) == ["fine"]
    assert "link\\udcfe: link leads nowhere" in problems[0]
    (folder / "SKILL.md").write_text("---\ndescription: d\n---\n")
    assert peek_name(folder / "SKILL.md") == "bad"


def test_names_may_come_from_a_cache(tmp_path: Path) -> None:
    write(tmp_path / "x")
    (found,) = find_skills([tmp_path], name_of=lambda path: "known")
    assert found.name == "known"


@pytest.mark.slow
def test_ten_thousand_skills(tmp_path: Path) -> None:
    for i in range(10_000):
        write(tmp_path / f"s{i:05}")
    start = time.process_time()
    found = find_skills([tmp_path])
    assert time.process_time() - start < 2.0
    assert names(found) == [f"s{i:05}" for i in range(10_000)]
