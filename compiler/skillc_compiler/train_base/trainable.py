"""What training asks of a compiler, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn

    from skillc_compiler.bases import Base
    from skillc_compiler.families.host import Factors, Host


class Trainable(Protocol):
    """A compiler with its base: `Writer`, `M2P` and `Perceiver`.

    A step asks for the `factors` of every skill's text, attaches them to `host`, and sends the loss
    of what the base then says back into `net`, the only part with gradients. `compile` makes its
    adapters of the same factors.
    """

    @property
    def base(self) -> Base: ...

    @property
    def base_hash(self) -> str: ...

    @property
    def host(self) -> Host: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def net(self) -> nn.Module: ...

    def settings(self) -> dict[str, Any]:
        """What compiler.json says of `net`."""
        ...

    def reading(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens of the frame in front of a text, and of the text; a long text is cut there."""
        ...

    def factors(self, ids: Sequence[int]) -> Factors:
        """The LoRA factors (A [r, in], B [out, r]) by module path of a text: frame and tokens."""
        ...
