"""The processes of a run, and how each gets the base: all of it, or its part of every layer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.host import Host
from skillc_compiler.torch_base import load_frozen

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base


def begin_processes() -> Accelerator:
    """What this process knows of the others. Raises CompilerError where it should and does not."""
    accelerator = Accelerator()
    started = os.environ.get("WORLD_SIZE") or "1"
    if started != str(accelerator.num_processes):
        raise CompilerError(
            f"{started} processes were started, and accelerate joins {accelerator.num_processes}:"
            " without a GPU for each, set ACCELERATE_USE_CPU=true"
        )
    return accelerator


def shared() -> bool:
    """Whether several processes are to share the base's layers: `accelerate launch --use_fsdp`."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    return asked and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def open_whole(base: Base, device: torch.device) -> tuple[Any, Tokenizer]:
    """The frozen base on `device`, unless it was added with a place of its own."""
    from skillc_compiler.streamed import load_by_layers
    from skillc_compiler.torch_base import float_type, stays_on_disk

    def move(layer: nn.Module) -> None:
        layer.to(device)

    # The memory beside a GPU may be too small for what the GPU holds.
    through = device.type != "cpu" and base.load.get("layers") != "disk" and stays_on_disk(base)
    if through:
        model, tokenizer = load_by_layers(base, float_type(base), move)
    else:
        model, tokenizer = load_frozen(base)
    if base.load.get("device_map") or base.load.get("quantize"):
        return model, tokenizer
    if through or Host(model).streamed:
        _move_outside(model, device)
    else:
        model.to(device)
    return model, tokenizer


def open_shared(base: Base, device: torch.device) -> tuple[Any, Tokenizer]:
    """The frozen base with each layer in parts, one a process (FSDP2), gathered for its passes.

    Layers are read one by one, so no process ever holds all of them. The rest (embedding, last
    norm, output) is whole in each. Raises BaseModelError, and CompilerError for a base that was
    added with a place of its own.
    """
    from skillc_compiler.streamed import load_by_layers
    from skillc_compiler.torch_base import float_type

    for option in ("device_map", "quantize"):
        if base.load.get(option):
            raise CompilerError(
                f"base {base.name!r} was added with --{option.replace('_', '-')}, which FSDP does"
                " not take: add it without, or leave out --use_fsdp"
            )
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))

    def share(layer: nn.Module) -> None:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)

    model, tokenizer = load_by_layers(base, float_type(base), share)
    _move_outside(model, device)
    inside = {p for layer in Host(model).layers for p in layer.parameters()}
    outside = {p for p in model.base_model.parameters() if p not in inside}
    fully_shard(model.base_model, mesh=mesh, ignored_params=outside)
    return model, tokenizer


def _move_outside(model: Any, device: torch.device) -> None:
    """Move everything but the layers."""
    for module in (*model.base_model.children(), model.get_output_embeddings()):
        if not isinstance(module, nn.ModuleList):
            module.to(device)
