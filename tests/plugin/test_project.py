"""Projects are found where they are, and settings say what is wrong with them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tests.plugin.project import Run, write_skill

from skillc.project import Project
from skillc.settings import (
    SCHEMA,
    SOURCES,
    TEMPLATE,
    Settings,
    check,
    json_schema,
    read_settings,
)
from skillc_compiler.errors import ProjectError
from skillc_compiler.find import PROJECT_ROOTS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]


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
    assert read_settings(bare) == Settings("nano", 64, SOURCES)
    assert SOURCES == PROJECT_ROOTS


def test_the_template_says_the_defaults(bare: Path) -> None:
    (bare / "skillc.toml").write_text(TEMPLATE, "utf-8")
    assert read_settings(bare) == Settings()
    (bare / "skillc.toml").write_text(TEMPLATE.replace("# base", "base").replace("# rank", "rank"))
    assert read_settings(bare) == Settings()
    (bare / "skillc.toml").write_text(re.sub(r"^# (?=\w+ = )", "", TEMPLATE, flags=re.M), "utf-8")
    assert read_settings(bare) == Settings()
    assert set(tomllib.loads((bare / "skillc.toml").read_text("utf-8"))) == set(SCHEMA)


def test_the_schema_is_published_and_says_what_the_settings_are() -> None:
    published = json.loads((REPOSITORY / "docs" / "skillc.schema.json").read_text("utf-8"))
    assert published == json_schema(), "run 'make docs'"
    assert published["additionalProperties"] is False
    assert list(published["properties"]) == [field.name for field in fields(Settings)]
    for key, rule in published["properties"].items():
        assert check({key: rule["default"]}, "here") == Settings()
        other = 1 if rule["type"] == "string" else "x"
        wrongs: tuple[Any, ...] = (None, 1.5, "", [""], [1], -1, {}, other)
        for wrong in wrongs:
            if not valid(wrong, rule):
                with pytest.raises(ProjectError, match=rf"^here: {key} must "):
                    check({key: wrong}, "here")
            else:
                check({key: wrong}, "here")


def valid(value: object, rule: dict[str, Any]) -> bool:
    """The part of JSON schema that the settings use, read as the standard says."""
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,), "integer": (int,), "boolean": (bool,), "array": (list,)
    }  # fmt: skip
    if not isinstance(value, kinds[rule["type"]]):
        return False
    if isinstance(value, list):
        return all(valid(item, rule["items"]) for item in value)
    if isinstance(value, str):
        matches = re.search(rule.get("pattern", ""), value) is not None
        return matches and len(value) >= rule.get("minLength", 0)
    low, high = rule.get("minimum", value), rule.get("maximum", value)
    return bool(low <= value <= high)


def test_extra_and_user_sources(root: Path, home: Path, run: Run) -> None:
    write_skill(root, "testing")
    for folder in (root / "notes", home / ".agents" / "skills", home / ".claude" / "skills"):
        for name in ("deploy", folder.parent.name.strip(".") + "-own"):
            path = folder / name / "SKILL.md"
            path.parent.mkdir(parents=True)
            path.write_text(f"---\nname: {name}\ndescription: How.\n---\nDo.\n", "utf-8")
    settings = 'base = "tiny"\nextra_sources = ["notes"]\n'
    (root / "skillc.toml").write_text(settings, "utf-8")
    listed = json.loads(run("list", "--json").out)["skills"]
    assert [one["name"] for one in listed] == ["deploy", "project-own", "testing"]
    (root / "skillc.toml").write_text(settings + "user_skills = true\n", "utf-8")
    shown = run("list")
    listed = json.loads(run("list", "--json").out)["skills"]
    sources = {one["name"]: one["source"] for one in listed}
    assert sources["deploy"] == "notes/deploy/SKILL.md"
    assert sources["agents-own"] == "~/.agents/skills/agents-own/SKILL.md"
    assert sources["claude-own"] == "~/.claude/skills/claude-own/SKILL.md"
    hidden = "deploy: notes/deploy/SKILL.md hides ~/.agents/skills/deploy/SKILL.md"
    assert hidden in shown.err.splitlines()


def test_what_npx_skills_installs(root: Path, run: Run) -> None:
    """Copies in .agents/skills, relative links in .claude/skills, a lock of its own beside them."""
    for name in ("deploy", "testing"):
        path = root / ".agents" / "skills" / name / "SKILL.md"
        path.parent.mkdir(parents=True)
        path.write_text(f"---\nname: {name}\ndescription: How.\n---\nDo.\n", "utf-8")
        link = root / ".claude" / "skills" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../.agents/skills/{name}", target_is_directory=True)
    entry = {"source": "them/skills", "sourceType": "github", "computedHash": "0" * 64}
    lock = {"version": 1, "skills": {"deploy": entry, "testing": entry}}
    (root / "skills-lock.json").write_text(json.dumps(lock), "utf-8")
    done = run("list", "--json")
    assert (done.code, json.loads(done.out)["problems"]) == (0, [])
    sources = [one["source"] for one in json.loads(done.out)["skills"]]
    assert sources == [f".agents/skills/{name}/SKILL.md" for name in ("deploy", "testing")]


def test_settings_from_either_file(bare: Path) -> None:
    (bare / "pyproject.toml").write_text('[tool.skillc]\nrank = 8\nsources = ["a"]\n', "utf-8")
    assert read_settings(bare) == Settings("nano", 8, ("a",))
    (bare / "skillc.toml").write_text('base = "tiny"\n', "utf-8")
    assert read_settings(bare) == Settings("tiny", 64, SOURCES)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rnak = 8", "skillc.toml: unknown key 'rnak': did you mean 'rank'?"),
        ("colour = 8", "skillc.toml: unknown key 'colour': known keys: base, rank, sources"),
        ("extra_source = []", "unknown key 'extra_source': did you mean 'extra_sources'?"),
        ("extra_sources = ['']", "extra_sources must be folder names"),
        ("user_skills = 'yes'", "user_skills must be true or false"),
        ("store = 3", "store must be a folder or a URL"),
        ("store_mb = -1", "store_mb must be a whole number of megabytes"),
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
