"""llama.cpp's grammars: which tokens may come next.

The library aborts the process when it is told of a token that its grammar forbids, or of any after
the end: choose only among what `mask` leaves, and stop at the end.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from skillc_compiler.errors import ServeError
from skillc_runtime.llama import LOG, Vocab, lib
from skillc_runtime.sampling import Row

_TOKEN = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Grammar:
    """The state of one answer under a grammar; free it when the answer ends."""

    def __init__(self, vocab: Vocab, text: str) -> None:
        """ServeError when `text` is no grammar (or one that refers to itself at once)."""
        LOG.clear()
        self._handle: Any = lib.llama_sampler_init_grammar(vocab.handle, text.encode(), b"root")
        if not self._handle:
            raise ServeError(f"llama.cpp refuses the grammar: {LOG.last()}")
        self._is_end = vocab.is_end

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        tokens = np.zeros(1, _TOKEN)
        tokens["id"] = token
        self._apply(tokens)
        return bool(np.isfinite(tokens["logit"][0]))

    def mask(self, row: Row) -> Row:
        """`row` with minus infinity for every token that may not come next; ServeError if all."""
        tokens = np.zeros(len(row), _TOKEN)
        tokens["id"] = np.arange(len(row))
        tokens["logit"] = row
        self._apply(tokens)
        masked: Row = tokens["logit"].copy()
        if not np.isfinite(masked).any():
            raise ServeError("no token of this base fits the grammar")
        return masked

    def accept(self, token: int) -> None:
        """Go on with `token`, which must be allowed."""
        if not self._is_end(token):
            lib.llama_sampler_accept(self._handle, token)

    def free(self) -> None:
        """Give the memory back."""
        if self._handle:
            lib.llama_sampler_free(self._handle)
            self._handle = None

    def _apply(self, tokens: Any) -> None:
        data = tokens.ctypes.data_as(lib.llama_token_data_p)
        array = lib.llama_token_data_array(data, len(tokens), -1, False)
        lib.llama_sampler_apply(self._handle, ctypes.byref(array))
