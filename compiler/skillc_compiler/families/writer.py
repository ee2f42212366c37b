"""The `writer` compiler: one forward pass of the frozen base, then outer-product writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skillc_compiler.adapter import Adapter, LoraPair
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import DEFAULT_RANK, compiler_identity
from skillc_compiler.families.labels import label
from skillc_compiler.families.parallel import in_parallel, one_thread
from skillc_compiler.families.probe import recall
from skillc_compiler.families.taps import Factors, Taps
from skillc_compiler.families.writer_net import Reading, WriterConfig, WriterNet, low_rank
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.torch_base import load_torch_base

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base
    from skillc_compiler.skill import Skill

CHUNK = 768
OVERLAP = 32
PREFIX = "<|im_start|>system\n"


class Writer:
    """Compiles skills for one base; load it with `load_compiler`."""

    def __init__(
        self,
        base: Base,
        model: Any,
        tokenizer: Tokenizer,
        net: WriterNet,
        identity: tuple[str, str],
    ) -> None:
        self.id, self.hash = identity
        self.base = base
        self.base_hash = file_sha256(base.gguf)
        self.model, self.tokenizer, self.net = model, tokenizer, net
        self._taps = Taps(model, net.config.sites)
        self._prefix = tokenizer.encode(PREFIX, add_special_tokens=False).ids

    @staticmethod
    def load(base: Base, config: dict[str, Any]) -> Writer:
        """Read the base's GGUF and the writer's weights. Raises CompilerError."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        assert base.compiler_dir is not None
        model, tokenizer = load_torch_base(base.gguf)
        net = WriterNet(WriterConfig.from_dict(config["writer"]))
        path = base.compiler_dir / "compiler.safetensors"
        try:
            weights = {name: value.float() for name, value in load_file(path).items()}
            net.load_state_dict(weights)
        except (SafetensorError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CompilerError(f"{path}: not this compiler's weights ({reason})") from error
        if config.get("base_hash") not in (None, file_sha256(base.gguf)):
            raise CompilerError(f"{path}: made for another base than {base.gguf}")
        return Writer(base, model, tokenizer, net.eval(), compiler_identity(base))

    def compile(self, skill: Skill, *, rank: int = DEFAULT_RANK) -> Adapter:
        """The adapter of one skill; see `Compiler`."""
        if rank < 1:
            raise CompilerError(f"rank {rank} is not possible: use 1 or more, e.g. {DEFAULT_RANK}")
        # One thread: how a product is split over threads can change its last bits.
        with torch.inference_mode(), one_thread():
            factors = {
                layer: low_rank(keys, values, rank)
                for layer, (keys, values) in self.memories(skill.text).items()
            }
            probe = self._probe(skill.text, factors)
        if not all(
            torch.isfinite(a).all() and torch.isfinite(b).all() for a, b in factors.values()
        ):
            raise CompilerError(
                f"skill {skill.name!r}: the adapter is not finite; report this text"
            )
        pairs = {
            f"model.layers.{layer}.mlp.down_proj": LoraPair(a.numpy(), b.numpy())
            for layer, (a, b) in factors.items()
        }
        return Adapter(
            pairs,
            float(rank),
            label(self, skill, rank, pairs, probe),
        )

    def compile_many(
        self,
        skills: Sequence[Skill],
        *,
        rank: int = DEFAULT_RANK,
        on_done: Callable[[Skill, Adapter | CompilerError], None] | None = None,
    ) -> list[Adapter | CompilerError]:
        """Adapters in the order of `skills`, as many at once as there are cores; see `Compiler`.

        Each skill is read alone, so its adapter has the bytes that `compile` gives it.
        """

        def compile_one(skill: Skill) -> Adapter | CompilerError:
            try:
                return self.compile(skill, rank=rank)
            except CompilerError as error:
                return error
            except (RuntimeError, ValueError, MemoryError) as error:
                # What torch raises over one odd text must not cost the other skills.
                kind = type(error).__name__
                return CompilerError(f"cannot be compiled: unexpected {kind}: {error}")

        return in_parallel(compile_one, skills, on_done)

    def memories(self, text: str) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys [S, inner] and values [S, hidden] of every token of `text`, by site layer.

        Texts over one chunk are read in overlapping chunks whose memories add up.
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        parts = [self.net(self.read(self._prefix + chunk)) for chunk in _chunks(ids)]
        return {
            layer: (
                torch.cat([part[site][0][0] for part in parts]),
                torch.cat([part[site][1][0] for part in parts]),
            )
            for site, layer in enumerate(self.net.config.sites)
        }

    def read(self, ids: Sequence[int]) -> Reading:
        """One forward pass of the base over `ids`, keeping what the writer reads; batch of one."""
        tokens = torch.tensor([ids])
        decoder = self.model.model
        with self._taps.reading() as seen:
            logits = self.model(tokens, use_cache=False).logits.float()
        mask = torch.ones_like(tokens, dtype=torch.bool)
        mask[:, -1] = False
        embed = decoder.embed_tokens.weight
        successors = torch.roll(tokens, -1, dims=1)
        nexts = embed[successors] * mask[..., None]
        nll = F.cross_entropy(logits[0], successors[0], reduction="none")[None]
        return Reading(
            states=seen.states,
            inputs=seen.inputs,
            nexts=nexts,
            surprise=(nexts - logits.softmax(-1) @ embed) * mask[..., None],
            nll=nll * mask,
            mask=mask,
        )

    def _probe(self, text: str, factors: Factors) -> dict[str, float]:
        def guess(windows: Tensor, *, attached: bool) -> Tensor:
            with self._taps.attached(factors if attached else {}):
                found: Tensor = self.model(windows).logits.argmax(-1)
                return found

        return recall(self.tokenizer, text, guess)


def _chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    start = 0
    while True:
        yield list(ids[start : start + CHUNK])
        start += CHUNK - OVERLAP
        if start + OVERLAP >= len(ids):
            return
