"""What a compiler reads from a base, and adds to it, while the base runs: hooks set once.

Each thread has its own readings and factors, so several skills can be compiled at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Factors = Mapping[int, tuple[Tensor, Tensor]]


@dataclass
class Seen:
    """One forward pass: `states` before every layer and after the last, `inputs` of the sites."""

    states: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)


class Taps:
    """Hooks on the layers of a base, and on the `down_proj` of its `sites` (numbers, rising)."""

    def __init__(self, model: Any, sites: Sequence[int]) -> None:
        self._own = threading.local()
        for module in (*model.model.layers, model.model.norm):
            module.register_forward_pre_hook(self._keeping("states"))
        for site in sites:
            down = model.model.layers[site].mlp.down_proj
            down.register_forward_pre_hook(self._keeping("inputs"))
            down.register_forward_hook(self._adding(site))

    @contextmanager
    def reading(self) -> Iterator[Seen]:
        """What this thread's forward pass in the block reads."""
        self._own.seen = seen = Seen()
        try:
            yield seen
        finally:
            self._own.seen = None

    @contextmanager
    def attached(self, factors: Factors) -> Iterator[None]:
        """LoRA factors (A, B) by site, with alpha = rank, added in this thread for the block."""
        self._own.factors = factors
        try:
            yield
        finally:
            self._own.factors = {}

    def _keeping(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen = getattr(self._own, "seen", None)
            if seen is not None:
                getattr(seen, name).append(arguments[0])

        return keep

    def _adding(self, site: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        def add(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
            factors: Factors = getattr(self._own, "factors", {})
            if site not in factors:
                return None
            a, b = factors[site]
            added: Tensor = output + (arguments[0] @ a.T) @ b.T
            return added

        return add
