"""`skillc build --engine ray` with real workers: same keys and bytes, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.plugin.project import FakeCompiler, Run, file_hashes, locked, write_skill
from tests.plugin.writer_home import write_writer_base

from skillc.build import build
from skillc.outcome import BuildReport, Outcome
from skillc.plan import make_plan
from skillc.progress import Progress
from skillc.project import Project
from skillc.ray_engine import Worker, ray_workers
from skillc.target import find_target
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import Base, find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import compiler_identity, load_compiler
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.skill import parse_skill

COUNT = 12


@pytest.fixture
def skills(root: Path, home: Path) -> Path:
    """A project of some skills on a base with a real writer."""
    write_writer_base(home / "bases" / "writing")
    (root / "skillc.toml").write_text('base = "writing"\nrank = 4\n', "utf-8")
    for number in range(COUNT):
        write_skill(root, f"skill-{number:02}")
    return root


@pytest.fixture
def patient_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray with more patience than it has for a busy machine.

    A node that takes 30 s to start is given up; and where its agents choose their ports themselves
    it gives up after 15 s without them.
    """
    node = pytest.importorskip("ray._private.node")
    parameter = pytest.importorskip("ray._private.parameter")
    clock = SimpleNamespace(**vars(time))
    clock.monotonic = lambda: time.monotonic() / 10
    monkeypatch.setattr(node, "time", clock)
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    ports = dict(zip((*names, "metrics_export_port"), free_ports(4), strict=True))
    made = parameter.RayParams
    monkeypatch.setattr(parameter, "RayParams", lambda **given: made(**{**given, **ports}))
    for name, value in {
        "agent_register_timeout_ms": 600_000,
        "worker_register_timeout_seconds": 600,
        "health_check_initial_delay_ms": 120_000,
        "health_check_timeout_ms": 120_000,
        "gcs_server_port_wait_time_s": 300,
    }.items():
        monkeypatch.setenv(f"RAY_{name}", str(value))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


class Killing(Progress):
    """Kills a process once so many skills are through."""

    def __init__(self, victim: int, after: int) -> None:
        self.victim, self.after, self.built = victim, after, 0

    def done(self, outcome: Outcome) -> None:
        self.built += outcome.status == "built"
        if self.built == self.after:
            os.kill(self.victim, signal.SIGKILL)


def run_build(root: Path, compiler: Any, progress: Progress, *, force: bool) -> BuildReport:
    project, target = Project.at(root), find_target("writing")
    return build(
        lambda: make_plan(project, target, force=force), lambda: compiler, progress, batch=COUNT
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray leaves files and sockets of its own open
def test_two_workers_build_what_one_process_builds_and_a_killed_one_loses_nothing(
    skills: Path, home: Path, patient_ray: None
) -> None:
    base, store = find_base("writing"), skills / ".skillc" / "store"
    here = run_build(skills, load_compiler(base), Progress(), force=False)
    assert here.count("built") == COUNT
    lock, files = locked(skills), file_hashes(store)
    with ray_workers(base, 2) as compiler:
        before = compiler.pids()
        assert len(set(before)) == 2 and os.getpid() not in before
        far = run_build(skills, compiler, Progress(), force=True)
        assert far.count("built") == COUNT, far.outcomes
        assert (locked(skills), file_hashes(store)) == (lock, files)
        killing = Killing(before[0], after=3)
        again = run_build(skills, compiler, killing, force=True)
        assert again.count("built") == killing.built == COUNT, again.outcomes
        assert (locked(skills), file_hashes(store)) == (lock, files)
        after = compiler.pids()
    assert after[0] != before[0] and after[1] == before[1]


def test_a_worker_with_another_base_refuses(home: Path) -> None:
    base = write_writer_base(home / "bases" / "writing")
    ours = file_sha256(base.gguf), compiler_identity(base)[1]
    skill = parse_skill(b"---\nname: a\ndescription: b\n---\n\nRun `./c`.\n", folder="a")
    worker = Worker("writing", *ours)
    assert worker.pid() == os.getpid()
    assert isinstance(worker.compile(skill, 4), Adapter)
    assert isinstance(worker.compile(skill, 0), CompilerError)
    with pytest.raises(CompilerError, match="base 'writing' or its compiler is another one on"):
        Worker("writing", "0" * 64, ours[1])


def test_the_verb_opens_and_closes_the_workers(
    root: Path, run: Run, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []

    @contextmanager
    def workers(base: Base, count: int | None) -> Iterator[FakeCompiler]:
        events.append((base.name, count))
        yield compiler
        events.append("closed")

    monkeypatch.setattr("skillc.ray_engine.ray_workers", workers)
    write_skill(root, "testing")
    done = json.loads(run("build", "--engine", "ray", "--workers", "2", "--json").out)
    assert (done["built"], events) == (1, [("tiny", 2), "closed"])
    # What is built needs no workers.
    assert json.loads(run("build", "--engine", "ray", "--json").out)["unchanged"] == 1
    assert len(events) == 2


def test_without_ray_it_is_one_line(root: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_skill(root, "testing")
    done = run("build", "--engine", "ray")
    line = "skillc: error: ray is not installed: pip install 'skillc[ray]'\n"
    assert (done.code, done.err) == (2, line)
    done = run("build", "--workers", "2")
    assert (done.code, "--workers is for --engine ray" in done.err) == (2, True)
