"""`skillc init opencode`: what it writes, what it leaves, and how it takes it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.plugin.project import Run

from skillc import jsonc, opencode

MINE = """\
{
  // my model
  "model": "other/large", "permission": {"bash": "ask"},
  "provider": {
    "other": {"npm": "x"}, // theirs
  },
  "plugin": ["my-plugin"]
}
"""


def config(root: Path, name: str = "opencode.json") -> Any:
    return jsonc.parse((root / name).read_text("utf-8")).value


def test_a_project_without_a_configuration(root: Path, run: Run) -> None:
    done = run("init", "opencode")
    assert (done.code, done.err) == (0, "")
    written = json.loads((root / "opencode.json").read_text("utf-8"))
    assert written["model"] == written["small_model"] == "skillc/tiny"
    assert written["default_agent"] == "slim"
    provider = written["provider"]["skillc"]
    assert provider["options"]["baseURL"] == "http://127.0.0.1:8191/v1"
    assert provider["models"]["tiny"]["limit"]["context"] > 0
    assert written["agent"]["slim"]["permission"]["*"] == "deny"
    (plugin,) = written["plugin"]
    for name in opencode.PLUGIN_FILES:
        copied = root / ".skillc" / "opencode" / name
        assert copied.read_bytes() == (opencode.plugin_source() / name).read_bytes()
    assert (root / plugin).resolve() == (root / ".skillc" / "opencode" / "skillc.js").resolve()
    assert '+  "model": "skillc/tiny",' in done.out.splitlines()
    assert str(root) not in done.out


def test_the_context_is_what_the_server_gives(root: Path, run: Run) -> None:
    def found(*args: str) -> tuple[int, str]:
        written = json.loads(run("init", "opencode", "--print", *args).out)
        limit = written["provider"]["skillc"]["models"]["tiny"]["limit"]["context"]
        return limit, written.get("default_agent", "full")

    trained = found()[0]
    assert trained < opencode.LARGE
    assert found("--ctx", "512") == (512, "slim")
    assert found("--ctx", "32768") == (32768, "full")


def test_again_changes_nothing_and_says_so(root: Path, run: Run) -> None:
    run("init", "opencode")
    before = (root / "opencode.json").read_bytes()
    assert "opencode.json is up to date" in run("init", "opencode").out
    assert (root / "opencode.json").read_bytes() == before


@pytest.mark.parametrize("name", ["opencode.json", "opencode.jsonc"])
def test_what_is_there_stays(name: str, root: Path, run: Run) -> None:
    (root / name).write_text(MINE, "utf-8")
    done = run("init", "opencode")
    assert done.code == 0
    text = (root / name).read_text("utf-8")
    assert "// my model" in text and "// theirs" in text
    found = config(root, name)
    assert (found["model"], found["permission"]) == ("other/large", {"bash": "ask"})
    assert "default_agent" not in found and "small_model" not in found
    assert list(found["provider"]) == ["other", "skillc"]
    assert found["plugin"] == ["my-plugin", "./.skillc/opencode/skillc.js"]
    assert run("init", "opencode", "--remove").code == 0
    assert (root / name).read_text("utf-8") == MINE
    assert not (root / ".skillc" / "opencode").exists()


def test_remove_deletes_the_file_that_it_made(root: Path, run: Run) -> None:
    run("init", "opencode")
    assert run("init", "opencode", "--remove").code == 0
    assert not (root / "opencode.json").exists()
    again = run("init", "opencode", "--remove")
    assert (again.code, again.out) == (0, "opencode.json: nothing in it was written by skillc\n")


def test_remove_leaves_what_was_changed_since(root: Path, run: Run) -> None:
    run("init", "opencode")
    path = root / "opencode.json"
    text = jsonc.put(path.read_text("utf-8"), ("agent", "slim", "model"), "other/small")
    path.write_text(jsonc.put(text, ("theme",), "dark"), "utf-8")
    done = run("init", "opencode", "--remove")
    assert "agent.slim was changed since: left as it is" in done.out
    assert set(config(root)) == {"agent", "theme"}
    assert config(root)["agent"]["slim"]["model"] == "other/small"


def test_what_it_did_not_write_is_never_overwritten(root: Path, run: Run) -> None:
    path = root / "opencode.json"
    path.write_text('{"agent": {"slim": {"prompt": "mine"}}}', "utf-8")
    done = run("init", "opencode")
    assert "agent.slim is there already and is not skillc's: left as it is" in done.out
    assert config(root)["agent"] == {"slim": {"prompt": "mine"}}
    run("init", "opencode", "--remove")
    assert path.read_text("utf-8") == '{"agent": {"slim": {"prompt": "mine"}}}'


def test_what_it_wrote_is_brought_up_to_date(root: Path, run: Run) -> None:
    (root / "opencode.json").write_text(MINE, "utf-8")
    run("init", "opencode")
    done = run("init", "opencode", "--url", "http://127.0.0.1:9000/v1")
    assert config(root)["provider"]["skillc"]["options"]["baseURL"] == "http://127.0.0.1:9000/v1"
    assert "left as it is" not in done.out
    run("init", "opencode", "--remove")
    assert (root / "opencode.json").read_text("utf-8") == MINE


def test_what_the_user_writes_between_two_runs_is_kept(root: Path, run: Run) -> None:
    path = root / "opencode.json"
    path.write_text(MINE, "utf-8")
    run("init", "opencode")
    path.write_text(jsonc.put(path.read_text("utf-8"), ("theme",), "dark"), "utf-8")
    run("init", "opencode")
    run("init", "opencode", "--remove")
    assert config(root) == {**jsonc.parse(MINE).value, "theme": "dark"}
    assert "// my model" in path.read_text("utf-8")


def test_print_writes_nothing(root: Path, run: Run) -> None:
    done = run("init", "opencode", "--print")
    assert json.loads(done.out)["agent"]["slim"]["model"] == "skillc/tiny"
    assert not (root / "opencode.json").exists() and not (root / ".skillc").exists()


def test_print_with_remove_writes_nothing_either(root: Path, run: Run) -> None:
    path = root / "opencode.json"
    path.write_text(MINE, "utf-8")
    run("init", "opencode")
    before = path.read_bytes()
    assert run("init", "opencode", "--remove", "--print").out == MINE.rstrip("\n") + "\n"
    assert path.read_bytes() == before
    assert (root / ".skillc" / "opencode" / "skillc.js").is_file()


def test_a_plugin_of_another_is_neither_overwritten_nor_deleted(
    root: Path, home: Path, run: Run
) -> None:
    mine = home / "opencode" / "skillc" / "skillc.js"
    mine.parent.mkdir(parents=True)
    mine.write_text("// mine", "utf-8")
    done = run("init", "opencode", "--global")
    assert done.code == 2 and "is not skillc's: move it away" in done.err
    assert (
        "nothing in it was written by skillc" in run("init", "opencode", "--global", "--remove").out
    )
    assert mine.read_text("utf-8") == "// mine"
    assert not (home / "opencode" / "opencode.json").exists()


def test_remove_takes_the_plugin_where_all_entries_are_the_users(root: Path, run: Run) -> None:
    run("init", "opencode")
    written = config(root)
    run("init", "opencode", "--remove")
    (root / "opencode.json").write_text(json.dumps(written), "utf-8")
    run("init", "opencode")
    assert (root / ".skillc" / "opencode" / "skillc.js").is_file()
    run("init", "opencode", "--remove")
    assert config(root) == written
    assert not (root / ".skillc" / "opencode").exists()


def test_for_the_user(root: Path, home: Path, run: Run) -> None:
    folder = home / "opencode"
    folder.mkdir()
    (folder / "opencode.json").write_text('{"theme": "dark"} // at night', "utf-8")
    assert run("init", "opencode", "--global").code == 0
    found = config(folder)
    assert (found["theme"], found["plugin"]) == ("dark", ["./skillc/skillc.js"])
    assert "model" not in found
    assert "// at night" in (folder / "opencode.json").read_text("utf-8")
    assert (folder / "skillc" / "slim.json").is_file()
    assert not (root / "opencode.json").exists()
    run("init", "opencode", "--global", "--remove")
    assert not (folder / "skillc").exists()


def test_offline_spares_the_wait_for_npm(root: Path, home: Path, run: Run) -> None:
    lock = home / "opencode" / "package-lock.json"
    assert "starts without asking npm" in run("init", "opencode", "--offline").out
    packages = json.loads(lock.read_text("utf-8"))["packages"]
    assert "@opencode-ai/plugin" in packages[""]["dependencies"]
    assert "deleted" in run("init", "opencode", "--offline", "--remove").out
    assert not lock.exists() and not lock.with_name("node_modules").exists()
    lock.write_text("{}", "utf-8")
    assert "has packages of its own" in run("init", "opencode", "--offline").out
    assert lock.read_text("utf-8") == "{}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "opencode.json: line 1: "),
        ('{"provider": 3}', "opencode.json: provider is no object: mend it"),
        (b"\xff", "opencode.json: is not UTF-8"),
    ],
)
def test_a_configuration_that_is_broken(
    text: str | bytes, problem: str, root: Path, run: Run
) -> None:
    data = text.encode() if isinstance(text, str) else text
    (root / "opencode.json").write_bytes(data)
    done = run("init", "opencode")
    assert done.code == 2
    assert problem in done.err and done.err.count("\n") == 1
    assert (root / "opencode.json").read_bytes() == data
    assert not (root / ".skillc" / "opencode" / "written.json").exists()


def test_outside_of_a_project(tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty" / ".git").mkdir(parents=True)
    assert run("-C", tmp_path / "empty", "init", "opencode").code == 2
