"""Random adapters, projects that hold them, and small helpers for tests of the runtime."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.lock import Lock, LockedBase, LockedCompiler, LockedSkill
from skillc_compiler.skill import read_skill
from skillc_compiler.store import Store, build_key
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine

Verdict = Literal["adapter", "text", "off"]

SKILL = "---\nname: {name}\ndescription: How to {name}.\n---\n\n# {name}\n\n- Say {name} {words}.\n"
TEXT = "Deploy the orchard service with kubectl apply and it's 42 times faster. "
TARGETS = ("self_attn.q_proj", "mlp.down_proj")


def random_adapter(
    base: BaseInfo, seed: int, skill_hash: str = "5" * 64, activation: str = "full"
) -> Adapter:
    """An adapter of rank 4 on every layer, strong enough to change what the base says."""
    rng = np.random.default_rng(seed)
    arch = base.arch
    heads = (
        base.metadata[f"{arch}.attention.head_count"]
        * base.metadata[f"{arch}.attention.key_length"]
    )
    shapes = {
        "self_attn.q_proj": (heads, base.hidden),
        "mlp.down_proj": (base.hidden, base.metadata[f"{arch}.feed_forward_length"]),
    }
    pairs = {}
    for layer in range(base.n_layers):
        for target, (d_out, d_in) in shapes.items():
            a = rng.standard_normal((4, d_in)).astype(np.float32) * np.float32(0.2)
            b = rng.standard_normal((d_out, 4)).astype(np.float32) * np.float32(0.2)
            pairs[f"model.layers.{layer}.{target}"] = LoraPair(a, b)
    manifest = Manifest(
        skill_name=f"skill-{seed}",
        skill_hash=skill_hash,
        base_name=base.name,
        base_hash=base.hash,
        compiler_id="random",
        compiler_hash="c" * 64,
        rank=4,
        alpha=4.0,
        targets=TARGETS,
        activation=activation,
    )
    return Adapter(pairs, 4.0, manifest)


def write_adapter(
    folder: Path, base: BaseInfo, seed: int, scale: float = 1.0, dtype: str = "f32"
) -> AdapterRef:
    """A random adapter's GGUF in `folder`, ready to attach."""
    import hashlib

    data = adapter_to_gguf(random_adapter(base, seed), base, dtype)
    path = folder / f"adapter-{seed}.gguf"
    path.write_bytes(data)
    return AdapterRef(path, hashlib.sha256(data).hexdigest(), scale)


class ProjectFolder:
    """A project with skills, compiled at random, that tests change while it is served."""

    def __init__(self, root: Path, base: BaseInfo) -> None:
        self.root = root
        self.base = base
        self.store = Store(root / ".skillc" / "store")
        self.locked: dict[str, LockedSkill] = {}

    def add(
        self,
        name: str,
        seed: int,
        verdict: Verdict = "adapter",
        words: str = "well",
        activation: str = "full",
    ) -> LockedSkill:
        """Add or replace a skill and write the lock."""
        path = self.root / ".skills" / name / "SKILL.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SKILL.format(name=name, words=words), "utf-8")
        skill = read_skill(path)
        key = build_key(skill.hash, self.base.hash, "c" * 64, {"seed": seed})
        adapter = random_adapter(self.base, seed, skill.hash, activation)
        self.store.publish(key, adapter, adapter_to_gguf(adapter, self.base))
        source = path.relative_to(self.root).as_posix()
        self.locked[name] = LockedSkill(source, skill.hash, key, verdict)
        self.write_lock()
        return self.locked[name]

    def remove(self, name: str) -> None:
        """Take a skill out of the lock."""
        del self.locked[name]
        self.write_lock()

    def write_lock(self, **changes: Any) -> None:
        """Write the lock as `skillc build` would."""
        lock = Lock(
            LockedBase(self.base.name, self.base.hash),
            LockedCompiler("random", "c" * 64),
            dict(self.locked),
        )
        dataclasses.replace(lock, **changes).dump(self.lock_path)

    @property
    def lock_path(self) -> Path:
        return self.root / "skillc.lock"

    def gguf(self, name: str) -> Path:
        """The served file of a skill."""
        return self.store.folder(self.locked[name].key) / "adapter.gguf"


def user(text: str) -> list[dict[str, Any]]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def chat(model: str, text: str = "hello", **more: Any) -> dict[str, Any]:
    """The body of a short chat request."""
    return {"model": model, "messages": user(text), "max_tokens": 8, **more}


def names(attached: Sequence[Mapping[str, Any]]) -> list[str]:
    """The skills an answer reports."""
    return [str(entry["name"]) for entry in attached]


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something happens; AssertionError when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def prompt(engine: Engine, size: int, start: str = "") -> list[int]:
    """A prompt of exactly `size` tokens."""
    tokens = engine.tokenize(start + TEXT * 60)[:size]
    assert len(tokens) == size
    return tokens
