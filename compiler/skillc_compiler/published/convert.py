"""From a published checkpoint to the compiler of a base: checked, converted, put beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler.bases import COMPILER_FILES, Base
from skillc_compiler.durable import write_durable
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.host import Site
from skillc_compiler.families.place import compiler_place
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.gguf_base import BaseInfo, read_base_info
from skillc_compiler.gguf_names import LINEARS, tensor_names
from skillc_compiler.published import doc_to_lora, memory_token

if TYPE_CHECKING:
    from torch import Tensor

SOURCES = ("latentskill", "shine", "parametricskills", "doc2lora")


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made: the family, its settings, the number of weights, and remarks."""

    family: str
    folder: Path
    settings: Mapping[str, Any]
    parameters: int
    remarks: tuple[str, ...] = field(default=())


def import_compiler(
    source: str,
    checkpoint: Path,
    base: Base,
    *,
    heads: int | None = None,
    changes: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Imported:
    """Convert the checkpoint of `source` into compiler.safetensors and compiler.json of `base`.

    `changes` are settings of the family that the user gives, such as gain, context or chunk.
    Nothing is written unless everything fits. Raises CompilerError.
    """
    folder = compiler_place(base, force=force)
    info = read_base_info(base.gguf)
    chosen = dict(changes or {})
    remarks: list[str] = []
    if source == "doc2lora":
        family = "perceiver"
        settings, state = _perceiver(checkpoint, info, chosen, remarks)
    else:
        family = "m2p"
        config, state = memory_token.read_checkpoint(
            checkpoint, base_sites(info), heads=heads, changes=chosen
        )
        if (config.hidden, config.layers) != (info.hidden, info.n_layers):
            raise CompilerError(
                f"{checkpoint}: for {config.layers} layers of {config.hidden}, base"
                f" {base.name!r} has {info.n_layers} of {info.hidden}"
            )
        settings = config.to_dict()
    table = {"family": family, "id": f"{source}-{base.name}", family: settings}
    write_compiler(folder, base, table, state)
    count = sum(value.numel() for value in state.values())
    return Imported(family, folder, settings, count, tuple(remarks))


def _perceiver(
    checkpoint: Path, info: BaseInfo, changes: Mapping[str, Any], remarks: list[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    config, state, made_for = doc_to_lora.read_checkpoint(checkpoint, changes=changes)
    shapes = {(site.name, site.d_in, site.d_out) for site in base_sites(info)}
    for name in config.modules:
        if (name, config.inputs[name], config.outputs[name]) not in shapes:
            raise CompilerError(
                f"{checkpoint}: {name} of {config.inputs[name]} in and {config.outputs[name]} out"
                f" is not in base {info.name!r}; it was made for {made_for or 'another base'}"
            )
    if (config.hidden, config.layers) != (info.hidden, info.n_layers):
        raise CompilerError(
            f"{checkpoint}: for {config.layers} layers of {config.hidden}, base {info.name!r} has"
            f" {info.n_layers} of {info.hidden}; it was made for {made_for or 'another base'}"
        )
    if max((*config.prefix, *config.suffix), default=0) >= info.vocab_size:
        raise CompilerError(f"{checkpoint}: made for the vocabulary of {made_for}, not this base's")
    if not config.prefix:
        remarks.append(f"no chat affixes are known for {made_for!r}: texts are read bare")
    return config.to_dict(), state


def base_sites(info: BaseInfo) -> list[Site]:
    """The base's linear modules, layer by layer in the order of LINEARS, from its header."""
    try:
        names = tensor_names(info.arch, info.n_layers)
    except KeyError as error:
        raise CompilerError(f"{info.path}: architecture {info.arch} is not supported") from error
    found = []
    for layer in range(info.n_layers):
        for linear in LINEARS:
            path = f"model.layers.{layer}.{linear}"
            shape = info.tensors.get(names.get(path, ""))
            if shape is not None:
                found.append(Site(path, layer, linear, shape[1], shape[0]))
    return found


def write_compiler(
    folder: Path, base: Base, table: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Write both files of a compiler; a reader sees the old one, none, or the new one whole."""
    from safetensors.torch import save_file

    weights, settings = (folder / name for name in COMPILER_FILES)
    beside = weights.with_suffix(".new")
    text = json.dumps(
        {**table, "base_hash": file_sha256(base.gguf)}, indent=2, sort_keys=True, ensure_ascii=False
    )
    try:
        save_file(dict(state), beside)
        beside.chmod(0o644)  # safetensors makes it the owner's alone
        settings.unlink(missing_ok=True)
        beside.replace(weights)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise CompilerError(f"{weights}: cannot be written ({error.strerror})") from error
    write_durable(settings, (text + "\n").encode())
