"""One base in two engines: transformers with PEFT, and llama.cpp with our GGUFs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.compiler import stand_in
from tests.compiler.llama import Llama, loaded

from skillc_compiler.adapter import Adapter, save_peft
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.gguf_check import validate_adapter
from skillc_compiler.torch_base import load_hf

Logits = npt.NDArray[np.float32]
TOKENS = [1, 300, 41, 77, 200, 505, 90, 90, 12, 310, 2, 1, 45, 350, 411, 60, 33, 250, 18, 7] * 3


@dataclass
class Pair:
    """One base in both engines, and a folder for files."""

    base: BaseInfo
    llama: Llama
    model: Any
    folder: Path

    def peft(self, adapter: Adapter) -> Logits:
        """Logits of transformers with the adapter's PEFT folder."""
        import torch
        from peft import PeftModel

        save_peft(adapter, self.folder / "peft")
        with warnings.catch_warnings():
            # peft asks transformers for an attribute that transformers has renamed.
            warnings.simplefilter("ignore", FutureWarning)
            model = PeftModel.from_pretrained(self.model, self.folder / "peft")
        try:
            with torch.inference_mode():
                found: Logits = model(torch.tensor([TOKENS])).logits[0].numpy()
            return found
        finally:
            model.unload()

    def plain(self) -> Logits:
        """Logits of transformers alone."""
        import torch

        with torch.inference_mode():
            found: Logits = self.model(torch.tensor([TOKENS])).logits[0].numpy()
        return found

    def served(self, adapter: Adapter, dtype: str) -> Logits:
        """Logits of llama.cpp with the adapter as a GGUF, which has to pass our own check."""
        data = adapter_to_gguf(adapter, self.base, dtype)
        validate_adapter(data, self.base)
        path = self.folder / "adapter.gguf"
        path.write_bytes(data)
        with loaded(self.llama, path) as handle:
            return self.llama.logits(TOKENS, [(handle, 1.0)])


@dataclass(frozen=True)
class Row:
    """One comparison: the largest logit difference, and what the adapter changes at most."""

    kind: str
    target: str
    dtype: str
    difference: float
    effect: float


@contextmanager
def opened(kind: str, folder: Path, **changes: Any) -> Iterator[Pair]:
    """A random base of this kind, written below `folder`, in both engines."""
    written = stand_in.write_folder(folder / kind, kind, **changes)
    base = stand_in.write_gguf(written, folder / f"{kind}.gguf")
    with Llama(base.path) as llama:
        yield Pair(base, llama, load_hf(written), folder)


def rows(pair: Pair, kind: str, dtypes: Sequence[str] = ("f32", "f16", "q8_0")) -> Iterator[Row]:
    """Every target of the base alone, and all of them together, in these types."""
    bare = pair.llama.logits(TOKENS)
    singles = [[target] for target in stand_in.targets(pair.base)]
    yield Row(kind, "no adapter", "f32", float(np.abs(bare - pair.plain()).max()), 0.0)
    for linears in [*singles, stand_in.targets(pair.base)]:
        adapter = stand_in.adapter(pair.base, linears, rank=8, seed=1)
        theirs = pair.peft(adapter)
        effect = float(np.abs(theirs - bare).max())
        for dtype in dtypes:
            difference = float(np.abs(pair.served(adapter, dtype) - theirs).max())
            target = linears[0] if len(linears) == 1 else "all targets"
            yield Row(kind, target, dtype, difference, effect)
