"""How much later does OpenCode send its first request with the plugin than without?

The two configurations differ in the `plugin` entry alone; runs alternate. `added_ms` is the median,
over pairs of runs, of the difference in time from the start of the process to the first chat
request.  Neither waits for npm.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import threading
import time
from pathlib import Path

from _bench import say
from _engine import with_quartiles
from _opencode import Stage, configure, staged
from opencode_tokens import texts

from skillc.figures import print_figures

RUNS = 9
TARGETS = {"added_ms": ("<", 150.0)}


def first_request_s(stage: Stage) -> tuple[float, float]:
    """Seconds from OpenCode's start to its first chat request; processor seconds of the run."""
    stage.relay.take()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    running = threading.Thread(target=stage.agent.run, args=("SAY hello", "--agent", "plain"))
    running.start()
    while not stage.relay.seen and running.is_alive():
        time.sleep(0.002)
    seconds = time.perf_counter() - started
    running.join()
    if not stage.relay.take():
        raise SystemExit("OpenCode sent no request")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used


def measure(scratch: Path, runs: int) -> dict[str, float]:
    with staged(scratch, texts(3)) as stage:
        # An agent that is the same with and without the plugin.
        plain = {"mode": "primary", "model": "skillc/nano", "prompt": "You help."}
        agents = {"plain": {**plain, "permission": {"*": "deny"}}, "title": {"disable": True}}
        configure(stage.project, agent=agents)
        path = stage.project / "opencode.json"
        configs = {"with": json.loads(path.read_text("utf-8"))}
        configs["without"] = {k: v for k, v in configs["with"].items() if k != "plugin"}
        seconds: dict[str, list[float]] = {"with": [], "without": []}
        used: dict[str, list[float]] = {"with": [], "without": []}
        for turn in range(runs + 1):
            for name, config in configs.items():
                path.write_text(json.dumps(config), "utf-8")
                took, processor = first_request_s(stage)
                if turn:  # the first start of all fills caches
                    seconds[name].append(took)
                    used[name].append(processor)
                say(f"{name} the plugin: {took * 1000:.0f} ms")
    median = {name: statistics.median(times) * 1000 for name, times in seconds.items()}
    pairs = zip(seconds["with"], seconds["without"], strict=True)
    return {
        **with_quartiles("added_ms", [1000 * (one - other) for one, other in pairs]),
        "with_ms": median["with"],
        "without_ms": median["without"],
        # Of the whole run; says more than the clock on a machine that does other work.
        "added_processor_ms": 1000
        * (statistics.median(used["with"]) - statistics.median(used["without"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="two runs each")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skillc-opencode-") as folder:
        figures = measure(Path(folder), 2 if args.quick else RUNS)
    print_figures("opencode_startup", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
