"""What skillc finds on this machine and in this project, and what to do where it finds nothing."""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from skillc import __version__
from skillc.project import Project
from skillc.status import project_status
from skillc_compiler.bases import find_base
from skillc_compiler.errors import SkillcError
from skillc_compiler.families.interface import compiler_identity
from skillc_runtime.settings import DEFAULT_HOST, DEFAULT_PORT

NEEDED = ("llama-cpp-python", "numpy", "starlette", "uvicorn")
TO_BUILD = ("torch", "transformers")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: its value, or None and the reason why there is none.

    Without a `needed` one skillc cannot serve; others only limit what it can do.
    """

    name: str
    value: str | None
    reason: str = ""
    needed: bool = False


def checks(start: Path) -> Iterator[Check]:
    """Every check, in the order of the way from text to answer."""
    yield Check("skillc", __version__)
    yield Check("python", f"{platform.python_version()} ({sys.executable})")
    for package in NEEDED:
        yield installed(package, "pip install skillc", needed=True)
    for package in TO_BUILD:
        yield installed(package, "to build skills: pip install 'skillc[compiler]'")
    name = "nano"
    try:
        project = Project.find(start)
    except SkillcError as error:
        yield Check("project", None, str(error))
    else:
        name = project.settings.base
        yield Check("project", str(project.root))
        yield attempt("skills", lambda: count_skills(project))
    yield attempt("base", lambda: describe_base(name), needed=True)
    yield attempt("compiler", lambda: compiler_identity(find_base(name))[0])
    taken = f"{DEFAULT_PORT} is taken: use 'skillc serve --port 0'"
    free = not is_taken(DEFAULT_HOST, DEFAULT_PORT)
    yield Check("port", f"{DEFAULT_PORT} is free" if free else None, taken)


def is_taken(host: str, port: int) -> bool:
    """Whether something answers at `host`:`port` just now."""
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex((host, port)) == 0


def installed(package: str, remedy: str, *, needed: bool = False) -> Check:
    """The version of an installed package, without importing it."""
    try:
        return Check(package, metadata.version(package), needed=needed)
    except metadata.PackageNotFoundError:
        return Check(package, None, f"not installed: {remedy}", needed)


def attempt(name: str, find: Callable[[], str], *, needed: bool = False) -> Check:
    """What `find` returns, or its SkillcError as the reason."""
    try:
        return Check(name, find(), needed=needed)
    except SkillcError as error:
        return Check(name, None, str(error), needed)


def count_skills(project: Project) -> str:
    """How many skills are in each state, such as "5 built, 1 new"."""
    counts: dict[str, int] = {}
    for status in project_status(project, []):
        counts[status.state] = counts.get(status.state, 0) + 1
    return ", ".join(f"{counts[state]} {state}" for state in sorted(counts)) or "none"


def describe_base(name: str) -> str:
    from skillc_compiler.gguf_base import read_base_info

    base = find_base(name)
    info = read_base_info(base.gguf)
    size = base.gguf.stat().st_size / 2**20
    shape = f"{info.n_layers} layers, width {info.hidden}, context {info.context_length}"
    return f"{base.name}: {info.arch}, {shape}, {size:.0f} MiB ({base.gguf})"
