"""Projects are found where they are, and settings say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.plugin.project import Run, write_skill

from skillc.project import Project
from skillc.settings import SOURCES, TEMPLATE, Settings, read_settings
from skillc_compiler.errors import ProjectError
from skillc_compiler.find import PROJECT_ROOTS


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    folder = tmp_path / "bare"
    (folder / ".git").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "marker", ["skillc.toml", "skillc.lock", ".skills/", "pyproject.toml [tool.skillc]"]
)
def test_each_marker_makes_a_project(bare: Path, marker: str) -> None:
    if marker.endswith("/"):
        (bare / marker).mkdir()
    else:
        name, _, text = marker.partition(" ")
        (bare / name).write_text(f"{text}\n", "utf-8")
    inner = bare / "a" / "b"
    inner.mkdir(parents=True)
    assert Project.find(inner).root == bare


def test_a_plain_pyproject_is_no_project(bare: Path) -> None:
    (bare / "pyproject.toml").write_text("[tool.other]\n", "utf-8")
    with pytest.raises(ProjectError, match="no project in"):
        Project.find(bare)


def test_the_search_stops_at_the_git_root(root: Path) -> None:
    inner = root / "vendor" / "thing"
    (inner / ".git").mkdir(parents=True)
    with pytest.raises(ProjectError, match="no project in"):
        Project.find(inner)


def test_the_nearest_project_wins(root: Path) -> None:
    inner = root / "packages" / "one"
    (inner / ".skills").mkdir(parents=True)
    assert Project.find(inner).root == inner
    assert Project.find(inner.parent).root == root


def test_defaults(bare: Path) -> None:
    assert read_settings(bare) == Settings("nano", 32, SOURCES)
    assert SOURCES == PROJECT_ROOTS


def test_the_template_says_the_defaults(bare: Path) -> None:
    (bare / "skillc.toml").write_text(TEMPLATE, "utf-8")
    assert read_settings(bare) == Settings()
    (bare / "skillc.toml").write_text(TEMPLATE.replace("# base", "base").replace("# rank", "rank"))
    assert read_settings(bare) == Settings()
    (bare / "skillc.toml").write_text(TEMPLATE.replace("# sources", "sources"), "utf-8")
    assert read_settings(bare) == Settings()


def test_settings_from_either_file(bare: Path) -> None:
    (bare / "pyproject.toml").write_text('[tool.skillc]\nrank = 8\nsources = ["a"]\n', "utf-8")
    assert read_settings(bare) == Settings("nano", 8, ("a",))
    (bare / "skillc.toml").write_text('base = "tiny"\n', "utf-8")
    assert read_settings(bare) == Settings("tiny", 32, SOURCES)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rnak = 8", "skillc.toml: unknown key 'rnak': did you mean 'rank'?"),
        ("colour = 8", "skillc.toml: unknown key 'colour': known keys: base, rank, sources"),
        ("rank = 0", "rank must be a whole number from 1 to 256"),
        ("rank = true", "rank must be a whole number from 1 to 256"),
        ("rank = '8'", "rank must be a whole number from 1 to 256"),
        ("base = 3", "base must be a name"),
        ("sources = '.skills'", "sources must be folder names"),
        ("sources = [1]", "sources must be folder names"),
        ("base = ", "skillc.toml: not valid TOML"),
        ("\xff", "skillc.toml: not valid TOML"),
    ],
)
def test_wrong_settings(text: str, problem: str, root: Path, run: Run) -> None:
    (root / "skillc.toml").write_bytes(text.encode("latin-1"))
    done = run("list")
    assert done.code == 2
    assert problem in done.err
    assert done.err.count("\n") == 1


def test_sources_replace_the_list(root: Path, run: Run) -> None:
    write_skill(root, "testing")
    other = root / "notes" / "deploy" / "SKILL.md"
    other.parent.mkdir(parents=True)
    other.write_text("---\nname: deploy\ndescription: How.\n---\nDo.\n", "utf-8")
    (root / "skillc.toml").write_text('base = "tiny"\nsources = ["notes"]\n', "utf-8")
    done = run("list")
    assert "notes/deploy/SKILL.md" in done.out
    assert "testing" not in done.out


def test_init_then_init_again(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    first = run("-C", folder, "init", "--skill", "first-steps")
    assert first.code == 0
    assert first.out.splitlines() == [
        "made .skills/",
        "wrote skillc.toml",
        "wrote .skills/first-steps/SKILL.md",
        "next: run 'skillc build'",
    ]
    (folder / "skillc.toml").write_text("rank = 8\n", "utf-8")
    again = run("-C", folder, "init")
    assert again.out.startswith(f"{folder} is a skillc project already\n")
    assert (folder / "skillc.toml").read_text("utf-8") == "rank = 8\n"
    taken = run("-C", folder, "init", "--skill", "first-steps")
    assert (taken.code, "exists already" in taken.err) == (2, True)


@pytest.mark.parametrize("name", ["..", "a/b", "A", "a--b", "-a", "", "a b", "/x"])
def test_init_refuses_names_that_are_none(name: str, root: Path, run: Run) -> None:
    done = run("init", f"--skill={name}")
    assert done.code == 2
    assert "is no skill name" in done.err
    assert list((root / ".skills").iterdir()) == []


def test_init_leaves_settings_of_pyproject_alone(bare: Path, run: Run) -> None:
    (bare / "pyproject.toml").write_text("[tool.skillc]\nrank = 8\n", "utf-8")
    assert run("-C", bare, "init").code == 0
    assert not (bare / "skillc.toml").exists()
