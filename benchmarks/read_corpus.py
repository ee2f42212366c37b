"""How do real SKILL.md files read: how many with warnings, how many are refused, and why?

A corpus is JSON lines, plain or .xz, each an object with `path` and `text`; folders are searched.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from skillc.figures import print_figures
from skillc_compiler.errors import SkillError
from skillc_compiler.skill import parse_skill

TARGETS = {
    "crashed": ("==", 0.0),
    "unstable": ("==", 0.0),
    "refused_share": ("<=", 0.02),
    "slowest_ms": ("<", 100.0),
}


@dataclass
class Tally:
    """Counts over the corpus; `examples` keeps the first message of every reason."""

    files: int = 0
    bytes: int = 0
    warned: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, message: str) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, message)

    def total(self, prefix: str) -> int:
        return sum(count for reason, count in self.counts.items() if reason.startswith(prefix))


def records(corpus: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every record of the corpus."""
    for place in corpus:
        found = sorted(place.rglob("*.jsonl*")) if place.is_dir() else [place]
        for file in found:
            print(f"reading {file.name}", file=sys.stderr)
            opener = lzma.open if file.suffix == ".xz" else open
            with opener(file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    record = json.loads(line)
                    yield record["path"], record["text"]


def read_one(tally: Tally, path: str, text: str) -> None:
    """Read one record and count what came of it."""
    data = text.encode("utf-8", "surrogatepass")
    folder = PurePosixPath(path).parent.name
    tally.files += 1
    tally.bytes += len(data)
    started = time.perf_counter()
    try:
        skill = parse_skill(data, folder=folder, path=Path(path))
    except SkillError as error:
        tally.add("refused_" + slug(str(error).removeprefix(path)), str(error))
        return
    except Exception as error:  # What this benchmark is there to find.
        tally.add("crashed", f"{path}: {error!r}")
        return
    finally:
        seconds = time.perf_counter() - started
        tally.seconds += seconds
        tally.slowest = max(tally.slowest, seconds)
    tally.warned += bool(skill.warnings)
    for warning in skill.warnings:
        tally.add("warning_" + slug(warning), f"{path}: {warning}")
    again = parse_skill(skill.text.encode(), folder=skill.name)
    if (again.text, again.hash) != (skill.text, skill.hash):
        tally.add("unstable", path)


def slug(message: str) -> str:
    """The reason in a message, without its line and details, as a key."""
    reason = re.sub(r"^:\d*:? ?", "", message)
    reason = re.split(r" \(line|[;:]", reason)[0]
    reason = re.sub(r" at byte \d+.*| \d+ bytes", "", reason)
    return re.sub("[^a-z0-9]+", "_", reason.lower()).strip("_")


def figures(tally: Tally) -> dict[str, float]:
    refused, crashed = tally.total("refused_"), tally.total("crashed")
    return {
        "files": tally.files,
        "read": tally.files - refused - crashed,
        "clean": tally.files - refused - crashed - tally.warned,
        "warned": tally.warned,
        "refused": refused,
        "refused_share": refused / tally.files,
        "crashed": crashed,
        "unstable": tally.total("unstable"),
        "slowest_ms": tally.slowest * 1e3,
        "megabytes_per_second": tally.bytes / tally.seconds / 1e6,
        **dict(sorted(tally.counts.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, metavar="PATH")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    tally = Tally()
    try:
        for path, text in records(args.corpus):
            read_one(tally, path, text)
    except (OSError, ValueError, KeyError, lzma.LZMAError) as error:
        sys.exit(f"{error!r}: is not a corpus; name folders or files of JSON lines")
    if not tally.files:
        print("no files found; name folders or files of JSON lines", file=sys.stderr)
        sys.exit(2)
    for reason, count in tally.counts.most_common():
        print(f"{count:6} {reason}: {tally.examples[reason]}"[:160], file=sys.stderr)
    print_figures("read_corpus", figures(tally), TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
