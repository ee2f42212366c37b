"""Gives a built skill to other programs: their files, and the exact commands they need."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from skillc.plan import check_names
from skillc.project import Project
from skillc_compiler.adapter import CONFIG_FILE, Adapter, LoraPair, save_peft
from skillc_compiler.bases import Base, find_base, read_record
from skillc_compiler.errors import ProjectError, StoreError
from skillc_compiler.gguf_adapter import pad_rank
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.store import StoredAdapter

# What vLLM takes for --max-lora-rank.
VLLM_RANKS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Source:
    """A built skill and its base: what an export is made from."""

    name: str
    base: Base
    stored: StoredAdapter
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, the commands that use it, and what to know beforehand."""

    folder: Path
    files: tuple[str, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...] = ()


def export(project: Project, name: str, to: str, out: Path, *, force: bool = False) -> Exported:
    """Write skill `name` for `to` (a key of FORMATS) into the folder `out`.

    Raises SkillcError when the skill is not built, or `out` has files and not `force`.
    """
    source = open_source(project, name)
    if out.exists() and not force and (not out.is_dir() or any(out.iterdir())):
        raise ProjectError(f"{out}: is there already: --force writes over it")
    out.mkdir(parents=True, exist_ok=True)
    return FORMATS[to](source, out.resolve())


def open_source(project: Project, name: str) -> Source:
    """The adapter that the lock names for a skill. Raises SkillcError when there is none."""
    lock = project.lock()
    locked = lock.skills if lock is not None else {}
    if name not in locked:
        check_names([name], [one.name for one in project.found(lambda line: None)])
        raise ProjectError(f"skill {name!r} is not built yet: run 'skillc build {name}'")
    assert lock is not None
    base = find_base(lock.base.name)
    stored = project.store().open(locked[name].key)
    if stored.manifest.base_hash != lock.base.hash:
        raise StoreError(f"{stored.folder}: is for another base: run 'skillc build'")
    return Source(name, base, stored, stored.adapter())


def to_peft(source: Source, out: Path) -> Exported:
    """A PEFT folder."""
    model = hf_source(source.base)
    write_peft(source.adapter, out, model or source.base.name)
    code = (
        "from peft import PeftModel; from transformers import AutoModelForCausalLM; "
        f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("
        f"{model or 'BASE'!r}), {str(out)!r})"
    )
    notes = () if model else (NO_FOLDER.format(base=source.base.name),)
    return exported(out, [f"python -c {shlex.quote(code)}"], notes)


def to_gguf(source: Source, out: Path) -> Exported:
    """The adapter's GGUF for llama.cpp's own programs."""
    file = out / "adapter.gguf"
    file.write_bytes(source.stored.gguf_bytes())
    pair = f"-m {quoted(source.base.gguf)} --lora {quoted(file)}"
    return exported(out, [f"llama-server {pair}", f"llama-cli {pair}"])


def to_vllm(source: Source, out: Path) -> Exported:
    """A PEFT folder of one rank, and how vLLM takes it at its start or while it runs."""
    model = needed(source.base, "vLLM")
    rank = write_peft(one_rank(source.adapter), out, model)
    most = next((r for r in VLLM_RANKS if r >= rank), VLLM_RANKS[-1])
    serve = f"vllm serve {quoted(model)} --enable-lora --max-lora-rank {most}"
    body = json.dumps({"lora_name": source.name, "lora_path": str(out)})
    return exported(
        out,
        [
            f"{serve} --lora-modules {quoted(f'{source.name}={out}')}",
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True {serve}",
            "curl http://localhost:8000/v1/load_lora_adapter -H 'Content-Type: application/json' "
            f"-d {shlex.quote(body)}",
        ],
        ["the first command, or the second and then the third for each skill"],
    )


def to_lorax(source: Source, out: Path) -> Exported:
    """A PEFT folder of one rank, for LoRAX's local source."""
    model = needed(source.base, "LoRAX")
    write_peft(one_rank(source.adapter), out, model)
    folder = Path(model).is_dir()
    mount, inside = (f"-v {quoted(model)}:/model ", "/model") if folder else ("", quoted(model))
    body = {
        "inputs": "...",
        "parameters": {"adapter_id": f"/adapters/{source.name}", "adapter_source": "local"},
    }
    return exported(
        out,
        [
            f"docker run --gpus all --shm-size 1g -p 8080:80 {mount}"
            f"-v {quoted(out)}:/adapters/{source.name} ghcr.io/predibase/lorax:main "
            f"--model-id {inside}",
            "curl http://localhost:8080/generate -H 'Content-Type: application/json' "
            f"-d {shlex.quote(json.dumps(body))}",
        ],
    )


def to_ollama(source: Source, out: Path) -> Exported:
    """A Modelfile with the base and the adapter."""
    (out / "adapter.gguf").write_bytes(source.stored.gguf_bytes())
    gguf = source.base.gguf.resolve()
    (out / "Modelfile").write_text(f"FROM {gguf}\nADAPTER ./adapter.gguf\n", "utf-8")
    model = f"{source.base.name}-{source.name}".lower()
    return exported(
        out,
        [f"ollama create {model} -f {quoted(out / 'Modelfile')}", f"ollama run {model}"],
        ["if this ollama refuses ADAPTER, export --to merged and write 'FROM ./model.gguf'"],
    )


def to_merged(source: Source, out: Path) -> Exported:
    """The base with the adapter merged in, as one GGUF."""
    from skillc_compiler.merge import write_merged

    file = out / "model.gguf"
    info = read_base_info(source.base.gguf)
    changed = write_merged(info, source.adapter, file, name=f"{source.base.name}-{source.name}")
    return exported(out, [f"llama-server -m {quoted(file)}"], [f"{changed} weights were changed"])


FORMATS: Mapping[str, Callable[[Source, Path], Exported]] = {
    "peft": to_peft,
    "gguf": to_gguf,
    "vllm": to_vllm,
    "lorax": to_lorax,
    "ollama": to_ollama,
    "merged": to_merged,
}
NO_FOLDER = (
    "base {base!r} has no Hugging Face folder here: "
    "'skillc base add {base} --hf DIR_OR_ID --gguf FILE --force' records one"
)


def write_peft(adapter: Adapter, out: Path, model: str) -> int:
    """Save a PEFT folder that names `model` as its base; returns its rank."""
    save_peft(adapter, out)
    config = json.loads((out / CONFIG_FILE).read_text("utf-8"))
    config["base_model_name_or_path"] = model
    text = json.dumps(config, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    (out / CONFIG_FILE).write_text(text, "utf-8")
    return adapter.rank


def one_rank(adapter: Adapter) -> Adapter:
    """The same changes with factors of one rank: servers with fixed slots read no rank_pattern."""
    rank = adapter.rank
    pairs = {}
    for module, pair in adapter.pairs.items():
        a, b = pad_rank(pair, rank) if pair.rank != rank else (pair.a, pair.b)
        pairs[module] = LoraPair(a, b)
    return replace(adapter, pairs=pairs)


def hf_source(base: Base) -> str | None:
    """The base as Hugging Face libraries name it: a hub id or a folder; None without."""
    hf = read_record(base.gguf.parent).get("hf") or {}
    return str(hf["source"] if hf.get("commit") else hf["folder"]) if hf else None


def needed(base: Base, what: str) -> str:
    """As `hf_source`; ProjectError without, as `what` cannot do with the GGUF."""
    model = hf_source(base)
    if model is None:
        raise ProjectError(f"{what} needs the original model: {NO_FOLDER.format(base=base.name)}")
    return model


def exported(out: Path, commands: list[str], notes: list[str] | tuple[str, ...] = ()) -> Exported:
    files = tuple(sorted(path.name for path in out.iterdir() if path.is_file()))
    return Exported(out, files, tuple(commands), tuple(notes))


def quoted(value: object) -> str:
    return shlex.quote(str(value))
