"""Does `skillc build --engine ray` go faster with two workers, and lose nothing with a killed one?

All runs compile and publish the same skills, those of examples/orchard under other names, on nano
with real Ray workers on this machine. The clock starts when the workers hold their base and ends
when the lock is written. `speedup_2` is the time with one worker over that with two, one thread a
worker; on a machine whose cores are busy it says little. In the last run one of two workers is
killed after a third of the skills: `lost_after_kill` counts the skills that are not in the lock and
the store at its end.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from _bench import fill, say, use_base

from skillc.build import build
from skillc.figures import print_figures
from skillc.outcome import Outcome
from skillc.plan import make_plan
from skillc.progress import Progress
from skillc.project import Project
from skillc.ray_engine import ray_workers
from skillc.target import find_target
from skillc.verbs.build_verb import RAY_BATCH

COUNT = 1000


class Watching(Progress):
    """Kills the process `victim` once `after` skills are built; 0: nobody."""

    def __init__(self, after: int = 0) -> None:
        self.after, self.victim, self.built, self.killed = after, 0, 0, False

    def done(self, outcome: Outcome) -> None:
        self.built += outcome.status == "built"
        if self.after and self.built == self.after and not self.killed:
            os.kill(self.victim, signal.SIGKILL)
            self.killed = True


def run(folder: Path, count: int, workers: int, watching: Watching) -> tuple[float, int]:
    """Seconds of a cold build by so many workers, and the skills that it lost."""
    project = Project.at(folder)
    target = find_target(project.settings.base)
    with ray_workers(target.base, workers) as compiler:
        watching.victim = compiler.pids()[0]
        started = time.perf_counter()
        build(lambda: make_plan(project, target), lambda: compiler, watching, batch=RAY_BATCH)
        seconds = time.perf_counter() - started
    lock = project.lock()
    store = project.store()
    skills = lock.skills.values() if lock is not None else []
    there = sum(store.has(entry.key) and not entry.stale for entry in skills)
    return seconds, count - there


def main() -> int:
    """Measure and print; 0 when the targets hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, last")
    parser.add_argument("--count", type=int, default=COUNT, help="skills")
    arguments = parser.parse_args()
    count = arguments.count
    with tempfile.TemporaryDirectory() as scratch:
        use_base(Path(scratch))
        found: dict[str, tuple[float, int]] = {}
        for name, workers, kill in (("one", 1, 0), ("two", 2, 0), ("killed", 2, count // 3)):
            folder = Path(scratch) / name
            folder.mkdir()
            (folder / "skillc.toml").write_text("rank = 16\n", "utf-8")
            fill(folder, count)
            watching = Watching(kill)
            found[name] = run(folder, count, workers, watching)
            say(f"{name}: {found[name][0]:.1f} s, {found[name][1]} lost")
            if kill and not watching.killed:
                raise SystemExit("the worker was not killed: nothing was measured")
    figures = {
        "speedup_2": round(found["one"][0] / found["two"][0], 3),
        "lost_after_kill": float(found["killed"][1]),
        "lost": float(found["one"][1] + found["two"][1]),
        "seconds_1": round(found["one"][0], 2),
        "seconds_2": round(found["two"][0], 2),
        "seconds_killed": round(found["killed"][0], 2),
        "skills": float(count),
    }
    targets = {"speedup_2": (">=", 1.5), "lost_after_kill": ("==", 0.0), "lost": ("==", 0.0)}
    print_figures("ray_build", figures, targets, as_json=arguments.json)
    met = figures["speedup_2"] >= 1.5 and not figures["lost_after_kill"] and not figures["lost"]
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
