"""A model as Hugging Face keeps it: config.json, safetensors shards, tokenizer.json, template.

Weights are mapped, not read: what a caller looks at is all that comes into memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler.arch import text_config
from skillc_compiler.errors import BaseModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

INDEX_FILE = "model.safetensors.index.json"
ONE_FILE = "model.safetensors"
WANTED = ("*.json", "*.safetensors", "*.jinja")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MAX_JSON = 256 << 20
# uint16 stands for the bits of bfloat16, which numpy lacks.
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_TEXT_PART = re.compile(r"^(?:model\.)?language_model\.(?:model\.)?")
_NO_TEXT = re.compile(r"(?:^|\.)(?:vision_tower|multi_modal_projector|visual|mtp|rotary_emb)\.")


@dataclass(frozen=True, slots=True)
class HfFolder:
    """What describes a model: `config` is its text part, with the ids of bos, eos and pad."""

    path: Path
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    chat_template: str

    @staticmethod
    def open(path: Path) -> HfFolder:
        """Read the descriptions in a folder. Raises BaseModelError for what is not there."""
        config = text_config(_object(path / "config.json"))
        tokenizer = _object(path / "tokenizer.json")
        options = _optional(path / "tokenizer_config.json")
        if not isinstance(tokenizer.get("model"), dict):
            raise BaseModelError(f"{path / 'tokenizer.json'}: is no tokenizer")
        ids = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens") or []}
        for name in ("bos", "eos", "pad"):
            token = options.get(f"{name}_token")
            text = token.get("content") if isinstance(token, dict) else token
            if text in ids:
                config[f"{name}_token_id"] = ids[text]
        return HfFolder(path, config, tokenizer, _template(path, options))

    def weights(self) -> Parameters:
        """The parameters of the text model. Raises BaseModelError for files that do not fit."""
        return Parameters(self.path)


class Parameters(Mapping[str, "npt.NDArray[Any]"]):
    """Parameter name -> array in the file's own type (uint16: bfloat16), mapped from the disk."""

    def __init__(self, folder: Path) -> None:
        self._where: dict[str, tuple[Path, str, tuple[int, ...], int, int]] = {}
        for shard in _shards(folder):
            for name, entry in _read_shard(shard).items():
                if not _NO_TEXT.search(name):
                    self._where[_plain(name)] = (shard, *entry)
        if not self._where:
            raise BaseModelError(f"{folder}: the safetensors hold no weights of a language model")

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        import numpy as np

        shard, dtype, shape, start, end = self._where[name]
        if dtype not in _DTYPES:
            raise BaseModelError(f"{shard}: {name} is {dtype}; F32, F16 and BF16 are read")
        mapped: npt.NDArray[np.uint8] = np.memmap(shard, np.uint8, "r", start, (end - start,))
        try:
            return mapped.view(_DTYPES[dtype]).reshape(shape)
        except ValueError as error:
            raise BaseModelError(f"{shard}: {name} does not fit its shape {shape}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """A parameter's shape, without a look at its values."""
        return self._where[name][2]


def find_hf(source: str) -> tuple[Path, str | None]:
    """The folder of a local directory or a hub id, and the commit of the latter.

    A hub id is taken from the cache, or downloaded. Raises BaseModelError with one line.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve(), None
    if not _HUB_ID.fullmatch(source) or path.exists():
        raise BaseModelError(f"{source}: no such folder, and no hub id such as Qwen/Qwen3-4B")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
        from huggingface_hub.errors import RepositoryNotFoundError as UnknownRepoError
    except ImportError as error:
        raise BaseModelError(
            f"{source}: {error.name} is not installed: pip install 'skillc[compiler]'"
        ) from error
    try:
        folder = Path(snapshot_download(source, allow_patterns=list(WANTED)))
    except GatedRepoError as error:
        reason = "is gated: accept its licence on the hub, then run 'hf auth login'"
        raise BaseModelError(f"{source}: {reason}") from error
    except UnknownRepoError as error:
        raise BaseModelError(
            f"{source}: not on the hub, or private: run 'hf auth login'"
        ) from error
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BaseModelError(
            f"{source}: not in the hub's cache here, and the hub cannot be reached: "
            "go online once, or give the model's folder"
        ) from error
    return folder, folder.name


def _plain(name: str) -> str:
    """A parameter's name in the text model alone."""
    return _TEXT_PART.sub("model.", name) if "lm_head" not in name else "lm_head.weight"


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if index.is_file():
        names = _object(index).get("weight_map")
        if not isinstance(names, dict):
            raise BaseModelError(f"{index}: lists no weights")
        found = sorted({str(name) for name in names.values()})
        for name in found:
            if Path(name).name != name:
                raise BaseModelError(f"{index}: names a file outside its folder")
        return [folder / name for name in found]
    if (folder / ONE_FILE).is_file():
        return [folder / ONE_FILE]
    raise BaseModelError(f"{folder}: holds no {ONE_FILE} and no {INDEX_FILE}")


def _read_shard(path: Path) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """Tensor name -> (type, shape, first byte, byte after the last), all inside the file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MAX_JSON:
                raise ValueError("its header is too long")
            header = json.loads(file.read(size))
        length, found = path.stat().st_size, {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + size + int(at) for at in entry["data_offsets"])
            if not 8 + size <= start <= end <= length:
                raise ValueError(f"{name} passes the file's end")
            found[name] = (str(entry["dtype"]), tuple(map(int, entry["shape"])), start, end)
    except OSError as error:
        raise BaseModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise BaseModelError(f"{path}: not a usable safetensors file ({reason})") from error
    return found


def _template(folder: Path, options: Mapping[str, Any]) -> str:
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text("utf-8")
    found = options.get("chat_template") or ""
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found}
        found = named.get("default") or ""
    return str(found)


def _optional(path: Path) -> dict[str, Any]:
    return _object(path) if path.is_file() else {}


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON:
            raise BaseModelError(f"{path}: is too large")
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BaseModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise BaseModelError(f"{path}: not JSON") from error
    if not isinstance(found, dict):
        raise BaseModelError(f"{path}: not a JSON object")
    return found
