"""The element-wise parts of the base, each one kernel where a compiler is at hand.

On CPUs these cost as much as the matrix products when every step of theirs walks through memory.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
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


def best_device() -> torch.device:
    """The first GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 for matrix products where the device multiplies in it; other CPUs are 7x slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))


def exact(device: torch.device) -> torch.autocast:
    """Products in their own type again, within `autocast`."""
    return torch.autocast(device.type, enabled=False)


def has_bfloat16(device: torch.device) -> bool:
    """Has the device instructions for bfloat16?"""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fuse(device: torch.device) -> None:
    """Compile the operations from now on; without a compiler for it they stay as they are."""
    if device.type == "cuda":
        missing = "" if find_spec("triton") else "Triton"
    else:
        missing = "" if shutil.which("c++") or shutil.which("g++") else "C++ compiler"
    if missing:
        print(f"no {missing}: training goes on without fused operations", file=sys.stderr)
        return
    for name, plain in _PLAIN.items():
        _used[name] = torch.compile(plain, dynamic=True)
