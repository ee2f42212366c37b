"""Checkpoints in the published layouts, random and small, for the tests' tiny base."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tests.compiler import tiny

from skillc_compiler.bases import Base
from skillc_compiler.skill import Skill, parse_skill

HIDDEN, LAYERS, RANK, META_RANK, FEED_FORWARD = 64, 2, 4, 6, 80
HEADS = 4
# (in, out) of the tiny base's modules, in the published order.
MODULES = {
    ("attention", "q"): (64, 128),
    ("attention", "k"): (64, 64),
    ("attention", "v"): (64, 64),
    ("attention", "o"): (128, 64),
    ("mlp", "gate"): (64, 96),
    ("mlp", "up"): (64, 96),
    ("mlp", "down"): (96, 64),
}
MEMORY = RANK * sum(i + o for i, o in MODULES.values()) // HIDDEN
LATENT, QUERIES, D2L_RANK, D2L_HEADS, D2L_KV = 16, 3, 8, 2, 1
TEXT = "---\nname: graft\ndescription: Grafting.\n---\n\nRun `./graft --fast` to test. {}\n"


def skill(extra: str = "") -> Skill:
    return parse_skill(TEXT.format(extra).encode(), folder="graft")


def base(folder: Path) -> Base:
    """The tiny base without a compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.write_base(folder / "base.gguf")
    return Base(folder.name, folder / "base.gguf", None)


def opened(base: Base) -> Base:
    """The same base with the compiler that now lies beside it."""
    return Base(base.name, base.gguf, base.gguf.parent)


def noise(*shape: int, std: float = 0.1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator) * std


def meta_lora(rank: int = META_RANK, seed: int = 1) -> dict[int, Any]:
    """The nested dict of metalora.pth: integer layers, leaves A, B and C."""
    table: dict[int, Any] = {}
    for layer in range(LAYERS):
        table[layer] = {"attention": {}, "mlp": {}}
        for number, ((group, name), (d_in, d_out)) in enumerate(MODULES.items()):
            table[layer][group][name] = {
                "A": noise(1, d_in, rank, seed=seed + 50 * layer + number),
                "B": noise(1, rank, d_out, seed=seed + 7 + 50 * layer + number),
                "C": None,
            }
    return table


def network(layers: int = LAYERS, memory: int = MEMORY, hidden: int = HIDDEN) -> dict[str, Any]:
    """The state dict of the memory-to-parameter transformer, as torch writes it."""
    state = {"layer_pe": noise(layers, hidden), "token_pe": noise(memory, hidden)}
    for number in range(4):
        block = torch.nn.TransformerEncoderLayer(hidden, HEADS, FEED_FORWARD)
        for name, value in block.state_dict().items():
            fresh = noise(*value.shape, seed=number)
            state[f"transformer_layers.{number}.{name}"] = fresh + ("norm" in name)
    return state


def write_memory_token(folder: Path, file: str = "metanetwork.pth", prefix: str = "") -> Path:
    """A LatentSkill / SHINE / ParametricSkills checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(torch.nn.Parameter(noise(MEMORY, HIDDEN)), folder / "mem_tokens.pt")
    state = {f"{prefix}{name}": value for name, value in network().items()}
    torch.save(state, folder / file)
    torch.save(meta_lora(), folder / "metalora.pth")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
    return folder


def d2l_tensors(modules: tuple[str, ...] = ("down_proj",), prefix: str = "") -> dict[str, Any]:
    """The tensors of a Doc-to-LoRA checkpoint, with scalers away from 1 and 0."""
    sizes = {f"{name}_proj": size for (_, name), size in MODULES.items()}
    wide, narrow, inner = D2L_HEADS * 128, D2L_KV * 128, 4 * LATENT
    outer = "aggregator.perceiver."
    shapes: dict[str, tuple[int, ...]] = {
        f"{outer}modality_projection.gate_proj.weight": (4 * HIDDEN, HIDDEN),
        f"{outer}modality_projection.up_proj.weight": (4 * HIDDEN, HIDDEN),
        f"{outer}modality_projection.down_proj.weight": (LATENT, 4 * HIDDEN),
        f"{outer}encoder.latents_q": (QUERIES, LATENT),
        f"{outer}decoder.latents_q": (len(modules) * D2L_RANK, LATENT),
    }
    for part, blocks in (("encoder", 2), ("decoder", 1)):
        shapes[f"{outer}{part}.layernorm.weight"] = (LATENT,)
        for number in range(blocks):
            at = f"{outer}{part}.layers.{number}."
            for norm in ("input_latents", "input_context", "post_attention", "pre_ff", "post_ff"):
                shapes[f"{at}{norm}_layernorm.weight"] = (LATENT,)
            shapes[f"{at}self_attn.q_proj.weight"] = (wide, LATENT)
            shapes[f"{at}self_attn.k_proj.weight"] = (narrow, LATENT)
            shapes[f"{at}self_attn.v_proj.weight"] = (narrow, LATENT)
            shapes[f"{at}self_attn.o_proj.weight"] = (LATENT, wide)
            shapes[f"{at}mlp.gate_proj.weight"] = (inner, LATENT)
            shapes[f"{at}mlp.up_proj.weight"] = (inner, LATENT)
            shapes[f"{at}mlp.down_proj.weight"] = (LATENT, inner)
    shapes |= {
        "layers.0.layers.0.weight": (LATENT,),
        "layers.0.layers.0.bias": (LATENT,),
        "layers.0.layers.1.weight": (LAYERS, LATENT, inner),
        "layers.0.layers.1.bias": (1, LAYERS, 1, 1, inner),
        "layers.0.layers.3.weight": (LAYERS, inner, LATENT),
        "layers.0.layers.3.bias": (1, LAYERS, 1, 1, LATENT),
        "layers.0.layers.4.weight": (LATENT,),
        "layers.0.layers.4.bias": (LATENT,),
    }
    widest = max(sum(sizes[name]) for name in modules)
    several = (len(modules),) if len(modules) > 1 else ()
    shapes["head.weight"] = (LAYERS, *several, LATENT, widest)
    for name in modules:
        for half, size in zip("AB", sizes[name], strict=True):
            shapes[f"bias_{half}.{name}"] = (LAYERS, D2L_RANK, size)
            shapes[f"scaler_{half}.{name}"] = (1, LAYERS, D2L_RANK, 1)
    return {
        prefix + name: noise(*shape, std=0.3, seed=number) + ("norm.weight" in name)
        for number, (name, shape) in enumerate(shapes.items())
    }


def any_arguments(self: Any, *arguments: Any) -> None:
    """A member of an enumeration is made from its value."""


def like_a_member(self: Any) -> tuple[Any, ...]:
    """Members of an enumeration are pickled as a call with their value."""
    return type(self), ("CAUSAL_LM",)


@contextmanager
def foreign_classes() -> Iterator[tuple[Any, Any, Any]]:
    """Classes of packages that are not installed where the file is read."""
    names = {"ctx_to_lora.configs": ("HypernetConfig",), "peft.config": ("LoraConfig", "TaskType")}
    before = {name: sys.modules.get(name) for name in ("ctx_to_lora", "peft", *names)}
    found = []
    for module, classes in names.items():
        package = module.partition(".")[0]
        sys.modules[package] = ModuleType(package)
        sys.modules[module] = ModuleType(module)
        for name in classes:
            as_call = {"__init__": any_arguments, "__reduce__": like_a_member}
            extra = as_call if name == "TaskType" else {}
            made = type(name, (), {"__module__": module, **extra})
            setattr(sys.modules[module], name, made)
            found.append(made)
    try:
        yield found[0], found[1], found[2]
    finally:
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before


def write_doc2lora(folder: Path, made_for: str = "tiny-random", **changes: Any) -> Path:
    """A Doc-to-LoRA checkpoint folder; `changes` are fields of its pickled configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = changes.pop("tensors", None) or d2l_tensors()
    with foreign_classes() as (hypernet, lora, task):
        lora_config = lora()
        lora_config.__dict__.update(
            r=D2L_RANK, lora_alpha=2 * D2L_RANK**1.5, target_modules={"down_proj"}, task_type=task()
        )
        config = hypernet()
        config.__dict__.update(
            {
                "latent_size": LATENT,
                "lora_config": lora_config,
                "layer_indices": torch.arange(LAYERS),
                "per_layer_processing": True,
                "extra_modules": None,
                **changes,
            }
        )
        reader = hypernet()
        reader.__dict__.update(ctx_encoder_type=changes.get("encoder", "per_layer_activations"))
        table = {
            **tensors,
            "base_model_name_or_path": made_for,
            "hypernet_config": config,
            "ctx_encoder_args": reader,
        }
        torch.save(table, folder / "pytorch_model.bin")
    return folder
