"""From a training checkpoint to what ships: the base as GGUF, the writer as safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from skillc_compiler.chat import END_OF_TEXT, IM_END, NANO_TEMPLATE
from skillc_compiler.errors import CompilerError
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.gguf_write import write_base_gguf
from skillc_compiler.train.recipe import Recipe

CHECKPOINT, TOKENIZER = "joint.pt", "tokenizer.json"


def trained(run: Path) -> dict[str, Any]:
    """The joint checkpoint that a run left; CompilerError when it left none, or no tokenizer."""
    path = run / CHECKPOINT
    if not path.is_file() or not (run / TOKENIZER).is_file():
        raise CompilerError(f"no trained compiler in {run}: run `skillc train compiler` first")
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def export(recipe: Recipe, run: Path, target: Path) -> None:
    """Write base.gguf (f16), compiler.safetensors (f16) and compiler.json from `run` to `target`.

    Raises CompilerError when `run` holds no joint checkpoint.
    """
    state = trained(run)
    target.mkdir(parents=True, exist_ok=True)
    _write_base(recipe, state["model"], run / TOKENIZER, target / "base.gguf")
    weights = {name: value.half().contiguous() for name, value in state["writer"].items()}
    path = target / "compiler.safetensors"
    save_file(weights, path)
    path.chmod(0o644)  # safetensors makes it the owner's alone
    settings = {
        "activation": "tail" if recipe.joint.data.tail else "full",
        "family": "writer",
        "id": f"writer-{recipe.name}",
        "base_hash": file_sha256(target / "base.gguf"),
        "recipe": recipe.title,
        "steps": state["step"],
        "writer": recipe.writer.to_dict(),
    }
    (target / "compiler.json").write_text(
        json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _write_base(recipe: Recipe, state: dict[str, Any], tokenizer: Path, path: Path) -> None:
    text = tokenizer.read_text(encoding="utf-8")
    ids = {token["content"]: token["id"] for token in json.loads(text)["added_tokens"]}
    config = recipe.base.to_hf() | {
        "bos_token_id": None,
        "eos_token_id": ids[IM_END],
        "pad_token_id": ids[END_OF_TEXT],
    }
    arrays = {name: value.float().numpy() for name, value in state.items()}
    write_base_gguf(path, config, arrays, text, NANO_TEMPLATE, dtype="f16", name=recipe.name)
