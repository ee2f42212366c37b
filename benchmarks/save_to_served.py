"""How long after a skill is saved does the running model know it?

`skillc dev` runs on a copy of examples/orchard; one skill is saved again and again, in the ways of
several editors. Measured apart: from the save until the change is detected, the build, and from the
written lock until an answer says that the new adapter was attached.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

from _bench import ORCHARD, say, skillc, use_base

from skillc.ask import ask
from skillc.figures import print_figures
from skillc.project import Project
from skillc_compiler.skill import read_skill

SAVES = 40
SKILL = "testing"
TARGETS = {"detect_ms_p95": ("<", 300.0), "attach_ms_p95": ("<", 100.0), "stale": ("==", 0.0)}
Event = dict[str, Any]


def in_place(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")


def rename_over(file: Path, text: str) -> None:
    beside = file.with_name(".SKILL.md.swp")
    beside.write_text(text, "utf-8")
    beside.replace(file)


def backup_and_create(file: Path, text: str) -> None:
    file.replace(file.with_name("SKILL.md~"))
    file.write_text(text, "utf-8")


STYLES: list[Callable[[Path, str], None]] = [in_place, rename_over, backup_and_create]


@contextmanager
def running(project: Path) -> Iterator[tuple[str, Queue[Event]]]:
    """`skillc dev` on `project`: its URL, and what it says from then on."""
    command = skillc(project, "dev", "--port", "0", "--json")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    events: Queue[Event] = Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            events.put(json.loads(line))

    threading.Thread(target=listen, daemon=True).start()
    try:
        url = wait(events, "serving")["url"]
        wait(events, "watching")
        yield url, events
    finally:
        process.terminate()
        process.wait()


def wait(events: Queue[Event], name: str) -> Event:
    """The next event of that name; what comes before it is dropped."""
    while (event := events.get(timeout=600))["event"] != name:
        pass
    return event


def save_once(project: Project, url: str, events: Queue[Event], number: int) -> list[float]:
    """Milliseconds to detect, build and attach one save, and 1.0 when an old text was served."""
    file = project.root / ".skills" / SKILL / "SKILL.md"
    text = file.read_text("utf-8").split("\n- Rule ")[0].rstrip("\n")
    saved = time.time()
    STYLES[number % len(STYLES)](file, f"{text}\n- Rule {number}: `./run {number}`.\n")
    wanted = read_skill(file).hash
    detected = wait(events, "detected")
    built = wait(events, "built")
    asked = time.perf_counter()
    body = [{"role": "user", "content": "How?"}]
    ask(url, f"{project.settings.base}:{SKILL}", body, max_tokens=1)
    answered = time.perf_counter()
    lock = project.lock()
    assert lock is not None
    stale = lock.skills[SKILL].hash != wanted
    wait(events, "watching")
    return [
        (detected["time"] - saved) * 1e3,
        (built["time"] - detected["time"]) * 1e3,
        (answered - asked) * 1e3,
        float(stale),
    ]


def p95(values: list[float]) -> float:
    """The 95th percentile, by the nearest rank."""
    return sorted(values)[min(len(values) - 1, -(-len(values) * 95 // 100) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=SAVES, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        use_base(Path(scratch))
        folder = Path(scratch, "orchard")
        ignore = shutil.ignore_patterns(".skillc", "skillc.lock")
        shutil.copytree(ORCHARD.parent, folder, ignore=ignore)
        with running(folder) as (url, events):
            project = Project.at(folder)
            save_once(project, url, events, 0)
            times = [save_once(project, url, events, i) for i in range(1, args.saves + 1)]
    detect, compiled, attach, stale = (list(column) for column in zip(*times, strict=True))
    middle = len(times) // 2
    say(f"{len(times)} saves: detected after {sorted(detect)[middle]:.0f} ms in the middle")
    figures = {
        "saves": float(len(times)),
        "detect_ms_p50": sorted(detect)[middle],
        "detect_ms_p95": p95(detect),
        "compile_ms_p50": sorted(compiled)[middle],
        "compile_ms_p95": p95(compiled),
        "attach_ms_p50": sorted(attach)[middle],
        "attach_ms_p95": p95(attach),
        "stale": sum(stale),
    }
    print_figures("save_to_served", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
