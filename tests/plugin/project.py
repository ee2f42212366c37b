"""A project in a temporary folder for tests of the tool, and a compiler that costs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.compiler import tiny

from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.bases import Base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import compiler_identity
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.lock import Lock
from skillc_compiler.skill import Skill

SKILL = """\
---
name: {name}
description: How to run {name} in this project.
---

# {name}

- Run it with `./tools/{name} --fast`.
- Never run it on a Friday.
"""

BROKEN = "---\nname: broken\n---\n\nNo description.\n"


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of the command line: its exit code and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def write_skill(root: Path, name: str, text: str | None = None) -> Path:
    """Write .skills/NAME/SKILL.md below `root`; returns its path."""
    path = root / ".skills" / name / "SKILL.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SKILL.format(name=name) if text is None else text, "utf-8")
    return path


def write_base(home: Path, name: str = "tiny", seed: int = 0) -> Path:
    """Write a small base with the files of a compiler into a skillc home; returns its folder."""
    folder = home / "bases" / name
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_base(folder / "base.gguf", seed=seed)
    write_compiler(folder, "fake-1")
    return folder


def write_compiler(folder: Path, name: str) -> None:
    (folder / "compiler.safetensors").write_bytes(b"no weights")
    (folder / "compiler.json").write_text(json.dumps({"id": name, "family": "fake"}), "utf-8")


@dataclass
class FakeCompiler:
    """Makes a small adapter out of a skill's hash; fails where it is told to."""

    base: Base
    compiled: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    probe: dict[str, float] = field(default_factory=lambda: {"recall": 0.9, "recall_none": 0.1})

    @property
    def id(self) -> str:
        return compiler_identity(self.base)[0]

    @property
    def hash(self) -> str:
        return compiler_identity(self.base)[1]

    def compile(self, skill: Skill, *, rank: int = 32) -> Adapter:
        if skill.name in self.failing:
            raise self.failing[skill.name]
        self.compiled.append(skill.name)
        self.ranks.append(rank)
        rng = np.random.default_rng(int(skill.hash[:8], 16))
        a = rng.standard_normal((rank, 96)).astype(np.float32)
        b = rng.standard_normal((64, rank)).astype(np.float32)
        module = "model.layers.0.mlp.down_proj"
        return Adapter({module: LoraPair(a, b)}, float(rank), self.manifest(skill, rank, module))

    def manifest(self, skill: Skill, rank: int, module: str) -> Manifest:
        return Manifest(
            skill_name=skill.name,
            skill_hash=skill.hash,
            base_name=self.base.name,
            base_hash=file_sha256(self.base.gguf),
            compiler_id=self.id,
            compiler_hash=self.hash,
            rank=rank,
            alpha=float(rank),
            targets=(module,),
            probe=self.probe,
        )

    def compile_many(
        self,
        skills: Sequence[Skill],
        *,
        rank: int = 32,
        on_done: Callable[[Skill, Adapter | CompilerError], None] | None = None,
    ) -> list[Adapter | CompilerError]:
        made: list[Adapter | CompilerError] = []
        for skill in skills:
            try:
                made.append(self.compile(skill, rank=rank))
            except CompilerError as error:
                made.append(error)
            except RuntimeError as error:
                made.append(CompilerError(f"cannot be compiled: unexpected RuntimeError: {error}"))
            if on_done is not None:
                on_done(skill, made[-1])
        return made


def file_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder`, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def locked(root: Path) -> Lock:
    """The lock of the project at `root`."""
    return Lock.load(root / "skillc.lock")


def build_json(run: Run, *args: str) -> dict[str, Any]:
    """What `skillc build --json ARGS` prints."""
    record = json.loads(run("build", "--json", *args).out)
    assert isinstance(record, dict)
    return record
