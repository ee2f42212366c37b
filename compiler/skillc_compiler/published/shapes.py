"""Checks of a checkpoint's tensors, each failure one line that names the tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skillc_compiler.errors import CompilerError

COMPILED = "_orig_mod."


class Tensors:
    """The named tensors of one file; every one is to be taken exactly once."""

    def __init__(self, path: Path, values: Any) -> None:
        if not isinstance(values, Mapping) or not values:
            raise CompilerError(f"{path}: not a table of tensors")
        self.path = path
        self.values = {str(name).replace(COMPILED, ""): value for name, value in values.items()}
        if len(self.values) < len(values):
            raise CompilerError(f"{path}: holds tensors both with and without {COMPILED}")

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a tensor that must have `ndim` dimensions."""
        value = self.values.get(name)
        if not isinstance(value, Tensor):
            raise CompilerError(f"{self.path}: tensor {name} is missing")
        if value.ndim != ndim or 0 in value.shape:
            raise CompilerError(
                f"{self.path}: tensor {name} is {tuple(value.shape)}, {ndim} dimensions expected"
            )
        return tuple(value.shape)

    def take(self, name: str, *shape: int, loose: bool = False) -> Tensor:
        """The tensor `name`, which must have this shape; `loose` allows further dimensions of 1."""
        value = self.values.pop(name, None)
        if not isinstance(value, Tensor):
            raise CompilerError(f"{self.path}: tensor {name} is missing")
        same = tuple(value.shape) == shape
        if loose and not same:
            same = [n for n in value.shape if n != 1] == [n for n in shape if n != 1]
        if not same:
            raise CompilerError(
                f"{self.path}: tensor {name} is {tuple(value.shape)}, {shape} expected"
            )
        return checked(value.detach().reshape(shape), f"{self.path}: tensor {name}")

    def count(self, pattern: str) -> int:
        """How many n from 0 on have a tensor that begins with pattern.format(n)."""
        number = 0
        while any(name.startswith(pattern.format(number)) for name in self.values):
            number += 1
        return number

    def finish(self) -> None:
        """CompilerError when tensors are left that nothing asked for."""
        if self.values:
            names = ", ".join(sorted(self.values)[:3])
            raise CompilerError(f"{self.path}: {len(self.values)} tensors are not known ({names})")


def checked(value: Tensor, where: str) -> Tensor:
    """`value` on its own memory, if it is of a float type and finite; CompilerError if not."""
    if not value.dtype.is_floating_point:
        raise CompilerError(f"{where} is {value.dtype}, not a float type")
    if not torch.isfinite(value).all():
        raise CompilerError(f"{where} is not finite")
    return value.contiguous()
