"""Whether a Hugging Face folder and a GGUF are the same model: shape by shape, value by value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler import arch as architectures
from skillc_compiler.arch import Architecture, in_layer
from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_base import scalars, tensor_values
from skillc_compiler.gguf_header import Header, TensorInfo, read_header
from skillc_compiler.gguf_types import DType, GgufError, Kind
from skillc_compiler.gguf_write import arranged, to_float32
from skillc_compiler.hf_folder import HfFolder

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Values = npt.NDArray[np.float32]

# Relative error (root mean square) that a type may show: of weights, twice what rounding random
# ones makes; of logits, what it makes of them in random models of 2 layers, which amplify it.
# Other weights differ by 1.4. The comparison of weights is the sharp one.
TOLERANCES: Mapping[DType, tuple[float, float]] = {
    DType.F32: (1e-5, 0.01),
    DType.F16: (1e-3, 0.02),
    DType.BF16: (5e-3, 0.06),
    DType.Q8_0: (0.015, 0.15),
    DType.Q6_K: (0.04, 0.3),
    DType.Q5_K: (0.08, 0.5),
    DType.Q5_1: (0.08, 0.5),
    DType.Q5_0: (0.1, 0.5),
    DType.Q4_K: (0.15, 0.8),
    DType.Q4_1: (0.15, 0.8),
    DType.Q4_0: (0.2, 0.9),
    DType.Q3_K: (0.3, 1.0),
    DType.Q2_K: (0.6, 1.2),
}
# Rows that are compared of a matrix, in so many places.
_ROWS, _PLACES = 8, 4


@dataclass(frozen=True, slots=True)
class Match:
    """What the comparison of weights found: the worst relative error, and the coarsest type."""

    weights: int
    worst: float
    coarsest: DType


def match_weights(folder: HfFolder, gguf: Path) -> Match:
    """Compare configuration, shapes and samples of all kinds of weights.

    Raises BaseModelError with the first difference that rounding does not explain.
    """
    try:
        header = read_header(gguf)
    except OSError as error:
        raise BaseModelError(f"{gguf}: cannot be read ({error.strerror})") from error
    except GgufError as error:
        raise BaseModelError(f"{gguf}: {error}") from error
    arch = architectures.of_config(folder.config)
    name = header.get("general.architecture", Kind.STRING)
    if name != arch.name:
        raise BaseModelError(f"not the same model: the folder is {arch.name}, the GGUF is {name}")
    config = arch.config(folder.config)
    _match_fields(arch, config, header)
    names = _match_shapes(arch, config, header)
    _match_extra(arch, config, header, gguf)
    worst, count = 0.0, 0
    weights, meta = folder.weights(), scalars(header)
    for parameter in sampled(list(names), config["num_hidden_layers"]):
        if parameter not in weights:
            raise BaseModelError(f"{folder.path}: lacks the parameter {parameter}")
        info = header.tensors[names[parameter]]
        value = arranged(arch, parameter, weights[parameter], meta)
        difference = _relative_error(arch, parameter, value, gguf, info)
        count, worst = count + 1, max(worst, difference)
        bound = TOLERANCES[info.dtype][0]
        if not difference <= bound:
            raise BaseModelError(
                f"not the same model: {parameter} differs by {difference:.2g} of its size; "
                f"{info.dtype.name} rounds by less than {bound:g}"
            )
    return Match(count, worst, coarsest(header))


def coarsest(header: Header) -> DType:
    """The type of the base's matrices that rounds most."""
    kinds = {info.dtype for info in header.tensors.values() if len(info.shape) == 2}
    return max(kinds, key=lambda kind: TOLERANCES.get(kind, (math.inf, 0.0))[0])


def sampled(parameters: list[str], n_layers: int) -> list[str]:
    """Everything outside the layers, and everything in the first, middle and last of them."""
    wanted = {0, n_layers // 2, n_layers - 1}
    return [
        name
        for name in parameters
        if not name.startswith("model.layers.") or int(name.split(".")[2]) in wanted
    ]


def _match_fields(arch: Architecture, config: Mapping[str, Any], header: Header) -> None:
    for key, field in arch.fields(config).items():
        found = header.fields.get(key)
        # A GGUF may be made for less or more context than the model was trained with.
        if found is None or key.endswith((".context_length", ".vocab_size")):
            continue
        same = found.value == field.value
        if isinstance(field.value, float) and isinstance(found.value, float):
            same = math.isclose(found.value, field.value, rel_tol=1e-5)
        if not same:
            raise BaseModelError(
                f"not the same model: {key} is {found.value} in the GGUF, {field.value} in the "
                "folder"
            )


def _match_extra(arch: Architecture, config: Mapping[str, Any], header: Header, gguf: Path) -> None:
    import numpy as np

    for tensor, values in arch.extra_tensors(config).items():
        info = header.tensors.get(tensor)
        if info is None or info.shape != values.shape:
            raise BaseModelError(f"not the same model: the GGUF lacks {tensor} of {values.shape}")
        if not np.allclose(_read_rows(gguf, info, 0, len(values)), values, rtol=1e-4):
            raise BaseModelError(f"not the same model: {tensor} of the GGUF is for another rope")


def _match_shapes(arch: Architecture, config: Mapping[str, Any], header: Header) -> dict[str, str]:
    """Parameter -> tensor for all parameters; BaseModelError unless the shapes are the same."""
    names = arch.parameters(config["num_hidden_layers"])
    found = {}
    for parameter, shape in arch.shapes(config).items():
        tensor = names[parameter]
        info = header.tensors.get(tensor)
        stored = arch.stored_shape(in_layer(parameter), shape)
        if info is None:
            raise BaseModelError(f"not the same model: the GGUF lacks {tensor}")
        if info.shape != stored:
            raise BaseModelError(
                f"not the same model: {tensor} is {info.shape} in the GGUF, {stored} in the folder"
            )
        found[parameter] = tensor
    return found


def _relative_error(
    arch: Architecture, parameter: str, value: npt.NDArray[Any], gguf: Path, info: TensorInfo
) -> float:
    import numpy as np

    wrong = size = 0.0
    for start, rows in _places(info):
        theirs = arch.encode(in_layer(parameter), to_float32(value[start : start + rows]))
        difference = _read_rows(gguf, info, start, rows) - theirs
        wrong += float(np.square(difference, dtype=np.float64).sum())
        size += float(np.square(theirs, dtype=np.float64).sum())
    return math.sqrt(wrong / size) if size else math.sqrt(wrong)


def _places(info: TensorInfo) -> Iterator[tuple[int, int]]:
    """(first row, rows) of the samples of a tensor."""
    total = info.shape[0]
    if len(info.shape) == 1 or total <= _ROWS * _PLACES:
        yield 0, total
        return
    for place in range(_PLACES):
        yield place * (total - _ROWS) // (_PLACES - 1), _ROWS


def _read_rows(gguf: Path, info: TensorInfo, start: int, rows: int) -> Values:
    total = info.shape[0]
    per_row = info.size // total
    with gguf.open("rb") as file:
        file.seek(info.offset + start * per_row)
        data = file.read(rows * per_row)
    shape = (rows, *info.shape[1:])
    return tensor_values(TensorInfo(info.name, shape, info.dtype, 0, rows * per_row), data)
