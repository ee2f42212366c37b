"""Adapters that were trained elsewhere: a PEFT folder or a GGUF, taken for a skill and a base."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skillc_compiler import __version__
from skillc_compiler.adapter import (
    CONFIG_FILE,
    MAX_FILE_BYTES,
    WEIGHTS_FILE,
    Adapter,
    LoraPair,
    Manifest,
    load_peft,
)
from skillc_compiler.errors import AdapterError
from skillc_compiler.gguf_adapter import adapter_to_gguf, arranged_pair
from skillc_compiler.gguf_base import BaseInfo, tensor_values
from skillc_compiler.gguf_check import CheckedAdapter, validate_adapter
from skillc_compiler.gguf_names import tensor_names
from skillc_compiler.skill import Skill

FOREIGN = "foreign"
"""What the manifest of such an adapter has for the compiler's id."""

# These start from changed weights of the base, which the adapter's own file does not hold.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
_TEXT_PART = re.compile(r"^(?:model\.)?language_model\.(?:model\.)?")


@dataclass(frozen=True, slots=True)
class Foreign:
    """An adapter that passed, its GGUF's bytes, and what is worth knowing of it."""

    adapter: Adapter
    gguf: bytes
    warnings: tuple[str, ...] = ()


def read_foreign(path: Path, skill: Skill, base: BaseInfo, dtype: str = "f16") -> Foreign:
    """Read a PEFT folder or an adapter's GGUF for `skill` on `base`.

    A PEFT folder is stored as `dtype`; of a GGUF the very bytes are kept. Raises AdapterError with
    one line for what does not fit the base, is malformed, or is no plain LoRA.
    """
    if not path.is_dir():
        return _from_gguf(path, skill, base)
    found = _from_peft(path, skill, base, dtype)
    validate_adapter(found.gguf, base)
    return found


def adapter_from_gguf(
    data: bytes, checked: CheckedAdapter, manifest: Manifest, base: BaseInfo
) -> Adapter:
    """The factors in a GGUF that passed `validate_adapter`, by module path; inverse of writing it.

    The manifest's rank, alpha and targets are replaced by the file's.
    """
    modules = {name: module for module, name in tensor_names(base.arch, base.n_layers).items()}
    pairs = {}
    for tensor in checked.tensors:
        target, _, half = tensor.rpartition(".")
        if half == "lora_b":
            continue
        if target not in modules:
            raise AdapterError(f"adapter refused: {target} is no module of {base.name}")
        a, b = (_values(f"{target}.{h}", data, checked) for h in ("lora_a", "lora_b"))
        if not checked.alpha:
            # No scaling at all: as with alpha = the pair's rank.
            b = b * b.dtype.type(a.shape[0] / checked.rank)
        pairs[modules[target]] = arranged_pair(modules[target], LoraPair(a, b), base, inverse=True)
    alpha = checked.alpha or float(checked.rank)
    return _with(manifest, pairs, alpha)


def _from_gguf(path: Path, skill: Skill, base: BaseInfo) -> Foreign:
    data = _read(path)
    try:
        checked = validate_adapter(data, base)
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from error
    return Foreign(adapter_from_gguf(data, checked, _manifest(path, data, skill, base), base), data)


def _from_peft(path: Path, skill: Skill, base: BaseInfo, dtype: str) -> Foreign:
    if not (path / WEIGHTS_FILE).is_file() and (path / "adapter_model.bin").is_file():
        raise AdapterError(f"{path}: a pickled adapter_model.bin can run code: save as safetensors")
    weights, config = _read(path / WEIGHTS_FILE), _read(path / CONFIG_FILE)
    options = _options(config, path)
    start = options.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise AdapterError(
            f"{path}: started from {start}, which changes the base: convert it first"
        )
    adapter = load_peft(path, _manifest(path, weights + config, skill, base))
    pairs = {_TEXT_PART.sub("model.", name): pair for name, pair in adapter.pairs.items()}
    adapter = _with(adapter.manifest, pairs, adapter.alpha)
    trained_on = options.get("base_model_name_or_path")
    warnings = (f"it says that it was trained on {trained_on}",) if trained_on else ()
    return Foreign(adapter, adapter_to_gguf(adapter, base, dtype), warnings)


def _manifest(path: Path, data: bytes, skill: Skill, base: BaseInfo) -> Manifest:
    return Manifest(
        skill_name=skill.name,
        skill_hash=skill.hash,
        base_name=base.name,
        base_hash=base.hash,
        compiler_id=FOREIGN,
        compiler_hash=hashlib.sha256(data).hexdigest(),
        rank=1,
        alpha=1.0,
        targets=(),
        tool_version=__version__,
        source=path.name,
    )


def _with(manifest: Manifest, pairs: Mapping[str, LoraPair], alpha: float) -> Adapter:
    rank = max(pair.rank for pair in pairs.values())
    filled = replace(manifest, rank=rank, alpha=alpha, targets=tuple(pairs))
    return Adapter(pairs, alpha, filled)


def _values(name: str, data: bytes, checked: CheckedAdapter) -> Any:
    info = checked.tensors[name]
    return tensor_values(info, data[info.offset : info.offset + info.size])


def _options(config: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(config)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path / CONFIG_FILE}: not JSON") from error
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise AdapterError(f"{path}: no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AdapterError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read ({error.strerror})") from error
