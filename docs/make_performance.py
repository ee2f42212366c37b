"""Writes the table of docs/performance.md by running the benchmarks that it is about.

python docs/make_performance.py              run all (some minutes, on a machine that is idle)
python docs/make_performance.py ttft switch  run these and leave the other rows as they are
python docs/make_performance.py --check      only see that the page has every figure's row
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("performance.md")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
FILES = {
    "ttft": ("cold", "warm"),
    "switch": ("tail_speedup",),
    "decode": ("one", "four"),
    "mixed": ("own_ratio", "peer_ratio"),
    "overhead": ("token_ms", "p50_ms", "p99_ms"),
    "many_skills": ("switch_ratio", "memory_ratio"),
}
HEAD = "| file | figure | measured | target | machine |\n|---|---|---|---|---|\n"
UNKNOWN = "not measured yet"


def measure(name: str) -> dict[str, Any]:
    """What a benchmark prints with --json."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(name: str, key: str, result: dict[str, Any] | None) -> str:
    """A figure's row; without a result it says so."""
    value, target, machine = UNKNOWN, "", ""
    if result is not None:
        figures, targets, on = result["figures"], result["targets"], result["machine"]
        value = f"{figures[key]:.3g}" if key in figures else UNKNOWN
        target = "{} {:g}".format(*targets[key])
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


def table(page: str, names: list[str]) -> str:
    """The table with fresh rows for the benchmarks `names`."""
    rows = old_rows(page)
    for name in names:
        result = measure(name)
        rows |= {(name, key): row(name, key, result) for key in FILES[name]}
    wanted = [(name, key) for name, keys in FILES.items() for key in keys]
    return HEAD + "\n".join(rows.get(one) or row(*one, None) for one in wanted) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FILES))
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if rows miss")
    args = parser.parse_args()
    if unknown := set(args.names) - set(FILES):
        parser.error(f"no such benchmark here: {', '.join(sorted(unknown))}")
    page = PAGE.read_text("utf-8")
    wanted = {(name, key) for name, keys in FILES.items() for key in keys}
    if args.check:
        sys.exit(set(old_rows(page)) != wanted)
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    new = table(page, args.names or list(FILES))
    PAGE.write_text(f"{before}{BEGIN}\n{new}{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
