"""How one architecture's modules are called in Hugging Face checkpoints and in GGUF files."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from skillc_compiler import arch as _arch
from skillc_compiler.arch import LINEARS

__all__ = ["ARCHITECTURES", "LINEARS", "tensor_names"]

ARCHITECTURES = tuple(dict.fromkeys(one.name for one in _arch.ALL))


def tensor_names(arch: str, n_layers: int) -> Mapping[str, str]:
    """Hugging Face module path -> GGUF tensor name, in the order in which a base is written.

    Each module has one weight: "model.layers.0.mlp.down_proj" -> "blk.0.ffn_down.weight".
    Raises KeyError for an architecture not in ARCHITECTURES.
    """
    found = _arch.by_name(arch)
    if found is None:
        raise KeyError(arch)
    names = found.parameters(n_layers).items()
    return MappingProxyType(
        {p.removesuffix(".weight"): tensor for p, tensor in names if p.endswith(".weight")}
    )
