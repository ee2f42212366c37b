"""Writes the tables of figures in docs/ by running the benchmarks that they are about.

python docs/make_figures.py              run all (some minutes each page, on a machine that is idle)
python docs/make_figures.py ttft switch  run these and leave the other rows as they are
python docs/make_figures.py --check      only see that the pages have every figure's row
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
PAGES = {
    "performance": {
        "ttft": ("cold", "warm"),
        "switch": ("tail_speedup",),
        "decode": ("one", "four"),
        "mixed": ("own_ratio", "peer_ratio"),
        "overhead": ("token_ms", "p50_ms", "p99_ms"),
        "many_skills": ("switch_ratio", "memory_ratio"),
    },
    "opencode": {
        "opencode_tokens": (
            "skill_text_left",
            "prefill_cut_1",
            "prefill_cut_3",
            "prefill_cut_10",
            "skillc_tokens_1",
            "skillc_tokens_3",
            "skillc_tokens_10",
        ),
        "opencode_startup": ("added_ms",),
        "opencode_tasks": ("none", "text", "adapter", "n"),
    },
}
HEAD = "| file | figure | measured (quartiles) | target | machine |\n|---|---|---|---|---|\n"
UNKNOWN = "not measured yet"


def measure(name: str) -> dict[str, Any]:
    """What a benchmark prints with --json; it may miss its targets."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"{name}.py printed no figures and ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(name: str, key: str, result: dict[str, Any] | None) -> str:
    """A figure's row; without a result it says so."""
    value, target, machine = UNKNOWN, "", ""
    if result is not None:
        figures, targets, on = result["figures"], result["targets"], result["machine"]
        value = f"{figures[key]:.3g}" if key in figures else UNKNOWN
        if f"{key}_low" in figures:
            value += f" ({figures[f'{key}_low']:.3g} to {figures[f'{key}_high']:.3g})"
        target = "{} {:.3g}".format(*targets[key]) if key in targets else ""
        machine = f"{on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB"
    return f"| `{name}.py` | `{key}` | {value} | {target} | {machine} |"


def old_rows(page: str) -> dict[tuple[str, str], str]:
    """The rows that the page has, by file and figure."""
    rows = {}
    for line in page.partition(BEGIN)[2].partition(END)[0].splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if cells[0].endswith(".py"):
            rows[cells[0].removesuffix(".py"), cells[1]] = line
    return rows


def wanted(page: str) -> list[tuple[str, str]]:
    """Benchmark and figure of each row of a page, in order."""
    return [(name, key) for name, keys in PAGES[page].items() for key in keys]


def table(page: str, text: str, results: dict[str, dict[str, Any]]) -> str:
    """The page's table with fresh rows for the benchmarks that have results."""
    rows = old_rows(text)
    for name, key in wanted(page):
        if name in results:
            rows[name, key] = row(name, key, results[name])
    lines = [rows.get(one) or row(*one, None) for one in wanted(page)]
    return HEAD + "\n".join(lines) + "\n"


def write(page: str, names: list[str]) -> None:
    """Run those of a page's benchmarks that are named, and write its table anew."""
    path = DOCS / f"{page}.md"
    text = path.read_text("utf-8")
    results = {name: measure(name) for name in PAGES[page] if name in names}
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{table(page, text, results)}{END}{after}", "utf-8")


def complete(page: str) -> bool:
    """Whether the page has a row for every figure and no other."""
    return set(old_rows((DOCS / f"{page}.md").read_text("utf-8"))) == set(wanted(page))


def main() -> None:
    known = [name for benchmarks in PAGES.values() for name in benchmarks]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if rows miss")
    args = parser.parse_args()
    if unknown := set(args.names) - set(known):
        parser.error(f"no such benchmark here: {', '.join(sorted(unknown))}")
    if args.check:
        sys.exit(not all(map(complete, PAGES)))
    for page, benchmarks in PAGES.items():
        if not args.names or set(args.names) & set(benchmarks):
            write(page, args.names or known)


if __name__ == "__main__":
    main()
