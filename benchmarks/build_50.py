"""How long does it take to build 50 skills, and what of that is one skill's share?

Skills: those of examples/orchard under other names. Both sides, one skill and 50, are built by
`skillc build` in the same run, each in an empty project.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from skillc.figures import print_figures

ORCHARD = Path(__file__).resolve().parents[1] / "examples" / "orchard" / ".skills"
COUNT = 50
TARGETS: dict[str, tuple[str, float]] = {}


def fill(project: Path, count: int) -> None:
    """Write `count` skills into `project`; no two have the same text."""
    texts = [path.read_text("utf-8") for path in sorted(ORCHARD.glob("*/SKILL.md"))]
    for number in range(count):
        name = f"skill-{number:03d}"
        text = re.sub(r"^name: .*$", f"name: {name}", texts[number % len(texts)], flags=re.M)
        path = project / ".skills" / name / "SKILL.md"
        path.parent.mkdir(parents=True)
        path.write_text(text, "utf-8")


def build(project: Path) -> tuple[float, list[int]]:
    """Wall seconds of one `skillc build`, and the bytes of each adapter it made."""
    command = [sys.executable, "-m", "skillc", "-C", str(project), "build", "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    return seconds, [skill["bytes"] for skill in json.loads(done.stdout)["skills"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        one, many = Path(scratch, "one"), Path(scratch, "many")
        fill(one, 1)
        fill(many, COUNT)
        seconds_1, _ = build(one)
        print(f"1 skill: {seconds_1:.2f} s", file=sys.stderr)
        seconds_50, sizes = build(many)
        print(f"{COUNT} skills: {seconds_50:.2f} s", file=sys.stderr)
    figures = {
        "seconds_1": seconds_1,
        "seconds_50": seconds_50,
        "seconds_per_skill": (seconds_50 - seconds_1) / (COUNT - 1),
        "ratio_50_over_1": seconds_50 / seconds_1,
        "bytes_per_adapter": sum(sizes) / len(sizes),
    }
    print_figures("build_50", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
