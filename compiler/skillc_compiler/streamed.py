"""A base whose layers stay on the disk: each is read when its turn comes, and let go after it.

What only passes through a base needs one layer's weights at a time. The model is the one of
transformers, with its own code for masks and positions; only its layers have no weights until
their forward pass begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from skillc_compiler.arch.architecture import INVERSE_FREQUENCIES
from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_base import base_config, read_tokenizer, restored, tensor_values
from skillc_compiler.gguf_header import read_header
from skillc_compiler.gguf_types import GgufError
from skillc_compiler.hf_folder import Parameters
from skillc_compiler.recompute import recompute
from skillc_compiler.torch_base import text_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base

_INSIDE = "model.layers."


class Shelf(Protocol):
    """Where parameters lie: by name, each a new tensor in the file's own or a float type."""

    def __contains__(self, name: str) -> bool: ...

    def __getitem__(self, name: str) -> Tensor: ...


class FolderShelf:
    """The safetensors of a Hugging Face folder."""

    def __init__(self, folder: Path) -> None:
        self._weights = Parameters(folder)

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def __getitem__(self, name: str) -> Tensor:
        values = np.array(self._weights[name])
        if values.dtype == np.uint16:
            return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(values)


class GgufShelf:
    """The tensors of a GGUF, decoded to float32."""

    def __init__(self, path: Path) -> None:
        self._path, self._header = path, read_header(path)
        self._arch, self.config = base_config(self._header)
        self._names = self._arch.parameters(self.config["num_hidden_layers"])

    def __contains__(self, name: str) -> bool:
        return self._names.get(name, "") in self._header.tensors

    def __getitem__(self, name: str) -> Tensor:
        info = self._header.tensors[self._names[name]]
        with self._path.open("rb") as file:
            file.seek(info.offset)
            values = tensor_values(info, file.read(info.size))
        # A copy: the values may be a view of bytes that cannot be written to.
        return torch.from_numpy(np.array(restored(self._arch, name, values, self._header)))


def load_streamed(base: Base, dtype: str = "float32") -> tuple[Any, Tokenizer]:
    """The base's causal language model (eval mode, CPU) with its layers on the disk, its tokenizer.

    For its own weights there are no gradients. A pass with gradients for anything else reads each
    layer once more on its way back. `dtype` is "float32", "bfloat16" or "float16". Raises
    BaseModelError.
    """
    outline = _outline(base, dtype)
    for number, layer in enumerate(outline.model.model.layers):
        _stream(layer, outline, number)
    return outline.model.eval(), read_tokenizer(base.gguf)


def load_by_layers(
    base: Base, dtype: str, take: Callable[[nn.Module], None]
) -> tuple[Any, Tokenizer]:
    """As `load_streamed`, but each layer is read at once and handed to `take` before the next."""
    outline = _outline(base, dtype)
    for number, layer in enumerate(outline.model.model.layers):
        layer.load_state_dict(outline.read(number), assign=True)
        take(layer)
    return outline.model.eval(), read_tokenizer(base.gguf)


@dataclass(frozen=True)
class _Outline:
    """A model that has its weights but for those of its layers, and where these are."""

    model: Any
    shelf: Shelf
    kind: torch.dtype
    where: Path

    def read(self, number: int) -> dict[str, Tensor]:
        """The parameters of a layer, by their names in the layer, where the embedding is."""
        shapes = self.model.model.layers[number].state_dict()
        found = {own: self.get(_name(number, own), like) for own, like in shapes.items()}
        device = self.model.get_input_embeddings().weight.device
        return {own: value.to(device) for own, value in found.items()}

    def get(self, name: str, like: Tensor) -> Tensor:
        """The parameter `name`, of the shape of `like`."""
        if name not in self.shelf:
            raise BaseModelError(f"{self.where}: lacks the parameter {name}")
        found = self.shelf[name]
        if found.shape != like.shape:
            raise BaseModelError(f"{self.where}: {name} is {(*found.shape,)}, not {(*like.shape,)}")
        return found.to(self.kind)

    def check(self) -> None:
        """BaseModelError where a layer lacks a parameter."""
        for number, layer in enumerate(self.model.model.layers):
            for own, value in layer.state_dict().items():
                if (name := _name(number, own)) not in self.shelf:
                    raise BaseModelError(
                        f"{self.where}: lacks the parameter {name} {(*value.shape,)}"
                    )


def _outline(base: Base, dtype: str) -> _Outline:
    try:
        if base.hf is not None:
            causal, config = text_model(base.hf)
            shelf: Shelf = FolderShelf(base.hf)
        else:
            from_gguf = GgufShelf(base.gguf)
            causal, config = text_model(from_gguf.config)
            shelf = from_gguf
    except GgufError as error:
        raise BaseModelError(f"{base.gguf}: {error}") from error
    with no_init_weights(), _without_weights():
        model = causal(config)
    model.requires_grad_(False)
    outline = _Outline(model, shelf, getattr(torch, dtype), base.hf or base.gguf)
    for name, parameter in list(model.named_parameters()):
        tied = name == "lm_head.weight" and model.config.tie_word_embeddings
        if not name.startswith(_INSIDE) and not tied:
            _put(model, name, outline.get(name, parameter))
    model.tie_weights()
    outline.check()
    if INVERSE_FREQUENCIES in shelf:
        model.model.rotary_emb.inv_freq = shelf[INVERSE_FREQUENCIES]
    return outline


def _name(number: int, own: str) -> str:
    return f"{_INSIDE}{number}.{own}"


def _stream(layer: nn.Module, outline: _Outline, number: int) -> None:
    empty, forward = dict(layer.state_dict()), layer.forward

    def run(*given: Any, **named: Any) -> Any:
        layer.load_state_dict(outline.read(number), assign=True)
        try:
            return forward(*given, **named)
        finally:
            layer.load_state_dict(empty, assign=True)

    layer.forward = run
    recompute(layer)


def _put(model: nn.Module, name: str, value: Tensor) -> None:
    module, _, own = name.rpartition(".")
    setattr(model.get_submodule(module), own, nn.Parameter(value, requires_grad=False))


@contextmanager
def _without_weights() -> Iterator[None]:
    """Parameters that are made in the block have a shape and no memory; buffers are real."""
    register = nn.Module.register_parameter

    def shape_only(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = shape_only  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
