"""Counters and histograms in Prometheus' text format."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A number that only grows, one for each combination of labels."""

    kind: ClassVar[str] = "counter"

    def __init__(self, name: str, help_text: str) -> None:
        self.name = name
        self.help = help_text
        self._values: dict[Labels, float] = {}
        self._turn = threading.Lock()

    def add(self, amount: float = 1, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._turn:
            self._values[key] = self._values.get(key, 0) + amount

    def set(self, value: float, **labels: str) -> None:
        """Take over a number that is counted elsewhere."""
        with self._turn:
            self._values[tuple(sorted(labels.items()))] = value

    def lines(self) -> Iterator[str]:
        with self._turn:
            values = sorted(self._values.items()) or [((), 0.0)]
        for labels, value in values:
            yield f"{self.name}{_braces(labels)} {_number(value)}"


class Gauge(Counter):
    """A number that goes up and down."""

    kind = "gauge"


class Histogram:
    """How many observations fell below each bound, their sum and count, one for each labelling."""

    kind: ClassVar[str] = "histogram"

    def __init__(self, name: str, help_text: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.help = help_text
        self._bounds = tuple(bounds)
        self._values: dict[Labels, list[float]] = {}
        self._turn = threading.Lock()

    def observe(self, value: float, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        with self._turn:
            # Below each bound, then all, then their sum.
            counts = self._values.setdefault(key, [0.0] * (len(self._bounds) + 2))
            for i, bound in enumerate((*self._bounds, math.inf)):
                counts[i] += value <= bound
            counts[-1] += value

    def lines(self) -> Iterator[str]:
        with self._turn:
            found = {key: list(counts) for key, counts in sorted(self._values.items())}
        for labels, (*below, total) in (found or {(): [0.0] * (len(self._bounds) + 2)}).items():
            for bound, number in zip((*self._bounds, math.inf), below, strict=True):
                place = (*labels, ("le", "+Inf" if bound == math.inf else f"{bound:g}"))
                yield f"{self.name}_bucket{_braces(place)} {number:.0f}"
            yield f"{self.name}_sum{_braces(labels)} {total:g}"
            yield f"{self.name}_count{_braces(labels)} {below[-1]:.0f}"


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All figures of a server."""

    def __init__(self) -> None:
        self.requests = Counter("skillc_requests_total", "Requests by path and status.")
        self.errors = Counter("skillc_errors_total", "Answers that are errors, by code.")
        self.prompt_tokens = Counter("skillc_prompt_tokens_total", "Tokens of all prompts.")
        self.cached_tokens = Counter(
            "skillc_cached_tokens_total", "Prompt tokens that needed no decoding."
        )
        self.elided_tokens = Counter(
            "skillc_elided_tokens_total", "Tokens of skill texts that adapters stood for."
        )
        self.generated_tokens = Counter("skillc_generated_tokens_total", "Tokens generated.")
        self.finished = Counter("skillc_answers_total", "Answers by finish reason.")
        self.skill_requests = Counter("skillc_skill_requests_total", "Requests by skill and form.")
        self.skill_tokens = Counter(
            "skillc_skill_generated_tokens_total", "Tokens generated, by each skill attached."
        )
        self.prefixes = Counter(
            "skillc_prefix_cache_total", "Requests by whether part of the prompt was cached."
        )
        self.expired = Counter(
            "skillc_deadlines_exceeded_total", "Requests ended by their deadline."
        )
        self.adapter_loads = Counter("skillc_adapter_loads_total", "Adapters or sets loaded.")
        self.adapters_loaded = Gauge("skillc_adapters_loaded", "Adapters in memory.")
        self.switches = Counter(
            "skillc_set_switches_total", "Changes of the skill set that decodes."
        )
        self.batches = Counter("skillc_decodes_total", "Batches decoded.")
        self.batch_tokens = Counter(
            "skillc_decoded_tokens_total", "Tokens of all batches; over the batches, their size."
        )
        self.copied = Gauge(
            "skillc_prompt_copies_bytes", "Copies of prompts in memory that no sequence holds."
        )
        self.waiting = Gauge("skillc_requests_waiting", "Requests in the queue.")
        self.running = Gauge("skillc_requests_running", "Requests that are being answered.")
        self.ttft = Histogram(
            "skillc_time_to_first_token_seconds", "From arrival to first token.", _SECONDS
        )
        self.skill_ttft = Histogram(
            "skillc_skill_time_to_first_token_seconds",
            "From arrival to first token, by each skill attached.",
            _SECONDS,
        )
        self.duration = Histogram(
            "skillc_request_duration_seconds", "From arrival to the end of the answer.", _SECONDS
        )

    def text(self) -> str:
        """The page that Prometheus reads."""
        lines: list[str] = []
        for metric in vars(self).values():
            lines += (f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}")
            lines += metric.lines()
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Counts in full: six digits are too few for tokens."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = (f'{key}="{_escape(value)}"' for key, value in labels)
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
