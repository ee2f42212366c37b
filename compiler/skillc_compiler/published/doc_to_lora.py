"""Checkpoints of Doc-to-LoRA as compilers of the `perceiver` family."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.perceiver_net import PerceiverConfig, short
from skillc_compiler.gguf_names import LINEARS
from skillc_compiler.published.shapes import Tensors
from skillc_compiler.published.torch_file import Stub, read_torch

WEIGHTS_FILE = "pytorch_model.bin"
ARGS_FILE = "args.yaml"
STUBBED = ("ctx_to_lora", "peft")
HEAD_WIDTH = 128
# Token ids that wrap a text, by the kind of base: its chat template's empty system and user turn.
AFFIXES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "gemma": ((2, 106, 1645, 110), (107, 108, 106, 2516, 108)),
    "mistral": ((1, 733, 16289, 28793, 28705, 13, 13), (733, 28748, 16289, 28793)),
    "qwen": ((151644, 8948, 198, 151645, 198, 151644, 872, 198), (151645, 198, 151644, 77091, 198)),
}
_NORMS = {
    "latent_norm": "input_latents_layernorm",
    "context_norm": "input_context_layernorm",
    "attended_norm": "post_attention_layernorm",
    "mlp_norm": "pre_ff_layernorm",
    "out_norm": "post_ff_layernorm",
}

State = dict[str, Tensor]


def read_checkpoint(
    folder: Path, *, changes: Mapping[str, Any]
) -> tuple[PerceiverConfig, State, str]:
    """The configuration, the weights, and the name of the base they were trained for.

    `changes` are settings of the user's. Raises CompilerError.
    """
    path = find_checkpoint(folder)
    table = read_torch(path, stubs=STUBBED)
    if not isinstance(table, dict):
        raise CompilerError(f"{path}: not a table of tensors")
    made_for = str(table.pop("base_model_name_or_path", ""))
    settings, reader = table.pop("hypernet_config", None), table.pop("ctx_encoder_args", None)
    if not isinstance(settings, Stub):
        raise CompilerError(f"{path}: hypernet_config is missing")
    _check_kind(path, settings, reader)
    tensors = Tensors(path, table)
    config = _config(path, tensors, settings, made_for, {**_args(path), **changes})
    state: State = {}
    _take_perceiver(tensors, config, state)
    _take_heads(tensors, config, state)
    tensors.finish()
    return config, state, made_for


def find_checkpoint(folder: Path) -> Path:
    """The one pytorch_model.bin at or below `folder`; `folder` may be that file."""
    if folder.is_file():
        return folder
    if (folder / WEIGHTS_FILE).is_file():
        return folder / WEIGHTS_FILE
    found = sorted(folder.rglob(WEIGHTS_FILE))
    if not found:
        raise CompilerError(f"{folder}: no {WEIGHTS_FILE} in it or below")
    if len(found) > 1:
        names = ", ".join(str(path.parent.relative_to(folder)) for path in found[-3:])
        raise CompilerError(f"{folder}: {len(found)} checkpoints below it ({names}): name one")
    return found[0]


def _args(path: Path) -> dict[str, Any]:
    """The chunk length of args.yaml, which lies beside the weights or a folder above."""
    # It comes with transformers, without type stubs.
    yaml: Any = import_module("yaml")
    for folder in path.resolve().parents[:2]:
        file = folder / ARGS_FILE
        if file.is_file():
            try:
                values = yaml.safe_load(file.read_text("utf-8"))
            except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
                raise CompilerError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
            length = values.get("max_ctx_chunk_len") if isinstance(values, dict) else None
            return {"chunk": length} if isinstance(length, int) and length > 0 else {}
    return {}


def _check_kind(path: Path, settings: Stub, reader: Any) -> None:
    """CompilerError for a variant of the network that is not read here."""
    kind = _plain(getattr(reader, "ctx_encoder_type", "per_layer_activations"))
    if "per_layer" not in str(kind).lower():
        raise CompilerError(f"{path}: encoder {kind} is not supported, only per_layer_activations")
    for option, good in (("per_layer_processing", True), ("use_light_weight_lora", False)):
        if getattr(settings, option, good) not in (good, None):
            raise CompilerError(f"{path}: {option} = {getattr(settings, option)} is not supported")
    if getattr(settings, "extra_modules", None):
        raise CompilerError(f"{path}: extra_modules are not supported")


def _plain(value: Any) -> Any:
    """An enumeration member, which is pickled as a call with its value, as that value."""
    return value.arguments[0] if isinstance(value, Stub) and value.arguments else value


def _config(
    path: Path, tensors: Tensors, settings: Stub, made_for: str, changes: Mapping[str, Any]
) -> PerceiverConfig:
    names = sorted(n.partition(".")[2] for n in tensors.values if n.startswith("bias_A."))
    if not names:
        raise CompilerError(f"{path}: tensor bias_A is missing")
    full = {short(linear): linear for linear in LINEARS}
    if not set(names) <= set(full):
        raise CompilerError(f"{path}: modules {', '.join(names)} are not all linear modules")
    layers, rank, _ = tensors.shape(f"bias_A.{names[0]}", 3)
    query = "aggregator.perceiver.encoder.layers.0.self_attn.{}_proj.weight"
    wide, latent = tensors.shape(query.format("q"), 2)
    narrow = tensors.shape(query.format("k"), 2)[0]
    if wide % HEAD_WIDTH or narrow % HEAD_WIDTH or wide % narrow:
        raise CompilerError(f"{path}: queries of {wide} and keys of {narrow} are no heads of 128")
    alpha = getattr(getattr(settings, "lora_config", None), "lora_alpha", None)
    prefix, suffix = _affixes(made_for)
    values = {
        "hidden": tensors.shape("aggregator.perceiver.modality_projection.up_proj.weight", 2)[1],
        "layers": layers,
        "inputs": {full[name]: tensors.shape(f"bias_A.{name}", 3)[2] for name in names},
        "outputs": {full[name]: tensors.shape(f"bias_B.{name}", 3)[2] for name in names},
        "rank": rank,
        "latent": latent,
        "queries": tensors.shape("aggregator.perceiver.encoder.latents_q", 2)[0],
        "encoder_blocks": tensors.count("aggregator.perceiver.encoder.layers.{}."),
        "decoder_blocks": tensors.count("aggregator.perceiver.decoder.layers.{}."),
        "heads": wide // HEAD_WIDTH,
        "kv_heads": narrow // HEAD_WIDTH,
        "head_dim": HEAD_WIDTH,
        "residual_blocks": tensors.count("layers.{}."),
        "alpha": float(alpha) if isinstance(alpha, int | float) else 2 * rank**1.5,
        "prefix": prefix,
        "suffix": suffix,
        "average": bool(getattr(settings, "avg_chunk_loras", None) or False),
        "bias": getattr(settings, "use_bias", None) is not False,
    }
    return PerceiverConfig(**{**values, **changes})


def _affixes(made_for: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    lowered = made_for.lower()
    return next((pair for kind, pair in AFFIXES.items() if kind in lowered), ((), ()))


def _take_perceiver(tensors: Tensors, config: PerceiverConfig, state: State) -> None:
    width, hidden = config.latent, config.hidden
    outer = "aggregator.perceiver."
    _take_mlp(
        tensors, f"{outer}modality_projection", "projection", state, hidden, 4 * hidden, width
    )
    decoded = len(config.modules) * config.rank
    parts = (
        ("encoder", config.queries, config.encoder_blocks),
        ("decoder", decoded, config.decoder_blocks),
    )
    for part, queries, blocks in parts:
        state[f"{part}.queries"] = tensors.take(f"{outer}{part}.latents_q", queries, width)
        state[f"{part}.norm.weight"] = tensors.take(f"{outer}{part}.layernorm.weight", width)
        for number in range(blocks):
            ours, theirs = f"{part}.blocks.{number}", f"{outer}{part}.layers.{number}"
            _take_block(tensors, theirs, ours, config, state)


def _take_block(
    tensors: Tensors, theirs: str, ours: str, config: PerceiverConfig, state: State
) -> None:
    width, dim = config.latent, config.head_dim
    heads = {"q": config.heads * dim, "k": config.kv_heads * dim, "v": config.kv_heads * dim}
    for name, size in heads.items():
        value = tensors.take(f"{theirs}.self_attn.{name}_proj.weight", size, width)
        state[f"{ours}.{name}.weight"] = value
    value = tensors.take(f"{theirs}.self_attn.o_proj.weight", width, config.heads * dim)
    state[f"{ours}.o.weight"] = value
    for name, norm in _NORMS.items():
        state[f"{ours}.{name}.weight"] = tensors.take(f"{theirs}.{norm}.weight", width)
    _take_mlp(tensors, f"{theirs}.mlp", f"{ours}.mlp", state, width, 4 * width, width)


def _take_mlp(
    tensors: Tensors, theirs: str, ours: str, state: State, width: int, inner: int, out: int
) -> None:
    shapes = {"gate": (inner, width), "up": (inner, width), "down": (out, inner)}
    for name, shape in shapes.items():
        state[f"{ours}.{name}.weight"] = tensors.take(f"{theirs}.{name}_proj.weight", *shape)


def _take_heads(tensors: Tensors, config: PerceiverConfig, state: State) -> None:
    layers, width, rank = config.layers, config.latent, config.rank
    inner = 4 * width
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "norm_in.weight": ("0.weight", (width,)),
        "norm_in.bias": ("0.bias", (width,)),
        "up": ("1.weight", (layers, width, inner)),
        "up_bias": ("1.bias", (layers, inner)),
        "down": ("3.weight", (layers, inner, width)),
        "down_bias": ("3.bias", (layers, width)),
        "norm_out.weight": ("4.weight", (width,)),
        "norm_out.bias": ("4.bias", (width,)),
    }
    for number in range(config.residual_blocks):
        for ours, (theirs, shape) in shapes.items():
            name = f"layers.{number}.layers.{theirs}"
            state[f"blocks.{number}.{ours}"] = tensors.take(name, *shape, loose=True)
    widest = max(config.inputs[name] + config.outputs[name] for name in config.modules)
    count = len(config.modules)
    # Two modules have a dimension that one has not.
    state["head"] = tensors.take("head.weight", layers, count, width, widest, loose=True)
    for name in config.modules:
        key = short(name)
        for half, size in (("A", config.inputs[name]), ("B", config.outputs[name])):
            bias = tensors.take(f"bias_{half}.{key}", layers, rank, size)
            scaler = tensors.take(f"scaler_{half}.{key}", layers, rank, loose=True)
            state[f"bias_{half.lower()}.{key}"] = bias
            state[f"scaler_{half.lower()}.{key}"] = scaler


def fits_vocabulary(config: PerceiverConfig, vocabulary: int) -> bool:
    """Whether the affixes are tokens of a base with so many."""
    return max((*config.prefix, *config.suffix), default=0) < vocabulary
