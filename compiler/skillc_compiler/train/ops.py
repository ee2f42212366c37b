"""The element-wise parts of the base, each one kernel where a C++ compiler is at hand.

On CPUs these cost as much as the matrix products when every step of theirs walks through memory.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skillc_compiler.families.writer_net import rotate


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _head(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    turned = rotate(_rms(x.float(), weight, eps).transpose(1, 2), cos, sin)
    return turned.to(x.dtype)


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


_PLAIN: dict[str, Callable[..., Any]] = {"rms": _rms, "head": _head, "swiglu": _swiglu}
_used = dict(_PLAIN)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square normalisation (arXiv 1910.07467) over the last dimension of `x`."""
    out: Tensor = _used["rms"](x, weight, eps)
    return out


def head(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Queries or keys [B, L, heads, dim] normalised and rotated: [B, heads, L, dim]."""
    out: Tensor = _used["head"](x, weight, cos, sin, eps)
    return out


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (arXiv 2002.05202)."""
    out: Tensor = _used["swiglu"](gate, up)
    return out


def autocast() -> torch.autocast:
    """bfloat16 for matrix products where the CPU multiplies in it; elsewhere that is 7x slower."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())


def has_bfloat16() -> bool:
    """Has the CPU instructions for bfloat16?"""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fuse() -> None:
    """Compile the operations from now on; without a C++ compiler they stay as they are."""
    if not (shutil.which("c++") or shutil.which("g++")):
        print("no C++ compiler: training goes on without fused operations", file=sys.stderr)
        return
    for name, plain in _PLAIN.items():
        _used[name] = torch.compile(plain, dynamic=True)
