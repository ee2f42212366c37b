"""Reads Prometheus' text format: the samples of a page, their labels, sums and quantiles."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_LINE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One number and its labels."""

    labels: Mapping[str, str]
    value: float


class Page:
    """The samples of a page, by name; lines that are none are left out."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for line in text.splitlines():
            hit = None if line.startswith("#") else _LINE.fullmatch(line)
            if hit is not None and (value := _number(hit[3])) is not None:
                sample = Sample(dict(_labels(hit[2] or "")), value)
                self._samples.setdefault(hit[1], []).append(sample)

    def samples(self, name: str, **labels: str) -> list[Sample]:
        """The samples called `name` that have these labels."""
        found = self._samples.get(name, [])
        return [sample for sample in found if labels.items() <= sample.labels.items()]

    def total(self, name: str, **labels: str) -> float:
        """The sum of those samples."""
        return sum(sample.value for sample in self.samples(name, **labels))

    def values(self, name: str, label: str) -> list[str]:
        """The values that a label takes, sorted."""
        return sorted({s.labels[label] for s in self.samples(name) if label in s.labels})

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """The quantile of a histogram, linear within a bucket; None when nothing was observed."""
        below = 0.0, 0.0
        buckets = sorted(
            (_number(sample.labels.get("le", "")) or 0.0, sample.value)
            for sample in self.samples(f"{name}_bucket", **labels)
        )
        wanted = share * buckets[-1][1] if buckets else 0.0
        if not wanted:
            return None
        for bound, count in buckets:
            if count >= wanted:
                if math.isinf(bound):
                    break  # beyond the last bound: that is all there is to say
                start, before = below
                return start + (bound - start) * (wanted - before) / (count - before)
            below = bound, count
        return below[0]


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for key, value in _LABEL.findall(text):
        yield key, re.sub(r'\\[\\"n]', lambda hit: _ESCAPES[hit[0]], value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value
