"""What the benchmarks of build and watch share: projects of any size, a base, timed processes."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from skillc.build import build
from skillc.plan import make_plan
from skillc.progress import Progress
from skillc.project import Project
from skillc.target import Target, find_target
from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.bases import DEFAULT_BASE, find_base
from skillc_compiler.errors import BaseModelError, CompilerError
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.skill import Skill

ORCHARD = Path(__file__).resolve().parents[1] / "examples" / "orchard" / ".skills"


def say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)


def use_base(scratch: Path) -> None:
    """See that there is a base `nano` with a compiler; without one, random weights of its shape.

    The shape decides the time, not the values.
    """
    try:
        if find_base().compiler_dir is not None:
            return
    except BaseModelError:
        pass
    say("no base here: making one of nano's shape with random weights")
    home = scratch / "home"
    write_random_base(home / "bases" / DEFAULT_BASE, scratch)
    os.environ["SKILLC_HOME"] = str(home)


def write_random_base(folder: Path, scratch: Path) -> None:
    """Write base.gguf and the writer's files of nano's shape."""
    import torch

    from skillc_compiler.families.writer_net import WriterNet
    from skillc_compiler.train.export import export
    from skillc_compiler.train.nano import Nano
    from skillc_compiler.train.recipe import load_recipe
    from skillc_compiler.train.tokens import generated_text, train_tokenizer

    recipe = load_recipe("nano")
    torch.manual_seed(0)
    run = scratch / "run"
    run.mkdir()
    tokenizer = train_tokenizer(generated_text(0, 3000), recipe.base.vocab_size)
    tokenizer.save(str(run / "tokenizer.json"))
    state = {
        "model": Nano(recipe.base).state_dict(),
        "writer": WriterNet(recipe.writer).state_dict(),
        "step": 0,
    }
    torch.save(state, run / "joint.pt")
    export(recipe, run, folder)
    shutil.rmtree(run)


def fill(project: Path, count: int) -> None:
    """Write `count` skills into `project`, those of examples/orchard under other names."""
    texts = [path.read_text("utf-8") for path in sorted(ORCHARD.glob("*/SKILL.md"))]
    for number in range(count):
        name = f"skill-{number:05d}"
        text = re.sub(r"^name: .*$", f"name: {name}", texts[number % len(texts)], flags=re.M)
        write(project, name, text)


def write(project: Path, name: str, text: str) -> Path:
    """Write one skill; returns its file."""
    path = project / ".skills" / name / "SKILL.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


@dataclass
class StandIn:
    """A compiler that costs nothing: adapters of the right form whose values mean nothing."""

    target: Target
    rank: int = 4

    def __post_init__(self) -> None:
        shapes = read_base_info(self.target.base.gguf).tensors
        self.hidden, self.inner = shapes["blk.0.ffn_down.weight"]

    @property
    def id(self) -> str:
        return self.target.compiler_id

    @property
    def hash(self) -> str:
        return self.target.compiler_hash

    def compile(self, skill: Skill, *, rank: int = 32) -> Adapter:
        """See `Compiler`; the values follow from the text."""
        rng = np.random.default_rng(int(skill.hash[:8], 16))
        a = rng.standard_normal((self.rank, self.inner), np.float32)
        b = rng.standard_normal((self.hidden, self.rank), np.float32)
        module = "model.layers.0.mlp.down_proj"
        manifest = Manifest(
            skill_name=skill.name,
            skill_hash=skill.hash,
            base_name=self.target.base.name,
            base_hash=self.target.base_hash,
            compiler_id=self.id,
            compiler_hash=self.hash,
            rank=self.rank,
            alpha=float(self.rank),
            targets=(module,),
        )
        return Adapter({module: LoraPair(a, b)}, float(self.rank), manifest)

    def compile_many(
        self,
        skills: Sequence[Skill],
        *,
        rank: int = 32,
        on_done: Callable[[Skill, Adapter | CompilerError], None] | None = None,
    ) -> list[Adapter | CompilerError]:
        """See `Compiler`."""
        made: list[Adapter | CompilerError] = []
        for skill in skills:
            made.append(self.compile(skill, rank=rank))
            if on_done is not None:
                on_done(skill, made[-1])
        return made


def build_with_stand_ins(folder: Path) -> None:
    """Build a project in this process without compiling, and without waiting for the disk."""
    project = Project.at(folder)
    target = find_target(project.settings.base)
    memory = project.memory()
    with patch("os.fsync"):
        build(
            lambda: make_plan(project, target, memory=memory), lambda: StandIn(target), Progress()
        )


def skillc(project: Path, *args: str) -> list[str]:
    """The command line of `skillc ARGS` in `project`."""
    return [sys.executable, "-m", "skillc", "-C", str(project), *args]


def timed(command: Sequence[str]) -> float:
    """Wall seconds of one run of `command`, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


def processor_seconds(command: Sequence[str]) -> float:
    """User and system seconds of one run of `command`: what it costs on a busy machine too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_mb(command: Sequence[str]) -> float:
    """Peak resident memory in MB (10^6 bytes) of `command`, seen by a parent of its own."""
    program = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command], capture_output=True, text=True, check=True
    )
    # Kilobytes on Linux, bytes on macOS.
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024) / 1e6
