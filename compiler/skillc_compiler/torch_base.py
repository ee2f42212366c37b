"""A base as a transformers model, with the weights its GGUF holds: one copy of a base suffices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skillc_compiler.errors import BaseModelError, CompilerError
from skillc_compiler.gguf_base import read_base_weights, read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import Qwen3ForCausalLM


def load_torch_base(gguf: Path) -> tuple[Qwen3ForCausalLM, Tokenizer]:
    """The base's Qwen3ForCausalLM (float32, eval mode, CPU) and its tokenizer.

    Nothing is frozen: callers choose what to train. Raises BaseModelError for a
    file that is not such a base, CompilerError without torch and transformers.
    """
    try:
        import torch
        from transformers import Qwen3Config, Qwen3ForCausalLM
        from transformers.initialization import no_init_weights
    except ImportError as error:
        raise CompilerError(
            f"{error.name or 'torch'} is not installed: pip install 'skillc[compiler]'"
        ) from error
    config, weights = read_base_weights(gguf)
    with no_init_weights():
        model = Qwen3ForCausalLM(Qwen3Config(**config, dtype="float32"))
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BaseModelError(f"{gguf}: weights do not fit the configuration: {reason}") from error
    model.tie_weights()
    return model.eval(), read_tokenizer(gguf)
