"""The `m2p` compiler: memory tokens, a meta-LoRA and a memory-to-parameter transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skillc_compiler.adapter import Adapter
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.bound import Bound, check_base, check_rank, load_weights
from skillc_compiler.families.host import Factors, Host
from skillc_compiler.families.interface import DEFAULT_RANK
from skillc_compiler.families.m2p_net import M2PConfig, M2PNet, memory_tokens, unpack
from skillc_compiler.torch_base import load_frozen

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base
    from skillc_compiler.skill import Skill


class M2P(Bound):
    """Compiles skills for one base; load it with `load_compiler`.

    The network makes adapters of one rank, config.rank for each piece of a text. A larger `rank`
    changes nothing; a smaller one cuts them down.
    """

    def __init__(
        self,
        base: Base,
        model: Any,
        tokenizer: Tokenizer,
        net: M2PNet,
        identity: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(base, model, tokenizer, identity)
        self.net, self.config = net, net.config
        self.sites = self.host.sites()

    @staticmethod
    def load(base: Base, config: dict[str, Any]) -> M2P:
        """Read the base's GGUF and the network's weights. Raises CompilerError."""
        path = check_base(base, config)
        model, tokenizer = load_frozen(base)
        host = Host(model)
        sites = host.sites()
        try:
            sizes = M2PConfig.from_dict(config["m2p"])
            needed = memory_tokens(sites, host.hidden, len(host.layers), sizes.rank, sizes.pool)
        except (KeyError, TypeError, ValueError) as error:
            raise CompilerError(f"{path.with_suffix('.json')}: does not fit ({error})") from error
        if (sizes.hidden, sizes.layers, sizes.memory) != (host.hidden, len(host.layers), needed):
            raise CompilerError(f"{path}: made for another shape of base than {base.gguf}")
        with torch.device("meta"):
            net = M2PNet(sizes, sites)
        load_weights(path, net)
        return M2P(base, model, tokenizer, net)

    @torch.inference_mode()
    def compile(self, skill: Skill, *, rank: int = DEFAULT_RANK) -> Adapter:
        """The adapter of one skill; see `Compiler`."""
        check_rank(rank)
        prefix, ids = self.reading(skill.text)
        size = self.config.context
        pieces = [ids[start : start + size] for start in range(0, len(ids), size)]
        if self.config.long == "truncate":
            pieces = pieces[:1]
        factors: dict[str, tuple[Tensor, Tensor]] = {}
        for piece in pieces:
            factors = joined(factors, self.read([*prefix, *piece], factors))
        return self.adapter(skill, factors, rank)

    def reading(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens in front of every piece of a text, and the text's own."""
        return list(self.config.prefix), self.tokens(text)

    def factors(self, ids: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """The LoRA factors (A [r, in], B [out, r]) of a text of one piece, by module path."""
        return self.read(ids, {})

    def settings(self) -> dict[str, Any]:
        """What compiler.json says of the network."""
        return self.config.to_dict()

    def read(self, ids: Sequence[int], known: Factors) -> dict[str, tuple[Tensor, Tensor]]:
        """The factors of one piece of text, read with what is `known` of the text before it."""
        flat = self.net(self.memory_states(ids, known)[None])[0]
        found = unpack(flat, self.sites, self.config.rank, self.config.scale)
        return {path: (a, b * self.config.gain) for path, (a, b) in found.items()}

    def memory_states(self, ids: Sequence[int], known: Factors) -> Tensor:
        """What the memory tokens behind `ids` become after every layer: [L, M, hidden], float32."""
        states: list[Tensor] = []
        count = self.config.memory

        def keep(layer: int, output: Tensor) -> None:
            states.append(output[0, -count:].float().to(self.net.memory.device))

        text = self.host.embed(self.host.ids(ids))
        embeds = torch.cat((text, self.net.memory[None].to(text)), dim=1)
        with self.host.attached(joined(self.meta_lora(), known)), self.host.listening(after=keep):
            self.host.run(embeds)
        return torch.stack(states)

    def meta_lora(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The factors attached while reading, A [r, in] and B [out, r]; no alpha."""
        pairs = zip(self.sites, self.net.meta_a, self.net.meta_b, strict=True)
        return {site.path: (a.T, b.T) for site, a, b in pairs}


def joined(first: Factors, second: Factors) -> dict[str, tuple[Tensor, Tensor]]:
    """Both updates at once: ranks one after the other, `first` in front."""
    both = dict(second)
    for path, (a, b) in first.items():
        if path in both:
            c, d = both[path]
            both[path] = torch.cat((a, c)), torch.cat((b, d), dim=1)
        else:
            both[path] = a, b
    return both
