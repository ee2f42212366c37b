"""The user's bases: added after a check, recorded in base.json, verified, removed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillc import __version__
from skillc.base_check import check_logits, check_tokens
from skillc_compiler.base_match import coarsest, match_weights
from skillc_compiler.bases import (
    BASE_FILE,
    COMPILER_FILES,
    RECORD_FILE,
    Base,
    base_folder,
    find_base,
    list_bases,
    read_record,
)
from skillc_compiler.durable import write_durable
from skillc_compiler.errors import BaseModelError
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.gguf_base import BaseInfo, read_base_info, read_tokenizer
from skillc_compiler.gguf_header import read_header
from skillc_compiler.gguf_write import write_base_gguf
from skillc_compiler.hf_folder import HfFolder, find_hf

# Above this many parameters a base is loaded in bfloat16 unless told otherwise.
_LARGE = 1_500_000_000
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What `skillc base add` was asked for."""

    name: str
    hf: str | None = None
    gguf: Path | None = None
    write_as: str = "f16"
    dtype: str | None = None
    device_map: str | None = None
    quantize: str | None = None
    layers: str | None = None
    logits: bool = True
    force: bool = False


def add_base(request: Request, say: Say) -> dict[str, Any]:
    """Check both sides, link or write the GGUF, and record the base; returns the record.

    Raises BaseModelError with the reason, and then nothing has changed.
    """
    folder = base_folder(request.name)
    if any(b.name == request.name and b.gguf.parent != folder for b in list_bases()):
        raise BaseModelError(f"base {request.name!r} comes with skillc: take another name")
    if folder.exists() and not request.force:
        raise BaseModelError(f"base {request.name!r} is there already: --force replaces it")
    if request.hf is None and request.gguf is None:
        raise BaseModelError("say where the model is: --hf DIR_OR_ID, --gguf FILE, or both")
    source = None if request.hf is None else find_hf(request.hf)
    hf = None if source is None else HfFolder.open(source[0])
    beside = folder.with_name(f".{request.name}.{os.getpid()}")
    beside.mkdir(parents=True)
    try:
        gguf = _place_gguf(request, hf, beside, say)
        record = _checked(request, hf, gguf, say)
        if source is not None:
            record["hf"] |= {"source": request.hf, "commit": source[1]}
        text = json.dumps(record, sort_keys=True, indent=2) + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        (beside / BASE_FILE).replace(folder / BASE_FILE)
        write_durable(folder / RECORD_FILE, text.encode())
    except OSError as error:
        raise BaseModelError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return record


def remove_base(name: str, *, force: bool = False) -> list[str]:
    """Forget a base; returns the names of the files deleted. A linked GGUF stays where it is.

    A folder with a compiler in it is only deleted with `force`. Raises BaseModelError.
    """
    folder = base_folder(name)
    if not folder.is_dir():
        find_base(name)
        raise BaseModelError(f"base {name!r} comes with skillc and cannot be removed")
    names = sorted(path.name for path in folder.iterdir())
    if any(file in names for file in COMPILER_FILES) and not force:
        raise BaseModelError(f"base {name!r} has a compiler in {folder}: --force removes both")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise BaseModelError(f"{folder}: cannot be removed ({error.strerror})") from error
    return names


def verify_base(name: str, say: Say, *, logits: bool = False) -> list[str]:
    """Hash a base's files again and compare with its record; returns the findings.

    With `logits` every check of `add_base` is made again. Raises BaseModelError without a record.
    """
    base = find_base(name)
    record = read_record(base.gguf.parent)
    if not record:
        raise BaseModelError(f"base {name!r} has no {RECORD_FILE}: it was not added by skillc")
    say("hashing")
    findings = [] if file_sha256(base.gguf) == record["gguf"]["sha256"] else [BASE_FILE]
    for file, known in (record.get("hf") or {}).get("files", {}).items():
        path = Path(record["hf"]["folder"]) / file
        if not path.is_file() or file_sha256(path) != known["sha256"]:
            findings.append(str(path))
    findings = [f"{file}: is not what was added" for file in findings]
    if logits and not findings:
        hf = None if base.hf is None else HfFolder.open(base.hf)
        load = record.get("load") or {}
        request = Request(name, quantize=load.get("quantize"), dtype=load.get("dtype"),
                          device_map=load.get("device_map"), layers=load.get("layers"))  # fmt: skip
        try:
            _checked(request, hf, base.gguf, say)
        except BaseModelError as error:
            findings.append(str(error))
    return findings


def describe(base: Base) -> dict[str, Any]:
    """A base as plain JSON values: its record, and what its header says."""
    info = read_base_info(base.gguf)
    record = read_record(base.gguf.parent)
    return {
        "name": base.name,
        "architecture": info.arch,
        "layers": info.n_layers,
        "hidden": info.hidden,
        "vocabulary": info.vocab_size,
        "context": info.context_length,
        "parameters": parameters(info),
        "gguf": {
            "path": str(base.gguf.resolve()),
            "bytes": base.gguf.stat().st_size,
            "sha256": info.hash,
            "type": coarsest(read_header(base.gguf)).name,
        },
        "hf": record.get("hf"),
        "load": dict(base.load),
        "checks": record.get("checks"),
        "compiler": _compiler_id(base),
    }


def parameters(info: BaseInfo) -> int:
    """How many weights a base has."""
    total = 0
    for shape in info.tensors.values():
        size = 1
        for n in shape:
            size *= n
        total += size
    return total


def _place_gguf(request: Request, hf: HfFolder | None, beside: Path, say: Say) -> Path:
    """The GGUF in the new folder: a link to the user's, or written from the Hugging Face side."""
    target = beside / BASE_FILE
    if request.gguf is not None:
        real = request.gguf.expanduser().resolve()
        if not real.is_file():
            raise BaseModelError(f"{request.gguf}: no such file")
        target.symlink_to(real)
        return target
    assert hf is not None
    say(f"writing the GGUF ({request.write_as})")
    write_base_gguf(
        target,
        hf.config,
        hf.weights(),
        hf.tokenizer,
        hf.chat_template,
        dtype=request.write_as,
        name=request.name,
    )
    return target


def _checked(request: Request, hf: HfFolder | None, gguf: Path, say: Say) -> dict[str, Any]:
    """Make every check; the record of a base that passed."""
    from skillc_compiler.torch_base import load_frozen

    info = read_base_info(gguf)
    load = _load_options(request, info, hf)
    checks: dict[str, Any] = {}
    if hf is not None:
        say("comparing weights")
        match = match_weights(hf, gguf)
        checks["weights"] = {"compared": match.weights, "worst": round(match.worst, 6)}
    say("comparing tokenizers")
    checks["tokenizer"] = {"texts": check_tokens(gguf, _own_tokenizer(hf, gguf))}
    if request.logits:
        say("comparing logits")
        check = check_logits(
            gguf,
            read_tokenizer(gguf),
            lambda: load_frozen(
                Base(request.name, gguf, None, None if hf is None else hf.path, load)
            )[0],
            dtype=str(load.get("dtype", "float32")) if not load.get("quantize") else "quantized",
        )
        checks["logits"] = check.to_dict()
    real = gguf.resolve()
    linked = gguf.is_symlink()
    return {
        "architecture": info.arch,
        "checks": checks,
        "format": 1,
        "gguf": {
            "bytes": real.stat().st_size,
            "path": str(real) if linked else BASE_FILE,
            "sha256": info.hash,
        },
        "hf": None if hf is None else {"files": _hashes(hf.path, say), "folder": str(hf.path)},
        "load": load,
        "name": request.name,
        "tool_version": __version__,
    }


def _own_tokenizer(hf: HfFolder | None, gguf: Path) -> Any:
    if hf is None:
        return read_tokenizer(gguf)
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(hf.tokenizer))
    except Exception as error:  # the library raises nothing narrower
        raise BaseModelError(f"{hf.path}: the tokenizer is not usable ({error})") from error


def _load_options(request: Request, info: BaseInfo, hf: HfFolder | None) -> dict[str, Any]:
    found: dict[str, Any] = {"layers": request.layers} if request.layers else {}
    if hf is None:
        return found
    large = parameters(info) > _LARGE
    found["dtype"] = request.dtype or ("bfloat16" if large else "float32")
    if request.device_map:
        found["device_map"] = request.device_map
    if request.quantize:
        found["quantize"] = request.quantize
    return found


def _hashes(folder: Path, say: Say) -> dict[str, dict[str, Any]]:
    """Size and hash of the files that make the model."""
    say("hashing")
    files = sorted(
        [*folder.glob("*.safetensors"), folder / "config.json", folder / "tokenizer.json"]
    )
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in files
    }


def _compiler_id(base: Base) -> str | None:
    from skillc_compiler.families.interface import read_config

    return str(read_config(base)["id"]) if base.compiler_dir is not None else None
