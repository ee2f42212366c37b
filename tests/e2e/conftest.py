"""A built project, a real server, a relay before it, OpenCode set up by `skillc init opencode`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.client import CLIENTS, OpenCode
from tests.e2e.relay import Relay, relaying

from skillc.demo import EXAMPLE
from skillc.server_process import serving

SKILLS = ("database", "deploy", "testing")
GRAFT = '#!/bin/sh\necho "graft $*" >> calls.log\necho ok\n'


def skillc(project: Path, *args: str, home: Path | None = None) -> str:
    """Run `skillc ARGS` in `project`; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "skillc", "-C", str(project), *args],
        env=None if home is None else _environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}


def write_skills(project: Path, names: tuple[str, ...] = SKILLS) -> None:
    """The example's skills, and the script that they tell about."""
    for name in names:
        folder = project / ".skills" / name
        folder.mkdir(parents=True)
        text = (EXAMPLE / ".skills" / name / "SKILL.md").read_text("utf-8")
        (folder / "SKILL.md").write_text(text, "utf-8")
    tool = project / "tools" / "graft"
    tool.parent.mkdir()
    tool.write_text(GRAFT, "utf-8")
    tool.chmod(0o755)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git project with three compiled skills."""
    folder = tmp_path_factory.mktemp("e2e") / "orchard"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    write_skills(folder)
    skillc(folder, "build")
    return folder


@pytest.fixture(scope="session")
def log(project: Path) -> Path:
    """What the server prints and logs."""
    return project.parent / "serve.log"


@pytest.fixture(scope="session")
def server(project: Path, log: Path) -> Iterator[str]:
    """The URL of a real server of the project."""
    with serving(project, log, ["--log", "--threads", "1"]) as url:
        yield url


@pytest.fixture(scope="session")
def shared(server: str) -> Iterator[Relay]:
    with relaying(server) as found:
        yield found


@pytest.fixture
def relay(shared: Relay, server: str) -> Relay:
    """A relay that has seen nothing yet."""
    shared.seen.clear()
    shared.upstream = server
    return shared


@pytest.fixture
def agent(project: Path, relay: Relay, tmp_path: Path) -> Iterator[OpenCode]:
    """OpenCode in the project, with nothing switched on from the start."""
    if shutil.which("npm") is None and not any(CLIENTS.glob("node_modules/opencode-*")):
        pytest.skip(f"no OpenCode in {CLIENTS}: 'make e2e' installs it with npm, which is missing")
    home = tmp_path / "home"
    home.mkdir()
    skillc(project, "init", "opencode", "--offline", "--url", f"{relay.url}/v1", home=home)
    # On a busy machine the server may take its time, which is not what is tested here.
    yield OpenCode(project, home, {"SKILLC_ACTIVE": "", "SKILLC_WAIT": "30000"})
    skillc(project, "init", "opencode", "--remove", home=home)
    (project / "calls.log").unlink(missing_ok=True)
