"""What the benchmarks of the engine share: nano or a 4B-shaped base, adapters of random values.

What an adapter says is not the question here, only what it costs.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.bases import find_base
from skillc_compiler.chat import NANO_TEMPLATE
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo, read_base_info, write_base_gguf
from skillc_compiler.gguf_tokenizer import read_tokenizer
from skillc_compiler.gguf_write import parameter_shapes
from skillc_compiler.lock import Lock, LockedBase, LockedCompiler, LockedSkill
from skillc_compiler.skill import read_skill
from skillc_compiler.store import Store, build_key
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine

_RANK = 64  # what skillc compiles when nothing else is asked for
_COMPILER = LockedCompiler("random", "c" * 64)


def say(line: str) -> None:
    """Progress goes to standard error."""
    print(line, file=sys.stderr, flush=True)


def spread(seconds: Sequence[float]) -> str:
    """The median and the quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{middle * 1e3:.2f} ms ({low * 1e3:.2f} to {high * 1e3:.2f})"


def with_quartiles(
    name: str, over: Sequence[float], under: Sequence[float] | None = None
) -> dict[str, float]:
    """A figure, and as `_low` and `_high` its quartiles over the turns.

    The median of `over`; with `under` the ratio of both medians, and quartiles of turns' ratios.
    """
    middle, each = statistics.median(over), over
    if under is not None:
        middle /= statistics.median(under)
        each = [one / other for one, other in zip(over, under, strict=True)]
    low, _, high = statistics.quantiles(each, n=4)
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


@contextmanager
def nano(**options: Any) -> Iterator[Engine]:
    """An engine of the base that ships with skillc, with one thread."""
    engine = Engine(find_base().gguf, n_threads=1, **options)
    try:
        yield engine
    finally:
        engine.close()


def random_refs(folder: Path, base: BaseInfo, count: int, *, rank: int = _RANK) -> list[AdapterRef]:
    """Adapters of small random weights on the `down_proj` of every layer, where nano's are."""
    refs = []
    for seed in range(count):
        adapter = random_adapter(base, seed, "5" * 64, rank)
        data = adapter_to_gguf(adapter, base, dtype="f16")
        path = folder / f"skill-{seed}.gguf"
        path.write_bytes(data)
        refs.append(AdapterRef(path, hashlib.sha256(data).hexdigest()))
    return refs


def random_adapter(base: BaseInfo, seed: int, skill_hash: str, rank: int = _RANK) -> Adapter:
    """One of `random_refs`."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for layer in range(base.n_layers):
        out, wide = base.tensors[f"blk.{layer}.ffn_down.weight"]
        a = rng.standard_normal((rank, wide), np.float32) * np.float32(0.01)
        b = rng.standard_normal((out, rank), np.float32) * np.float32(0.01)
        pairs[f"model.layers.{layer}.mlp.down_proj"] = LoraPair(a, b)
    manifest = Manifest(
        skill_name=f"skill-{seed}",
        skill_hash=skill_hash,
        base_name=base.name,
        base_hash=base.hash,
        compiler_id=_COMPILER.id,
        compiler_hash=_COMPILER.hash,
        rank=rank,
        alpha=float(rank),
        targets=("mlp.down_proj",),
    )
    return Adapter(pairs, float(rank), manifest)


def skill_text(number: int, rules: int) -> str:
    """The body of a skill; a rule is about 20 tokens of nano's."""
    return "\n".join(
        f"- Rule {number}-{i}: run `make step-{i}` before the change, then write a note."
        for i in range(rules)
    )


def write_project(root: Path, base: BaseInfo, count: int, *, rules: int = 4) -> list[str]:
    """A project of `count` skills with random adapters in `root`, locked; their names."""
    store, locked = Store(root / ".skillc" / "store"), {}
    for number in range(count):
        name = f"skill-{number}"
        path = root / ".skills" / name / "SKILL.md"
        path.parent.mkdir(parents=True)
        head = f"---\nname: {name}\ndescription: How to do {number}.\n---\n\n"
        path.write_text(head + skill_text(number, rules) + "\n", "utf-8")
        skill = read_skill(path)
        adapter = random_adapter(base, number, skill.hash)
        key = build_key(skill.hash, base.hash, _COMPILER.hash, {})
        store.publish(key, adapter, adapter_to_gguf(adapter, base, dtype="f16"))
        locked[name] = LockedSkill(path.relative_to(root).as_posix(), skill.hash, key)
    Lock(LockedBase(base.name, base.hash), _COMPILER, locked).dump(root / "skillc.lock")
    return list(locked)


def write_4b_shaped(path: Path) -> BaseInfo:
    """Two layers of Qwen3-4B's shape with random weights in q8_0, and nano's vocabulary."""
    nano_path = find_base().gguf
    config = {
        "model_type": "qwen3",
        "vocab_size": read_base_info(nano_path).tensors["token_embd.weight"][0],
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    tokenizer = read_tokenizer(nano_path).to_str()
    write_base_gguf(path, config, _Noise(config), tokenizer, NANO_TEMPLATE, dtype="q8_0")
    return read_base_info(path)


class _Noise(Mapping[str, "npt.NDArray[np.float32]"]):
    """Random weights by name, made when asked for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._shapes = parameter_shapes(config)
        self._values = np.random.default_rng(0).standard_normal(1 << 20, np.float32)

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        shape = self._shapes[name]
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        return np.resize(self._values, shape) * np.float32(shape[-1] ** -0.5)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@contextmanager
def served(project: Path, *options: str) -> Iterator[tuple[str, int]]:
    """`skillc serve` on a project: its URL and its process."""
    command = [sys.executable, "-m", "skillc", "-C", str(project), "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = next((word for word in line.split() if word.startswith("http")), None)
        assert url is not None, f"skillc serve said {line!r}"
        yield url.removesuffix("/v1").rstrip("/"), process.pid
    finally:
        process.terminate()
        process.wait()


def connected(url: str) -> http.client.HTTPConnection:
    """A connection that can be kept open, as clients do."""
    place = urlsplit(url)
    return http.client.HTTPConnection(place.hostname or "", place.port, timeout=600)


def streamed(
    url: str, body: Mapping[str, Any], link: http.client.HTTPConnection | None = None
) -> list[float]:
    """Seconds from sending a chat request until each piece of its answer; `link` stays open."""
    own = link or connected(url)
    data = json.dumps({**body, "stream": True})
    started, times = time.perf_counter(), []
    own.request("POST", "/v1/chat/completions", data, {"Content-Type": "application/json"})
    with own.getresponse() as answer:
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {answer.read(500)!r}")
        for line in answer:
            now = time.perf_counter() - started
            if line.startswith(b"data: {") and _says_something(json.loads(line[6:])):
                times.append(now)
    if link is None:
        own.close()
    return times


def _says_something(chunk: Mapping[str, Any]) -> bool:
    choices = chunk.get("choices") or [{}]
    return bool(choices[0].get("delta", {}).get("content"))
