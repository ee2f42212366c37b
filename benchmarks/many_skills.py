"""Does it matter to a server how many skills the store holds: 500, or 5?

Two servers, one project each. Requests switch between the same five skills, by turns on both sides;
time is from asking to the end of an answer of one token, memory is of both processes of a server
(proportional set size) after that.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from _engine import say, served, spread, streamed, with_quartiles, write_project

from skillc.figures import print_figures
from skillc_compiler.bases import find_base
from skillc_compiler.gguf_base import read_base_info

FEW, ASKED = 5, 5
TARGETS = {"switch_ratio": ("<=", 1.2), "memory_ratio": ("<=", 1.2)}


def resident_mb(pid: int) -> float:
    """Proportional memory of a process and its children in MB (10^6 bytes)."""
    found = 0.0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines():
        if line.startswith("Pss:"):
            found += int(line.split()[1]) * 1024 / 1e6
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text("utf-8").split():
            found += resident_mb(int(child))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skills", type=int, default=500, metavar="N")
    parser.add_argument("--turns", type=int, default=100, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    base = read_base_info(find_base().gguf)
    seconds: dict[int, list[float]] = {FEW: [], args.skills: []}
    memory = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        servers = {}
        for count in seconds:
            root = Path(scratch, str(count))
            root.mkdir()
            write_project(root, base, count)
            servers[count] = stack.enter_context(served(root))
        for turn in range(args.turns + ASKED):
            for count, (url, _) in servers.items():
                asked = [{"role": "user", "content": f"How about {turn}?"}]
                model = f"nano:skill-{turn % ASKED}"
                times = streamed(url, {"model": model, "messages": asked, "max_tokens": 2})
                if turn >= ASKED and times:
                    seconds[count].append(times[0])
        memory = {count: resident_mb(pid) for count, (_, pid) in servers.items()}
    few, many = (statistics.median(found) for found in seconds.values())
    say(", ".join(f"{count} skills {spread(found)}" for count, found in seconds.items()))
    figures = {
        "switch_ms_few": few * 1e3,
        "switch_ms_many": many * 1e3,
        **with_quartiles("switch_ratio", seconds[args.skills], seconds[FEW]),
        "memory_mb_few": memory[FEW],
        "memory_mb_many": memory[args.skills],
        "memory_ratio": memory[args.skills] / memory[FEW],
    }
    print_figures("many_skills", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
