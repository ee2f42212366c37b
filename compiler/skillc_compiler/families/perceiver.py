"""The `perceiver` compiler (Doc-to-LoRA): chunks of a text to rank blocks of one adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from skillc_compiler.adapter import Adapter
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.bound import Bound, check_base, check_rank, load_weights
from skillc_compiler.families.host import Host
from skillc_compiler.families.interface import DEFAULT_RANK
from skillc_compiler.families.perceiver_net import PerceiverConfig, PerceiverNet, short
from skillc_compiler.torch_base import load_frozen

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base
    from skillc_compiler.skill import Skill

Made = dict[str, tuple[Tensor, Tensor]]


class Perceiver(Bound):
    """Compiles skills for one base; load it with `load_compiler`.

    An adapter has config.rank for each chunk of the text and once more for the bias; where that is
    more than the `rank` asked for, the update is cut down to it.
    """

    def __init__(
        self,
        base: Base,
        model: Any,
        tokenizer: Tokenizer,
        net: PerceiverNet,
        identity: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(base, model, tokenizer, identity)
        self.net, self.config = net, net.config

    @staticmethod
    def load(base: Base, config: dict[str, Any]) -> Perceiver:
        """Read the base's GGUF and the network's weights. Raises CompilerError."""
        path = check_base(base, config)
        try:
            sizes = PerceiverConfig.from_dict(config["perceiver"])
        except (KeyError, TypeError) as error:
            raise CompilerError(f"{path.with_suffix('.json')}: does not fit ({error})") from error
        model, tokenizer = load_frozen(base)
        host = Host(model)
        sites = host.sites(sizes.modules)
        shapes = {(site.name, site.d_in, site.d_out) for site in sites}
        wanted = {(name, sizes.inputs[name], sizes.outputs[name]) for name in sizes.modules}
        if shapes != wanted or (host.hidden, len(host.layers)) != (sizes.hidden, sizes.layers):
            raise CompilerError(f"{path}: made for another shape of base than {base.gguf}")
        with torch.device("meta"):
            net = PerceiverNet(sizes)
        load_weights(path, net)
        return Perceiver(base, model, tokenizer, net)

    @torch.inference_mode()
    def compile(self, skill: Skill, *, rank: int = DEFAULT_RANK) -> Adapter:
        """The adapter of one skill; see `Compiler`."""
        check_rank(rank)
        _, ids = self.reading(skill.text)
        return self.adapter(skill, self.factors(ids), rank)

    def reading(self, text: str) -> tuple[list[int], list[int]]:
        """Nothing in front of a text, whose chunks get their affixes later, and its tokens."""
        return [], self.tokens(text.strip())

    def factors(self, ids: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """The LoRA factors (A [R, in], B [out, R]) of a text, by module path."""
        config = self.config
        chunks = split(ids, config.chunk, config.prefix, config.suffix)
        passes = self.host.most(len(chunks))
        made = combine([self.net(self.read(chunk)) for chunk in chunks], self.net)
        with torch.no_grad():
            for _ in range(passes - len(chunks)):
                self.read(chunks[0])
        found = {}
        for site in self.host.sites(config.modules):
            a, b = made[site.name]
            found[site.path] = (a[site.layer], b[site.layer].T * config.alpha)
        return found

    def settings(self) -> dict[str, Any]:
        """What compiler.json says of the network."""
        return self.config.to_dict()

    def read(self, ids: Sequence[int]) -> Tensor:
        """Every layer's summary of one chunk: [L, n_modules, r, latent].

        Layer by layer, so that no two layers' activations are held at once. Gradients stay in the
        network, the base is only read.
        """
        found: list[Tensor] = []
        learning, device = torch.is_grad_enabled(), self.net.head.device

        def summarise(layer: int, states: Tensor) -> None:
            with torch.set_grad_enabled(learning):
                found.append(self.net.summary(states[0].float().to(device)))

        with torch.no_grad(), self.host.listening(before=summarise):
            self.host.run(self.host.embed(self.host.ids(ids)))
        return torch.stack(found)


def split(
    ids: Sequence[int], size: int, prefix: Sequence[int], suffix: Sequence[int]
) -> list[list[int]]:
    """Chunks of the wrapped text in order, each at most `size` tokens before its own affixes.

    The text is wrapped once, then cut into pieces of even length, and prefix and suffix are put
    back where the cuts took them away. ValueError for a size below 1.
    """
    if size < 1:
        raise ValueError(f"chunks of {size} tokens")
    whole = [*prefix, *ids, *suffix]
    pieces = -(-len(whole) // size)
    length = -(-len(whole) // pieces)
    cut = [whole[start : start + length] for start in range(0, len(whole), length)]
    last = len(cut) - 1
    return [
        [*(prefix if number else ()), *piece, *(suffix if number < last else ())]
        for number, piece in enumerate(cut)
    ]


def combine(chunks: Sequence[Made], net: PerceiverNet) -> Made:
    """One adapter of all chunks: their ranks in order, then the bias block, once.

    A [L, R, in] and B [L, R, out] by module, R = (n_chunks + 1) * r.
    """
    config = net.config
    scale = config.scaling
    found = {}
    for name in config.modules:
        a = [chunk[name][0] * scale for chunk in chunks]
        b = [chunk[name][1] * scale for chunk in chunks]
        if config.average:
            a, b = [torch.stack(a).mean(0)], [torch.stack(b).mean(0)]
        if config.bias:
            a.append(net.bias_a[short(name)])
            b.append(net.bias_b[short(name)])
        found[name] = torch.cat(a, dim=1), torch.cat(b, dim=1)
    return found
