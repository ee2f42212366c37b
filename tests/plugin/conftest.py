"""Every test of the tool has a home and a project of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.plugin.project import FakeCompiler, Ran, Run, write_base

from skillc.cli import main
from skillc_compiler.bases import Base, find_base


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A skillc home with the base `tiny`; copied, never changed."""
    home = tmp_path_factory.mktemp("home")
    write_base(home)
    return home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, so that no test reads or writes the user's."""
    folder = tmp_path / "home"
    shutil.copytree(tiny_home, folder)
    for name in ("HOME", "SKILLC_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.delenv("SKILLC_DEBUG", raising=False)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty project for the base `tiny`; a git root, so that no search leaves it."""
    folder = tmp_path / "project"
    (folder / ".skills").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "skillc.toml").write_text('base = "tiny"\nrank = 4\n', "utf-8")
    return folder


@pytest.fixture
def compiler(home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    """The compiler that `skillc build` gets; `tiny` is its base."""
    fake = FakeCompiler(find_base("tiny"))

    def load(base: Base) -> FakeCompiler:
        assert base == fake.base
        return fake

    monkeypatch.setattr("skillc_compiler.families.interface.load_compiler", load)
    return fake


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `skillc ARGS` in the project's folder, in this process."""

    def call(*args: str | Path) -> Ran:
        monkeypatch.chdir(root)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ran(code, captured.out, captured.err)

    return call
