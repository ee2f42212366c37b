"""How a measurement is printed: one JSON object with figures, targets and the machine."""

from __future__ import annotations

import json
import operator
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Target = tuple[str, float]

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def figures_object(
    name: str, figures: Mapping[str, float], targets: Mapping[str, Target]
) -> dict[str, Any]:
    """The object that every benchmark prints; `met` says whether each target with a figure holds.

    `targets` maps a figure's key to (operator, number). A target without a figure is not met.
    """
    met = all(
        key in figures and COMPARE[sign](figures[key], bound)
        for key, (sign, bound) in targets.items()
    )
    return {
        "name": name,
        "figures": dict(figures),
        "targets": {key: list(target) for key, target in targets.items()},
        "met": met,
        "machine": machine(),
    }


def print_figures(
    name: str, figures: Mapping[str, float], targets: Mapping[str, Target], *, as_json: bool
) -> None:
    """Print the figures to standard output: one JSON line, or one line a figure."""
    result = figures_object(name, figures, targets)
    if as_json:
        print(json.dumps(result), flush=True)
        return
    for key, value in figures.items():
        sign, bound = targets.get(key, ("", 0.0))
        wanted = f"  (target {sign} {bound:g})" if sign else ""
        print(f"{key:28} {value:12.4g}{wanted}")
    print("targets met" if result["met"] else "targets NOT met", flush=True)


def machine() -> dict[str, Any]:
    """What the figures were measured on: processor, usable cores, memory in GiB, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
