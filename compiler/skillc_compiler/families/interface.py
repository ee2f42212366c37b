"""The one interface of all compiler families: text in, adapter out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from skillc_compiler.errors import CompilerError
from skillc_compiler.file_hash import file_sha256

if TYPE_CHECKING:
    from skillc_compiler.adapter import Adapter
    from skillc_compiler.bases import Base
    from skillc_compiler.skill import Skill

DEFAULT_RANK = 64
# family -> module below skillc_compiler.families, and the class in it.
FAMILIES = {
    "writer": ("writer", "Writer"),
    "m2p": ("m2p", "M2P"),
    "perceiver": ("perceiver", "Perceiver"),
    "distill": ("distill", "Distill"),
}


class Compiler(Protocol):
    """A hypernetwork bound to one base; `hash` identifies its weights and settings."""

    @property
    def id(self) -> str: ...

    @property
    def hash(self) -> str: ...

    def compile(self, skill: Skill, *, rank: int = DEFAULT_RANK) -> Adapter:
        """The adapter of one skill, at most of rank `rank`. Raises CompilerError."""
        ...

    def compile_many(
        self,
        skills: Sequence[Skill],
        *,
        rank: int = DEFAULT_RANK,
        on_done: Callable[[Skill, Adapter | CompilerError], None] | None = None,
    ) -> list[Adapter | CompilerError]:
        """Adapters in the order of `skills`; a failure takes its skill's place."""
        ...


def compiler_identity(base: Base) -> tuple[str, str]:
    """(id, hash) of the compiler bound to `base`, without loading it. Raises CompilerError."""
    config = read_config(base)
    assert base.compiler_dir is not None
    weights = file_sha256(base.compiler_dir / "compiler.safetensors")
    settings = file_sha256(base.compiler_dir / "compiler.json")
    return str(config["id"]), f"{weights[:32]}{settings[:32]}"


def read_config(base: Base) -> dict[str, Any]:
    """The compiler's settings; raises CompilerError when the base has no readable compiler."""
    if base.compiler_dir is None:
        raise CompilerError(
            f"base {base.name!r} has no compiler: put compiler.safetensors and compiler.json"
            f" beside {base.gguf}"
        )
    path = base.compiler_dir / "compiler.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict) or "family" not in config or "id" not in config:
            raise ValueError("keys `family` and `id` are missing")
    except (OSError, ValueError) as error:
        raise CompilerError(f"{path}: not a compiler's settings ({error})") from error
    return config


def load_compiler(base: Base) -> Compiler:
    """The compiler bound to `base`, ready to compile; imports torch. Raises CompilerError."""
    config = read_config(base)
    family = config["family"]
    if family not in FAMILIES:
        raise CompilerError(f"base {base.name!r}: compiler family {family!r} is not known here")
    module, name = FAMILIES[family]
    try:
        found: Any = getattr(import_module(f"skillc_compiler.families.{module}"), name)
    except ImportError as error:
        raise CompilerError(
            f"{error.name or 'torch'} is not installed: pip install 'skillc[compiler]'"
        ) from error
    compiler: Compiler = found.load(base, config)
    return compiler
