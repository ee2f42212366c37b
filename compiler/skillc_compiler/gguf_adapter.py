"""Adapters as GGUF files for llama.cpp, written by our own converter.

The one in llama.cpp drops rsLoRA scaling and alpha_pattern and accepts targets that cannot load;
here scaling is part of `Adapter`, and a target the base lacks is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skillc_compiler import arch as architectures
from skillc_compiler.adapter import Adapter, LoraPair
from skillc_compiler.arch import Architecture, in_layer
from skillc_compiler.errors import AdapterError
from skillc_compiler.gguf_encode import DTYPES, Tensor, encode_gguf, encode_tensor
from skillc_compiler.gguf_names import tensor_names
from skillc_compiler.gguf_types import BLOCKS, DType, Field, GgufError, Kind
from skillc_compiler.ridge import PREFIX, Ridge, ridge_field

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from skillc_compiler.gguf_base import BaseInfo

    Matrix = npt.NDArray[np.float32]

MAX_RANK = 256
MIN_ALPHA, MAX_ALPHA = 1e-6, 1e4


def adapter_to_gguf(adapter: Adapter, base: BaseInfo, dtype: str = "f32") -> bytes:
    """The GGUF file of an adapter for this base, factors as "f32", "f16" or "q8_0".

    Equal input gives equal bytes. For q8_0 ranks are padded with zeros to multiples of 32 and `b`
    makes up for it; rows of `a` that are no multiple of 32 stay f16. Raises AdapterError when the
    adapter is for another base, targets what the base lacks, or does not fit in the type.
    """
    if dtype not in DTYPES:
        raise AdapterError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if adapter.manifest.base_hash != base.hash:
        raise AdapterError(
            f"adapter of {adapter.manifest.skill_name} is for base "
            f"{adapter.manifest.base_hash[:12]}, not {base.name} ({base.hash[:12]}): build it again"
        )
    if not MIN_ALPHA <= adapter.alpha <= MAX_ALPHA:
        raise AdapterError(f"alpha {adapter.alpha} is not between {MIN_ALPHA:g} and {MAX_ALPHA:g}")
    targets = adapter_targets(adapter, base)
    try:
        tensors: list[Tensor] = []
        fields = _fields(adapter, base)
        for module, name in targets.items():
            pair = arranged_pair(module, adapter.pairs[module], base)
            tensors += _encode_pair(name, pair, DTYPES[dtype])
            if (ridge := adapter.ridges.get(module)) is not None:
                ridge = _arranged_ridge(module, ridge, base, tensors[-2].shape[0])
                fields[f"{PREFIX}{name}"] = ridge_field(ridge)
        return b"".join(encode_gguf(fields, tensors))
    except GgufError as error:
        raise AdapterError(f"adapter of {adapter.manifest.skill_name}: {error}") from error


def _fields(adapter: Adapter, base: BaseInfo) -> dict[str, Field]:
    manifest = adapter.manifest
    texts = {
        "general.architecture": base.arch,
        "general.type": "adapter",
        "general.name": manifest.skill_name,
        "adapter.type": "lora",
        "skillc.base_hash": manifest.base_hash,
        "skillc.compiler_hash": manifest.compiler_hash,
        "skillc.skill_hash": manifest.skill_hash,
    }
    fields = {key: Field(Kind.STRING, value) for key, value in texts.items()}
    # Any other type than F32 kills llama.cpp; without the key it applies no scaling at all.
    fields["adapter.lora.alpha"] = Field(Kind.F32, adapter.alpha)
    return fields


def adapter_targets(adapter: Adapter, base: BaseInfo) -> dict[str, str]:
    """Module -> tensor name in the base's order, all checked against the base's shapes.

    Raises AdapterError for a target that the base lacks or that has another shape.
    """
    arch = architecture(base)
    names = tensor_names(base.arch, base.n_layers)
    for module, pair in adapter.pairs.items():
        linear = module == "lm_head" or in_layer(module) in arch.linears
        shape = base.tensors.get(names.get(module, ""))
        if not linear or shape is None:
            raise AdapterError(f"target {module} is not a linear module of base {base.name}")
        if shape != (pair.b.shape[0], pair.a.shape[1]):
            raise AdapterError(
                f"target {module} is {shape[0]} x {shape[1]} in base {base.name}, "
                f"the adapter's {pair.b.shape[0]} x {pair.a.shape[1]}"
            )
        if pair.rank > MAX_RANK:
            raise AdapterError(f"target {module} has rank {pair.rank}; the limit is {MAX_RANK}")
    return {module: name for module, name in names.items() if module in adapter.pairs}


def architecture(base: BaseInfo) -> Architecture:
    """The base's architecture. Raises AdapterError for one that is not supported."""
    found = architectures.by_name(base.arch)
    if found is None:
        raise AdapterError(f"base {base.name}: architecture {base.arch} is not supported")
    return found


def arranged_pair(
    module: str, pair: LoraPair, base: BaseInfo, *, inverse: bool = False
) -> LoraPair:
    """Factors in the order of the GGUF's rows and columns; with `inverse`, back from it."""
    import numpy as np

    arch, parameter = architecture(base), f"{in_layer(module)}.weight"
    rows, columns = arch.rows(parameter, base.metadata), arch.columns(parameter, base.metadata)
    if rows is None and columns is None:
        return pair
    if inverse:
        rows = None if rows is None else np.argsort(rows)
        columns = None if columns is None else np.argsort(columns)
    a = pair.a if columns is None else pair.a[:, columns]
    return LoraPair(a, pair.b if rows is None else pair.b[rows])


def _arranged_ridge(module: str, ridge: Ridge, base: BaseInfo, rank: int) -> Ridge:
    """For factors as the GGUF has them: columns in its order, `rank` with padding."""
    import numpy as np

    parameter = f"{in_layer(module)}.weight"
    columns = architecture(base).columns(parameter, base.metadata)
    spread = ridge.spread if columns is None else ridge.spread[columns]
    return Ridge(ridge.alpha, spread, np.pad(ridge.gram, (0, rank - len(ridge.gram))))


def _encode_pair(name: str, pair: LoraPair, dtype: DType) -> list[Tensor]:
    per_block, _ = BLOCKS[dtype]
    a, b = pad_rank(pair, per_block)
    a_type = DType.F16 if a.shape[1] % per_block else dtype
    return [encode_tensor(f"{name}.lora_a", a, a_type), encode_tensor(f"{name}.lora_b", b, dtype)]


def pad_rank(pair: LoraPair, multiple: int) -> tuple[Matrix, Matrix]:
    """Factors whose rank is a multiple of `multiple`, equal to `pair` under the same alpha."""
    import numpy as np

    extra = -pair.rank % multiple
    if not extra:
        return pair.a, pair.b
    a = np.pad(pair.a, ((0, extra), (0, 0)))
    b = np.pad(pair.b, ((0, 0), (0, extra)))
    return a, b * np.float32((pair.rank + extra) / pair.rank)
