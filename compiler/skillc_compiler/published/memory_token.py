"""Checkpoints of LatentSkill, SHINE and ParametricSkills as compilers of the `m2p` family."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.host import Site
from skillc_compiler.families.m2p_net import M2PConfig
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.gguf_names import LINEARS
from skillc_compiler.published.shapes import Tensors, checked
from skillc_compiler.published.torch_file import read_torch

# The code writes the first or the second name; the released archives hold the third.
NETWORK_FILES = ("hypernetwork.pth", "skill_hypernet.pth", "metanetwork.pth")
MEMORY_FILE = "mem_tokens.pt"
META_FILE = "metalora.pth"
EXTRA_META_FILE = "ift_additional_metalora.pth"
HEAD_WIDTH = 128
_GROUPS = {"self_attn": "attention", "mlp": "mlp"}
_BLOCK: Mapping[str, Callable[[int, int], tuple[int, ...]]] = {
    "self_attn.in_proj_weight": lambda h, f: (3 * h, h),
    "self_attn.in_proj_bias": lambda h, f: (3 * h,),
    "self_attn.out_proj.weight": lambda h, f: (h, h),
    "self_attn.out_proj.bias": lambda h, f: (h,),
    "linear1.weight": lambda h, f: (f, h),
    "linear1.bias": lambda h, f: (f,),
    "linear2.weight": lambda h, f: (h, f),
    "linear2.bias": lambda h, f: (h,),
    "norm1.weight": lambda h, f: (h,),
    "norm1.bias": lambda h, f: (h,),
    "norm2.weight": lambda h, f: (h,),
    "norm2.bias": lambda h, f: (h,),
}

State = dict[str, Tensor]


def read_checkpoint(
    folder: Path, sites: Sequence[Site], *, heads: int | None, changes: Mapping[str, Any]
) -> tuple[M2PConfig, State]:
    """The configuration and weights of the checkpoint in or below `folder` for a base's `sites`.

    What the files do not store is inferred: sizes from shapes, the generated rank from the number
    of memory tokens, heads of width 128. `changes` are settings of the user's. CompilerError.
    """
    folder = find_checkpoint(folder)
    check_sums(folder)
    network = next((folder / name for name in NETWORK_FILES if (folder / name).is_file()), None)
    if network is None:
        raise CompilerError(f"{folder}: none of {', '.join(NETWORK_FILES)} is there")
    tensors = Tensors(network, read_torch(network))
    layers, hidden = tensors.shape("layer_pe", 2)
    memory = tensors.shape("token_pe", 2)[0]
    if any(name.startswith("couple_layers.") for name in tensors.values):
        raise CompilerError(f"{network}: coupled layers are not supported")
    blocks = tensors.count("transformer_layers.{}.")
    if not blocks:
        raise CompilerError(f"{network}: no transformer_layers; only that kind is supported")
    feed_forward = tensors.shape("transformer_layers.0.linear1.weight", 2)[0]
    state = {
        "memory": _memory(folder / MEMORY_FILE, memory, hidden),
        "layer_pe": tensors.take("layer_pe", layers, hidden),
        "token_pe": tensors.take("token_pe", memory, hidden),
    }
    for number in range(blocks):
        for name, shape in _BLOCK.items():
            value = tensors.take(
                f"transformer_layers.{number}.{name}", *shape(hidden, feed_forward)
            )
            state[f"blocks.{number}.{name}"] = value
    tensors.finish()
    meta_rank = _add_meta(folder, sites, state)
    config = M2PConfig(
        hidden=hidden,
        layers=layers,
        memory=memory,
        rank=_rank(network, sites, memory, hidden, layers),
        meta_rank=meta_rank,
        heads=_heads(network, hidden, heads),
        feed_forward=feed_forward,
        blocks=blocks,
        **changes,
    )
    return config, state


def find_checkpoint(folder: Path) -> Path:
    """The one folder at or below `folder` that holds mem_tokens.pt."""
    if (folder / MEMORY_FILE).is_file():
        return folder
    found = sorted(path.parent for path in folder.rglob(MEMORY_FILE))
    if not found:
        raise CompilerError(f"{folder}: no {MEMORY_FILE} in it or below; unpack the archive first")
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[-3:])
        raise CompilerError(f"{folder}: {len(found)} checkpoints below it ({names}): name one")
    return found[0]


def check_sums(folder: Path) -> None:
    """CompilerError when checkpoint_config.json names a SHA-256 that a file does not have."""
    path = folder / "checkpoint_config.json"
    if not path.is_file():
        return
    try:
        stated = dict(_stated_sums(json.loads(path.read_text("utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise CompilerError(f"{path}: not JSON ({error})") from error
    for name, digest in stated.items():
        file = folder / name
        if file.parent == folder and file.is_file() and file_sha256(file) != digest.lower():
            raise CompilerError(f"{file}: not the file that {path.name} describes (SHA-256)")


def _stated_sums(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(file, SHA-256) pairs anywhere in the JSON: {"a.pth": HEX} or {"a.pth": {"sha256": HEX}}."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _stated_sums(inner, name if key in ("sha256", "sha_256") else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _stated_sums(inner, name)
    elif isinstance(value, str) and len(value) == 64 and "." in name:
        yield name, value


def _memory(path: Path, memory: int, hidden: int) -> Tensor:
    value = read_torch(path)
    if not isinstance(value, Tensor) or tuple(value.shape) != (memory, hidden):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CompilerError(f"{path}: {shape}, a tensor {(memory, hidden)} expected")
    return checked(value.detach(), str(path))


def _add_meta(folder: Path, sites: Sequence[Site], state: State) -> int:
    """Put the meta-LoRA of all sites into `state`; returns its rank, that of a second one added."""
    tables = [folder / META_FILE]
    if (folder / EXTRA_META_FILE).is_file():
        tables.append(folder / EXTRA_META_FILE)
    loaded = [(path, read_torch(path)) for path in tables]
    rank = 0
    for number, site in enumerate(sites):
        halves = [_leaf(path, table, site) for path, table in loaded]
        state[f"meta_a.{number}"] = torch.cat([a for a, _ in halves], dim=1)
        state[f"meta_b.{number}"] = torch.cat([b for _, b in halves], dim=0)
        found = state[f"meta_a.{number}"].shape[1]
        if number and found != rank:
            raise CompilerError(f"{tables[0]}: rank {found} at {site.path}, {rank} before")
        rank = found
    return rank


def _leaf(path: Path, table: Any, site: Site) -> tuple[Tensor, Tensor]:
    """One site's A [in, r] and B [r, out] of {layer: {"attention": {"q": {"A", "B", "C"}}}}."""
    part, _, module = site.name.partition(".")
    keys = (site.layer, _GROUPS[part], module.removesuffix("_proj"))
    where = f"{path}: {'.'.join(map(str, keys))}"
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise CompilerError(f"{where} is missing")
    if table.get("C") is not None:
        raise CompilerError(f"{where} has a bias C, which is not supported")
    a, b = table.get("A"), table.get("B")
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.ndim != 3 or b.ndim != 3:
        raise CompilerError(f"{where}: A and B must be tensors of 3 dimensions")
    rank = a.shape[2]
    if tuple(a.shape) != (1, site.d_in, rank) or tuple(b.shape) != (1, rank, site.d_out):
        raise CompilerError(
            f"{where}: A {tuple(a.shape)} and B {tuple(b.shape)} do not fit a module of"
            f" {site.d_in} in and {site.d_out} out"
        )
    return checked(a.detach()[0], where), checked(b.detach()[0], where)


def _rank(path: Path, sites: Sequence[Site], memory: int, hidden: int, layers: int) -> int:
    """r, from M * H * L = r * sum(in + out)."""
    values, size = memory * hidden * layers, sum(site.size for site in sites)
    if values % size:
        raise CompilerError(
            f"{path}: {memory} memory tokens of {hidden} in {layers} layers are {values} values,"
            f" not a multiple of the {size} of rank 1 on this base: made for another base?"
        )
    if {site.name for site in sites} != set(LINEARS):
        raise CompilerError(f"{path}: the base lacks some of {', '.join(LINEARS)}")
    return values // size


def _heads(path: Path, hidden: int, asked: int | None) -> int:
    heads = asked if asked is not None else hidden // HEAD_WIDTH
    if heads < 1 or hidden % heads:
        raise CompilerError(f"{path}: {heads} heads do not divide width {hidden}: give --heads")
    return heads
