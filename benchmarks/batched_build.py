"""How many skills a second does a cold build compile: several at once against one at a time?

Skills: those of examples/orchard under other names. Both arms compile and publish the same skills
in this process with the same compiler; the bytes of every adapter must be equal. Beside them: what
one forward pass of the base over several padded texts would cost, and what it would change.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _bench import ORCHARD, fill, say, use_base

from skillc.build import build
from skillc.figures import print_figures
from skillc.plan import make_plan
from skillc.progress import Progress
from skillc.project import Project
from skillc.target import find_target
from skillc_compiler.families.interface import Compiler, load_compiler
from skillc_compiler.families.parallel import one_thread
from skillc_compiler.families.writer import Writer

COUNT = 24
ROUNDS = 3
TARGETS = {"ratio": (">=", 2.0), "unequal": ("==", 0.0)}


def cold_build(project: Project, compiler: Compiler, batch: int) -> tuple[float, float]:
    """Wall and processor seconds of a build of everything, `batch` skills at once."""
    shutil.rmtree(project.state, ignore_errors=True)
    project.lock_path.unlink(missing_ok=True)
    target = find_target(project.settings.base)
    wall, own = time.perf_counter(), time.process_time()
    report = build(lambda: make_plan(project, target), lambda: compiler, Progress(), batch=batch)
    assert report.count("built") == COUNT, report.summary()
    return time.perf_counter() - wall, time.process_time() - own


def digests(project: Project) -> dict[str, str]:
    """The SHA-256 of every file of the store."""
    return {
        str(path.relative_to(project.store_path)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(project.store_path.glob("*/*"))
    }


def in_one_pass(compiler: Writer) -> dict[str, float]:
    """Processor milliseconds a text alone and in one padded pass over all, and what differs.

    `pass_unequal_rows` counts rows of the pass that are not bit-equal to the same row padded as
    long alone, `padding_moves_logits` is the largest change by padding itself.
    """
    texts = [path.read_text("utf-8") for path in sorted(ORCHARD.glob("*/SKILL.md"))]
    ids = [compiler.tokenizer.encode(text).ids for text in texts]
    longest = max(map(len, ids))
    rows = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    forward: Callable[[torch.Tensor], torch.Tensor] = lambda x: compiler.host.model(x).logits  # noqa: E731
    with torch.inference_mode(), one_thread():
        alone = [forward(torch.tensor([row])) for row in ids]
        times = []
        for _ in range(ROUNDS):
            started = time.process_time()
            for row in ids:
                forward(torch.tensor([row]))
            middle = time.process_time()
            together = forward(rows)
            times.append((middle - started, time.process_time() - middle))
        padded = [forward(rows[i : i + 1])[0] for i in range(len(ids))]
    moved = [
        (one[0] - row[: len(one[0])]).abs().max() for one, row in zip(alone, padded, strict=True)
    ]
    return {
        "pass_ms_alone": min(one for one, _ in times) / len(ids) * 1e3,
        "pass_ms_together": min(many for _, many in times) / len(ids) * 1e3,
        "pass_unequal_rows": float(
            sum(not torch.equal(a, b) for a, b in zip(together, padded, strict=True))
        ),
        "padding_moves_logits": float(max(moved)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        use_base(Path(scratch))
        fill(Path(scratch), COUNT)
        project = Project.at(Path(scratch))
        compiler = load_compiler(find_target(project.settings.base).base)
        cold_build(project, compiler, 1)
        times = []
        for _ in range(ROUNDS):
            one = cold_build(project, compiler, 1)
            alone = digests(project)
            many = cold_build(project, compiler, COUNT)
            together = digests(project)
            say(f"one at a time {one[0]:.2f} s, at once {many[0]:.2f} s")
            times.append((one, many))
        unequal = sum(alone.get(name) != digest for name, digest in together.items())
        one_s = min(one[0] for one, _ in times)
        many_s = min(many[0] for _, many in times)
        figures = {
            "skills_per_second_one": COUNT / one_s,
            "skills_per_second_batched": COUNT / many_s,
            "ratio": one_s / many_s,
            "cores": float(len(os.sched_getaffinity(0))),
            "processor_seconds_one": min(one[1] for one, _ in times) / COUNT,
            "processor_seconds_batched": min(many[1] for _, many in times) / COUNT,
            "unequal": float(unequal + abs(len(alone) - len(together))),
        }
        if isinstance(compiler, Writer):
            figures |= in_one_pass(compiler)
    print_figures("batched_build", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
