"""How long does `skillc build` take when nothing, or one skill of 10,000, changed?

Skills: those of examples/orchard under other names. The best of several runs of the whole process.
The adapters of unchanged skills are stand-ins, made without compiling: a build that has nothing to
do reads neither their values nor the compiler. The skill that changes is compiled, in both arms.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from _bench import (
    build_with_stand_ins,
    fill,
    peak_mb,
    processor_seconds,
    say,
    skillc,
    timed,
    use_base,
)

from skillc.figures import print_figures
from skillc.memory import REST_NS

MANY, FEW = 10_000, 50
RUNS = 9
CHANGES = 3
TARGETS = {
    "seconds_10000": ("<", 1.0),
    "seconds_50": ("<", 0.25),
    "rss_mb": ("<", 300.0),
    "one_changed_ratio": ("<=", 1.5),
}


def prepare(project: Path, count: int) -> float:
    """A built project of `count` skills; returns the seconds of a build that has to read all."""
    fill(project, count)
    build_with_stand_ins(project)
    time.sleep(REST_NS / 1e9 + 0.1)  # Files changed a moment ago are read again, as they must be.
    first = timed(skillc(project, "build"))
    timed(skillc(project, "build"))
    return first


def after_a_change(project: Path, number: int) -> float:
    """Wall seconds of the build after one skill of `project` changed."""
    change(project, f"Rule {number}.")
    return timed(skillc(project, "build"))


def processor_after_a_change(project: Path, number: int) -> float:
    """Processor seconds of the same."""
    change(project, f"Other rule {number}.")
    return processor_seconds(skillc(project, "build"))


def change(project: Path, rule: str) -> None:
    path = project / ".skills" / "skill-00000" / "SKILL.md"
    path.write_text(path.read_text("utf-8") + f"\n- {rule}\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        use_base(Path(scratch))
        one, few, many = (Path(scratch, name) for name in ("one", "few", "many"))
        prepare(one, 1)
        prepare(few, FEW)
        unread = prepare(many, MANY)
        say(f"{MANY} skills, all read again: {unread:.2f} s")
        warm = sorted(timed(skillc(many, "build")) for _ in range(RUNS))
        say(f"{MANY} skills, nothing changed: {warm[0]:.2f} to {warm[-1]:.2f} s")
        idle = sorted(timed(skillc(few, "build")) for _ in range(RUNS))
        say(f"{FEW} skills, nothing changed: {idle[0]:.2f} to {idle[-1]:.2f} s")
        # In turns, so that what else the machine does meets both.
        pairs = [(after_a_change(one, i), after_a_change(many, i)) for i in range(CHANGES + 1)][1:]
        busy = [
            (processor_after_a_change(one, i), processor_after_a_change(many, i))
            for i in range(CHANGES)
        ]
        say("one alone, one of many: " + ", ".join(f"{a:.2f} {b:.2f} s" for a, b in pairs))
        alone, among = (min(times) for times in zip(*pairs, strict=True))
        figures = {
            "seconds_10000": warm[0],
            "seconds_10000_median": warm[RUNS // 2],
            "seconds_10000_all_read": unread,
            "processor_seconds_10000": min(
                processor_seconds(skillc(many, "build")) for _ in range(RUNS)
            ),
            "seconds_50": idle[0],
            "seconds_50_median": idle[RUNS // 2],
            "seconds_start": min(timed(skillc(few, "--version")) for _ in range(RUNS)),
            "rss_mb": peak_mb(skillc(many, "build")),
            "seconds_one_alone": alone,
            "seconds_one_of_10000": among,
            "one_changed_ratio": among / alone,
            "one_changed_processor_ratio": min(b for _, b in busy) / min(a for a, _ in busy),
        }
    print_figures("noop_build", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
