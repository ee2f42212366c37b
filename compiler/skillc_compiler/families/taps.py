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

from skillc_compiler.families.host import Host

Factors = Mapping[int, tuple[Tensor, Tensor]]
SITE = "mlp.down_proj"
"""The module of a layer whose inputs are a writer's keys."""


@dataclass
class Seen:
    """One forward pass: `states` before every layer and after the last, `inputs` of the sites."""

    states: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)


class Taps:
    """Hooks on the layers of a base, and on the `down_proj` of its `sites` (numbers, rising)."""

    def __init__(self, host: Host, sites: Sequence[int]) -> None:
        self._own = threading.local()
        self._device = host.device
        for layer in host.layers:
            layer.register_forward_pre_hook(self._before, with_kwargs=True)
        host.layers[-1].register_forward_hook(self._after)
        for site in sites:
            down = host.layers[site].get_submodule(SITE)
            down.register_forward_pre_hook(self._entering)
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

    def _keep(self, name: str, value: Tensor) -> None:
        seen = getattr(self._own, "seen", None)
        if seen is not None:
            getattr(seen, name).append(value.to(self._device))

    def _before(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._keep("states", given[0] if given else named["hidden_states"])

    def _after(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        self._keep("states", output[0] if isinstance(output, tuple) else output)

    def _entering(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self._keep("inputs", given[0])

    def _adding(self, site: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        def add(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
            factors: Factors = getattr(self._own, "factors", {})
            if site not in factors:
                return None
            x = arguments[0]
            a, b = (half.to(x.device) for half in factors[site])
            added: Tensor = output + ((x.to(a.dtype) @ a.T) @ b.T).to(output.dtype)
            return added

        return add
