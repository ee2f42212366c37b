"""What every compiler family does alike once it is bound to a base: manifests and many skills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skillc_compiler.adapter import Adapter, LoraPair
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.host import Factors, Host
from skillc_compiler.families.interface import DEFAULT_RANK, compiler_identity
from skillc_compiler.families.labels import label
from skillc_compiler.families.probe import probe
from skillc_compiler.families.writer_net import low_rank
from skillc_compiler.file_hash import file_sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base
    from skillc_compiler.skill import Skill


class Bound:
    """A compiler bound to a base: its identity, the base as a model, and its tokenizer."""

    activation = "full"

    def __init__(
        self,
        base: Base,
        model: Any,
        tokenizer: Tokenizer,
        identity: tuple[str, str] | None = None,
    ) -> None:
        """`identity` (id, hash) is for a compiler that is not written beside its base."""
        self.id, self.hash = identity or compiler_identity(base)
        self.base = base
        self.base_hash = file_sha256(base.gguf)
        self.host, self.tokenizer = Host(model), tokenizer

    def compile(self, skill: Skill, *, rank: int = DEFAULT_RANK) -> Adapter:
        """The adapter of one skill; see `Compiler`."""
        raise NotImplementedError

    def compile_many(
        self,
        skills: Sequence[Skill],
        *,
        rank: int = DEFAULT_RANK,
        on_done: Callable[[Skill, Adapter | CompilerError], None] | None = None,
    ) -> list[Adapter | CompilerError]:
        """Adapters in the order of `skills`; see `Compiler`."""
        results: list[Adapter | CompilerError] = []
        for skill in skills:
            try:
                result: Adapter | CompilerError = self.compile(skill, rank=rank)
            except CompilerError as error:
                result = error
            except (RuntimeError, ValueError, MemoryError) as error:
                # What torch raises over one odd text must not cost the other skills.
                kind = type(error).__name__
                result = CompilerError(f"cannot be compiled: unexpected {kind}: {error}")
            results.append(result)
            if on_done is not None:
                on_done(skill, result)
        return results

    def tokens(self, text: str) -> list[int]:
        """Token ids of `text`; text that spells a control token stays text of the skill."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            raise CompilerError("the skill's text has no tokens")
        return list(ids)

    def adapter(self, skill: Skill, factors: Factors, rank: int) -> Adapter:
        """The adapter whose update is B A (A [R, in], B [out, R]), cut down to rank <= `rank`.

        A larger R is cut by the best approximation (SVD of the product). alpha = rank, so PEFT's
        scaling is 1. Raises CompilerError when a value is not finite.
        """
        kept = cut({path: (a.float(), b.float()) for path, (a, b) in factors.items()}, rank)
        if not all(torch.isfinite(a).all() and torch.isfinite(b).all() for a, b in kept.values()):
            raise CompilerError(
                f"skill {skill.name!r}: the adapter is not finite; report this text"
            )
        actual = max(len(a) for a, _ in kept.values())
        with torch.inference_mode():
            scores = probe(self.host, self.tokenizer, skill.text, kept)
        manifest = label(self, skill, actual, kept, scores)
        pairs = {
            path: LoraPair(a.contiguous().cpu().numpy(), b.contiguous().cpu().numpy())
            for path, (a, b) in kept.items()
        }
        return Adapter(pairs, float(actual), manifest)


def cut(factors: Factors, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    """The same updates at most of rank `rank`, by the best approximation; factors on the CPU."""
    return {
        path: (a, b) if len(a) <= rank else low_rank(a, b.T, rank)
        for path, (a, b) in factors.items()
    }


def check_rank(rank: int) -> None:
    """CompilerError for a rank no adapter can have."""
    if rank < 1:
        raise CompilerError(f"rank {rank} is not possible: use 1 or more, 32 is the default")


def check_base(base: Base, config: Mapping[str, Any]) -> Path:
    """The path of the compiler's weights; CompilerError when they were made for another base."""
    assert base.compiler_dir is not None
    path = base.compiler_dir / "compiler.safetensors"
    if config.get("base_hash") not in (None, file_sha256(base.gguf)):
        raise CompilerError(f"{path}: made for another base than {base.gguf}")
    return path


def load_weights(path: Path, net: torch.nn.Module) -> None:
    """Fill `net` with the file's tensors, as float32. Raises CompilerError when they do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
        net.load_state_dict(weights, assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CompilerError(f"{path}: not this compiler's weights ({reason})") from error
    net.requires_grad_(False)
    net.eval()
