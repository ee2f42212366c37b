"""The `writer` compiler: one forward pass of the frozen base, then outer-product writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skillc_compiler.adapter import Adapter, LoraPair
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.bound import check_base, check_rank, load_weights
from skillc_compiler.families.chat_prompt import base_prompt
from skillc_compiler.families.host import Host
from skillc_compiler.families.interface import DEFAULT_RANK, compiler_identity
from skillc_compiler.families.labels import label
from skillc_compiler.families.output import predict, rows_of
from skillc_compiler.families.parallel import in_parallel, one_thread
from skillc_compiler.families.probe import guesses, recall
from skillc_compiler.families.taps import SITE, Factors, Taps
from skillc_compiler.families.writer_net import (
    Memories,
    Reading,
    WriterConfig,
    WriterNet,
    joined,
    low_rank,
)
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.torch_base import load_frozen

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base
    from skillc_compiler.skill import Skill

CHUNK = 768
OVERLAP = 32


class Writer:
    """Compiles skills for one base; load it with `load_compiler`."""

    def __init__(
        self,
        base: Base,
        model: Any,
        tokenizer: Tokenizer,
        net: WriterNet,
        identity: tuple[str, str],
        activation: str = "full",
    ) -> None:
        self.id, self.hash = identity
        self.activation = activation
        self.base = base
        self.base_hash = file_sha256(base.gguf)
        self.host, self.tokenizer = Host(model), tokenizer
        self.net = net.to(self.host.device)
        self._taps = Taps(self.host, net.config.sites)
        self._prompt = base_prompt(base, tokenizer)

    @staticmethod
    def load(base: Base, config: dict[str, Any]) -> Writer:
        """Read the base and the writer's weights. Raises CompilerError."""
        path = check_base(base, config)
        try:
            sizes = WriterConfig.from_dict(config["writer"])
            net = WriterNet(sizes)
        except (KeyError, TypeError, ValueError) as error:
            raise CompilerError(f"{path.with_suffix('.json')}: does not fit ({error})") from error
        load_weights(path, net)
        model, tokenizer = load_frozen(base)
        check_shape(sizes, Host(model), path)
        activation = str(config.get("activation", "full"))
        return Writer(base, model, tokenizer, net, compiler_identity(base), activation)

    def compile(self, skill: Skill, *, rank: int = DEFAULT_RANK) -> Adapter:
        """The adapter of one skill; see `Compiler`."""
        check_rank(rank)
        # One thread: how a product is split over threads can change its last bits.
        with torch.inference_mode(), one_thread():
            proposed = self.proposed(skill.text)
            sites = list(zip(self.net.config.sites, self.net.settle(proposed), strict=True))
            factors = {layer: low_rank(keys[0], values[0], rank) for layer, (keys, values) in sites}
            ridges = {
                self._path(layer): self.net.ridge(site, proposed[site], factors[layer][0])
                for site, (layer, _) in enumerate(sites)
            }
            probe = self._probe(skill.text, factors)
        if not all(
            torch.isfinite(a).all() and torch.isfinite(b).all() for a, b in factors.values()
        ):
            raise CompilerError(
                f"skill {skill.name!r}: the adapter is not finite; report this text"
            )
        pairs = {
            self._path(layer): LoraPair(a.cpu().numpy(), b.cpu().numpy())
            for layer, (a, b) in factors.items()
        }
        return Adapter(
            pairs,
            float(rank),
            label(self, skill, rank, pairs, probe),
            ridges,
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

        # An accelerator, and a disk, serve one text after the other all the same.
        most = None if self.host.device.type == "cpu" and not self.host.streamed else 1
        return in_parallel(compile_one, skills, on_done, most)

    def memories(self, text: str) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys [S, inner] and values [S, hidden] of every token of `text`, by site layer."""
        settled = zip(self.net.config.sites, self.net.settle(self.proposed(text)), strict=True)
        return {layer: (keys[0], values[0]) for layer, (keys, values) in settled}

    def proposed(self, text: str) -> list[Memories]:
        """What every site would keep of every token of `text`.

        Texts over one chunk are read in overlapping chunks, and are then solved for as a whole.
        """
        prefix, ids = self.reading(text)
        return joined([self.net.propose(self.read(prefix + chunk)) for chunk in _chunks(ids)])

    def reading(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens in front of every chunk of a text, and the text's own."""
        # It is read where the base's chat template puts a system message.
        return self._prompt.reading(text)

    def factors(self, ids: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """The LoRA factors (A [S, inner], B [hidden, S]) of a text of one chunk, by module path.

        Of full rank, with gradients to the network alone.
        """
        with torch.no_grad():
            reading = self.read(ids)
        made = zip(self.net.config.sites, self.net(reading), strict=True)
        return {self._path(layer): (keys[0], values[0].T) for layer, (keys, values) in made}

    def settings(self) -> dict[str, Any]:
        """What compiler.json says of the network."""
        return self.net.config.to_dict()

    def read(self, ids: Sequence[int]) -> Reading:
        """One forward pass of the base over `ids`, keeping what the writer reads; batch of one."""
        tokens = self.host.ids(ids)
        with self._taps.reading() as seen:
            hidden = self.host.model.base_model(tokens, use_cache=False).last_hidden_state[0]
        hidden = hidden.to(self.host.device)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        mask[:, -1] = False
        successors = torch.roll(tokens, -1, dims=1)
        table = self.host.output
        expected, nll = predict(hidden, table, successors[0])
        wanted = rows_of(table, successors[0], hidden.device)
        nexts = rows_of(self.host.table, successors[0], hidden.device)
        return Reading(
            states=seen.states,
            inputs=seen.inputs,
            nexts=nexts[None] * mask[..., None],
            surprise=(wanted - expected)[None] * mask[..., None],
            nll=nll[None] * mask,
            mask=mask,
        )

    def attached(self, factors: Factors) -> AbstractContextManager[None]:
        """The base with LoRA factors (A, B) by site layer added, in this thread, for the block."""
        return self._taps.attached(factors)

    def _path(self, layer: int) -> str:
        return f"{self.host.path}.{layer}.{SITE}"

    def _probe(self, text: str, factors: Factors) -> dict[str, float]:
        def guess(windows: Tensor, *, attached: bool) -> Tensor:
            with self.attached(factors if attached else {}):
                return guesses(self.host, windows)

        return recall(self.tokenizer, text, guess)


def check_shape(sizes: WriterConfig, host: Host, path: Path) -> None:
    """CompilerError when the weights at `path` were made for another shape of base."""
    inner = {site.d_in for site in host.sites([SITE])}
    found = (host.hidden, inner, len(host.layers))
    if found != (sizes.hidden, {sizes.inner}, sizes.layers):
        raise CompilerError(
            f"{path}: for {sizes.layers} layers of {sizes.hidden} and {sizes.inner} inside; the"
            f" base has {len(host.layers)} of {host.hidden} and {', '.join(map(str, inner))}"
        )
    if not all(0 <= site < sizes.layers for site in sizes.sites):
        raise CompilerError(f"{path}: its sites {list(sizes.sites)} are no layers of the base")


def _chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    start = 0
    while True:
        yield list(ids[start : start + CHUNK])
        start += CHUNK - OVERLAP
        if start + OVERLAP >= len(ids):
            return
