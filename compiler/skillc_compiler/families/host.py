"""A frozen causal language model of transformers, as compilers of any family read and change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skillc_compiler.errors import CompilerError
from skillc_compiler.gguf_names import LINEARS

Factors = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Site:
    """One linear module: its path in the model, and what goes in and comes out."""

    path: str
    layer: int
    name: str
    d_in: int
    d_out: int

    @property
    def size(self) -> int:
        """Values of a rank-1 LoRA of this module."""
        return self.d_in + self.d_out


class Host:
    """The decoder of any causal language model of transformers; CompilerError without layers."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.path, self.layers = _decoder_layers(model)
        self.embed: nn.Module = model.get_input_embeddings()
        self.hidden = int(model.config.get_text_config().hidden_size)

    def sites(self, targets: Sequence[str] = LINEARS) -> list[Site]:
        """The targeted linear modules, layer by layer, in the order of `targets`."""
        found = []
        for number, layer in enumerate(self.layers):
            modules = dict(layer.named_modules())
            for name in targets:
                if name in modules:
                    d_out, d_in = _features(modules[name])
                    found.append(Site(f"{self.path}.{number}.{name}", number, name, d_in, d_out))
        if not found:
            raise CompilerError(f"the base has none of the modules {', '.join(targets)}")
        return found

    def ids(self, tokens: Sequence[int]) -> Tensor:
        """Token ids [1, S] where the model's embedding is."""
        return torch.tensor([tokens], device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the embedding is; a model spread over several devices starts there."""
        found = next(self.embed.parameters()).device
        if found.type != "meta":
            return found
        hook: Any = self.embed._hf_hook  # of accelerate, which put the weights elsewhere
        return torch.device(hook.execution_device)

    @property
    def streamed(self) -> bool:
        """Whether the layers have no weights until their turn comes."""
        return next(self.layers[0].parameters()).device.type == "meta"

    @property
    def sharded(self) -> bool:
        """Whether processes share the layers: then every one has to make the same passes."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return False
        from torch.distributed.fsdp import FSDPModule

        return isinstance(self.layers[0], FSDPModule)

    def most(self, count: int) -> int:
        """The largest `count` of all processes that share the layers; alone, one's own."""
        if not self.sharded:
            return count
        told = torch.tensor(count, device=self.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return int(told)

    @property
    def table(self) -> Tensor:
        """The embedding's weight [vocabulary, hidden]."""
        return _weight(self.model.get_input_embeddings())

    @property
    def output(self) -> Tensor:
        """The output layer's weight [vocabulary, hidden]; the embedding's where they are tied."""
        return _weight(self.model.get_output_embeddings())

    def run(self, embeds: Tensor) -> None:
        """One pass of the decoder over `embeds` [1, S, hidden], for what hooks take from it."""
        # The output layer is left out: over a large vocabulary it costs more memory than the rest.
        self.model.base_model(inputs_embeds=embeds, use_cache=False)

    @contextmanager
    def attached(self, factors: Factors) -> Iterator[None]:
        """The model with B A added to its modules (A [r, in], B [out, r]) for the time being."""

        def adding(a: Tensor, b: Tensor) -> Callable[..., Tensor]:
            def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
                x = arguments[0]
                change = x.to(a.dtype) @ a.T.to(x.device) @ b.T.to(x.device)
                return output + change.to(output.dtype)

            return hook

        with ExitStack() as stack:
            for path, (a, b) in factors.items():
                handle = self.model.get_submodule(path).register_forward_hook(adding(a, b))
                stack.callback(handle.remove)
            yield

    @contextmanager
    def listening(
        self,
        *,
        before: Callable[[int, Tensor], None] | None = None,
        after: Callable[[int, Tensor], None] | None = None,
    ) -> Iterator[None]:
        """Hand every layer's input to `before` and output to `after`, with the layer's number."""

        def on_input(number: int, tell: Callable[[int, Tensor], None]) -> Callable[..., None]:
            def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
                tell(number, arguments[0] if arguments else named["hidden_states"])

            return hook

        def on_output(number: int, tell: Callable[[int, Tensor], None]) -> Callable[..., None]:
            def hook(module: nn.Module, arguments: Any, output: Any) -> None:
                tell(number, output[0] if isinstance(output, tuple) else output)

            return hook

        with ExitStack() as stack:
            for number, layer in enumerate(self.layers):
                if before is not None:
                    hook = on_input(number, before)
                    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
                    stack.callback(handle.remove)
                if after is not None:
                    handle = layer.register_forward_hook(on_output(number, after))
                    stack.callback(handle.remove)
            yield


def _decoder_layers(model: Any) -> tuple[str, Sequence[nn.Module]]:
    count = model.config.get_text_config().num_hidden_layers
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and path.endswith("layers"):
            return path, list(module)
    raise CompilerError(f"{type(model).__name__} has no list of {count} decoder layers")


def _features(module: Any) -> tuple[int, int]:
    """(out, in) of a linear module; quantised ones pack their weight but keep these."""
    return int(module.out_features), int(module.in_features)


def _weight(module: Any) -> Tensor:
    """A module's weight, fetched from where a device map may have left it."""
    weight: Tensor = module.weight
    if weight.device.type != "meta":
        return weight
    from accelerate.utils import align_module_device

    with align_module_device(module):
        fetched: Tensor = module.weight
    return fetched
