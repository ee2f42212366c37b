"""The `writer` compiler: one forward pass of the frozen base, then outer-product writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skillc_compiler import __version__
from skillc_compiler.adapter import Adapter, LoraPair, Manifest
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.interface import DEFAULT_RANK, compiler_identity
from skillc_compiler.families.parallel import in_parallel, one_thread
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
_PROBE_WINDOW, _PROBE_CUE, _PROBE_WINDOWS = 64, 8, 24
_CODE = re.compile(r"```[^\n]*\n(?P<fence>.*?)```|`(?P<span>[^`\n]+)`", re.DOTALL)


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
            self._manifest(skill, rank, tuple(pairs), probe),
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

    def _manifest(
        self, skill: Skill, rank: int, targets: tuple[str, ...], probe: dict[str, float]
    ) -> Manifest:
        return Manifest(
            skill_name=skill.name,
            skill_hash=skill.hash,
            base_name=self.base.name,
            base_hash=self.base_hash,
            compiler_id=self.id,
            compiler_hash=self.hash,
            rank=rank,
            alpha=float(rank),
            targets=targets,
            tool_version=__version__,
            licence=skill.metadata.get("license"),
            source=skill.metadata.get("source"),
            probe=probe,
        )

    def _probe(self, text: str, factors: Factors) -> dict[str, float]:
        """How much of the text's code comes back from the adapter alone: token accuracies.

        Windows of the text are continued without the text in context, `recall` with the adapter
        and `recall_none` without; only tokens inside code spans count (all, if there are none).
        """
        windows, wanted = self._probe_windows(text)
        if not wanted.any():
            return {}
        targets = windows[:, 1:]
        scores = {}
        for name, attached in (("recall", factors), ("recall_none", {})):
            with self._taps.attached(attached):
                guesses = self.model(windows).logits[:, :-1].argmax(-1)
            scores[name] = round(float((guesses == targets)[wanted].float().mean()), 4)
        return scores

    def _probe_windows(self, text: str) -> tuple[Tensor, Tensor]:
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        spans = [match.span(match.lastgroup or 0) for match in _CODE.finditer(text)]
        inside = [
            any(begin <= left and right <= end for begin, end in spans)
            for left, right in encoded.offsets
        ]
        if not any(inside):
            inside = [True] * len(inside)
        size = min(_PROBE_WINDOW, len(encoded.ids))
        stride = max(1, size - _PROBE_CUE)
        starts = range(0, max(1, len(encoded.ids) - _PROBE_CUE), stride)
        starts_kept = [min(start, len(encoded.ids) - size) for start in starts]
        step = -(-len(starts_kept) // _PROBE_WINDOWS)
        chosen = starts_kept[::step]
        windows = torch.tensor([encoded.ids[start : start + size] for start in chosen])
        wanted = torch.tensor([inside[start + 1 : start + size] for start in chosen])
        wanted[:, : _PROBE_CUE - 1] = False
        return windows, wanted


def _chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    start = 0
    while True:
        yield list(ids[start : start + CHUNK])
        start += CHUNK - OVERLAP
        if start + OVERLAP >= len(ids):
            return
