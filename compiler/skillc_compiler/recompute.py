"""Layers that are computed once more for their gradients, instead of keeping what they computed.

Of a frozen layer, autograd keeps the weights and what went in and out of every module until the
backward pass has used them: of a model whose layers come from the disk one by one, that is all of
it at once. A layer that is computed again in the backward pass keeps its input alone (Chen et al.
2016, arXiv 1604.06174).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Hooks = list[tuple[nn.Module, "OrderedDict[int, Any]"]]


def recompute(layer: nn.Module) -> None:
    """Let a pass with gradients through `layer` keep its input, and compute the layer again later.

    What hooks added to the layer's modules in the forward pass is added again, whether or not the
    hooks are still there. Random numbers are not repeated: the layer must use none.
    """
    forward = layer.forward

    def run(*given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*given, **named)
        hooks = _hooks(layer)
        return checkpoint(
            forward,
            *given,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _with_hooks(hooks)),
            **named,
        )

    layer.forward = run


def _hooks(layer: nn.Module) -> Hooks:
    inside = [module for module in layer.modules() if module is not layer]
    return [(module, OrderedDict(module._forward_hooks)) for module in inside]


@contextmanager
def _with_hooks(hooks: Hooks) -> Iterator[None]:
    """The modules with these forward hooks and no others for the time being."""
    # In place: the handles that remove a hook know the very dictionary.
    before = [(module, OrderedDict(module._forward_hooks)) for module, _ in hooks]
    _set(hooks)
    try:
        yield
    finally:
        _set(before)


def _set(hooks: Hooks) -> None:
    for module, wanted in hooks:
        module._forward_hooks.clear()
        module._forward_hooks.update(wanted)
