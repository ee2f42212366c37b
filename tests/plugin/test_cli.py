"""How the command line looks to somebody who types at it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import click
import pytest
from tests.plugin.project import Run

from skillc import __version__, cli
from skillc.cli import ALIASES, VERBS, report
from skillc_compiler.errors import ServeError

HEAVY = ("torch", "numpy", "llama_cpp", "transformers", "peft", "uvicorn", "rich", "gguf")


def python(code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_help_imports_nothing_heavy() -> None:
    done = python(
        "import sys\nfrom skillc.cli import run\nrun(['--help'])\n"
        f"print('loaded:', [m for m in {HEAVY} if m in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n")
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout


@pytest.mark.slow
def test_help_answers_at_once() -> None:
    def once() -> float:
        started = time.perf_counter()
        command = [sys.executable, "-m", "skillc", "--help"]
        subprocess.run(command, capture_output=True, check=True)
        return time.perf_counter() - started

    assert min(once() for _ in range(5)) < 0.2


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_the_summary_that_help_shows(verb: str) -> None:
    command = import_module(f"skillc.verbs.{verb}_verb").command
    assert isinstance(command, click.Command)
    assert command.name == verb
    assert command.help is not None
    assert command.help.splitlines()[0] == VERBS[verb]


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_reach_their_verb(alias: str, run: Run) -> None:
    done = run(alias, "--help")
    assert done.code == 0
    assert f"skillc {alias}" in done.out


def test_no_arguments_show_the_help(run: Run) -> None:
    done = run()
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Usage: skillc")


def test_version(run: Run) -> None:
    assert run("--version").out == f"skillc {__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["biuld"], "no such verb 'biuld': did you mean 'build'?"),
        (["frobnicate"], "no such verb 'frobnicate': see 'skillc --help'"),
        (["build", "--frce"], "No such option '--frce'"),
        (["show"], "Missing argument 'NAME' (see 'skillc show --help')"),
        (["build", "--rank", "0"], "Invalid value for '--rank'"),
        (["-C", "nowhere", "list"], "Directory 'nowhere' does not exist"),
    ],
)
def test_wrong_use_is_one_line_and_2(args: list[str], message: str, run: Run) -> None:
    done = run(*args)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("skillc: error: ")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_outside_a_project(tmp_path: Path, run: Run) -> None:
    lonely = tmp_path / "lonely"
    (lonely / ".git").mkdir(parents=True)
    done = run("-C", lonely, "build")
    assert done.code == 2
    problem = f"no project in {lonely} or above it: run 'skillc init' first"
    assert done.err == f"skillc: error: {problem}\n"


def failing(error: BaseException) -> click.Command:
    def fail() -> None:
        raise error

    return click.Command("list", callback=fail)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ServeError("port 80 is taken:\ntry --port 0"), 2, "port 80 is taken: try --port 0"),
        (FileNotFoundError(2, "No such file", "a/b"), 2, "a/b: No such file"),
        (
            ZeroDivisionError("oh"),
            2,
            "unexpected ZeroDivisionError: oh (SKILLC_DEBUG=1 shows where)",
        ),
    ],
)
def test_an_error_is_one_line(
    error: Exception, code: int, line: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.Verbs, "get_command", lambda *_: failing(error))
    done = run("list")
    assert (done.code, done.err) == (code, f"skillc: error: {line}\n")


def test_debug_lets_the_traceback_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.Verbs, "get_command", lambda *_: failing(ServeError("no")))
    monkeypatch.setenv("SKILLC_DEBUG", "1")
    with pytest.raises(ServeError):
        cli.main(["list"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupted_is_quiet(
    error: BaseException, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.Verbs, "get_command", lambda *_: failing(error))
    done = run("list")
    assert (done.code, done.err.lstrip()) == (130, "skillc: interrupted\n")


def test_a_closed_pipe_is_no_error(root: Path) -> None:
    program = f"{sys.executable} -m skillc --help | true"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_environment_mirrors_flags(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("SKILLC_DIRECTORY", str(elsewhere))
    assert run("init").code == 0
    assert (elsewhere / "skillc.toml").is_file()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("SKILLC_LIST_JSON", ["list"]),
        ("SKILLC_DOCTOR_JSON", ["doctor"]),
        ("SKILLC_BASE_LIST_JSON", ["base", "list"]),
    ],
)
def test_any_option_can_be_set_by_its_own_name(
    name: str, args: list[str], root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not run(*args).out.startswith(("{", "["))
    monkeypatch.setenv(name, "1")
    done = run(*args)
    assert isinstance(json.loads(done.out), dict | list), done.err


def test_report_needs_no_context(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(click.UsageError("wrong")) == 2
    assert capsys.readouterr().err == "skillc: error: wrong\n"
