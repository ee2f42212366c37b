"""How long does `skillc build` take when nothing changed, against building it all?

Skills: those of examples/orchard under other names. The best of several runs of the whole process.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from skillc.figures import print_figures

ORCHARD = Path(__file__).resolve().parents[1] / "examples" / "orchard" / ".skills"
COUNT = 50
RUNS = 9
TARGETS = {"seconds_50": ("<", 0.25), "rss_mb": ("<", 300.0)}


def fill(project: Path, count: int) -> None:
    """Write `count` skills into `project`; no two have the same text."""
    texts = [path.read_text("utf-8") for path in sorted(ORCHARD.glob("*/SKILL.md"))]
    for number in range(count):
        name = f"skill-{number:03d}"
        text = re.sub(r"^name: .*$", f"name: {name}", texts[number % len(texts)], flags=re.M)
        path = project / ".skills" / name / "SKILL.md"
        path.parent.mkdir(parents=True)
        path.write_text(text, "utf-8")


def timed(*command: str) -> float:
    """Wall seconds of one run of `command`, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


def peak_mb(*command: str) -> float:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch), COUNT)
        build = (sys.executable, "-m", "skillc", "-C", scratch, "build")
        cold = timed(*build)
        print(f"cold: {cold:.2f} s", file=sys.stderr)
        warm = sorted(timed(*build) for _ in range(RUNS))
        print(f"nothing changed: {warm[0]:.3f} to {warm[-1]:.3f} s", file=sys.stderr)
        start = min(timed(sys.executable, "-m", "skillc", "--version") for _ in range(RUNS))
        figures = {
            "seconds_50": warm[0],
            "seconds_50_median": warm[RUNS // 2],
            "seconds_start": start,
            "cold_ratio": cold / warm[0],
            "rss_mb": peak_mb(*build),
        }
    print_figures("noop_build", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
