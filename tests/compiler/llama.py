"""llama.cpp through its low-level API, as little of it as tests need."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from skillc_runtime.llama import lib as api


class Llama:
    """One model and one context (float32 KV, one thread); adapters attach for one call."""

    def __init__(self, path: Path, n_ctx: int = 256) -> None:
        self.context: Any = None
        self.model: Any = api.llama_model_load_from_file(
            str(path).encode(), api.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        params: Any = api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0
        # Flash attention rounds: 6e-3 on logits of spread 1.2, against 2e-6 without.
        params.flash_attn_type = 0
        self.context = api.llama_init_from_model(self.model, params)
        self.vocab: Any = api.llama_model_get_vocab(self.model)
        self.n_vocab: int = api.llama_vocab_n_tokens(self.vocab)

    def __enter__(self) -> Llama:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        api.llama_free(self.context)
        api.llama_model_free(self.model)

    def tokenize(self, text: str, special: bool) -> list[int]:
        """The ids of `text`; `special` parses control tokens."""
        data = text.encode()
        room = len(data) + 8
        ids: Any = (api.llama_token * room)()
        n = api.llama_tokenize(self.vocab, data, len(data), ids, room, False, special)
        assert n >= 0
        return list(ids[:n])

    def load(self, adapter: Path) -> Any:
        """The handle of an adapter, or None when llama.cpp refuses it."""
        handle = api.llama_adapter_lora_init(self.model, str(adapter).encode())
        return handle if handle else None

    def free(self, handle: Any) -> None:
        """Free an adapter that is not attached."""
        api.llama_adapter_lora_free(handle)

    def logits(
        self, tokens: Sequence[int], attached: Sequence[tuple[Any, float]] = ()
    ) -> npt.NDArray[np.float32]:
        """Logits [n, vocab] of all positions with these (handle, scale) attached, then none."""
        handles: Any = (api.llama_adapter_lora_p_ctypes * len(attached))(*[h for h, _ in attached])
        scales: Any = (ctypes.c_float * len(attached))(*[s for _, s in attached])
        assert api.llama_set_adapters_lora(self.context, handles, len(attached), scales) == 0
        try:
            return self._decode(tokens)
        finally:
            api.llama_set_adapters_lora(self.context, None, 0, None)

    def _decode(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        memory = api.llama_get_memory(self.context)
        api.llama_memory_clear(memory, True)
        batch: Any = api.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert api.llama_decode(self.context, batch) == 0
        rows: Any = api.llama_get_logits(self.context)
        found = np.ctypeslib.as_array(rows, (len(tokens), self.n_vocab)).copy()
        api.llama_batch_free(batch)
        return found.astype(np.float32, copy=False)


@contextmanager
def loaded(llama: Llama, path: Path) -> Iterator[Any]:
    """An adapter's handle, freed afterwards."""
    handle = llama.load(path)
    assert handle is not None, f"llama.cpp refuses {path}"
    try:
        yield handle
    finally:
        llama.free(handle)


def quantize(source: Path, target: Path, kind: str) -> None:
    """Re-encode a base with llama.cpp's own quantiser; `kind` as in "Q4_K_M"."""
    params: Any = api.llama_model_quantize_default_params()
    params.ftype = getattr(api, f"LLAMA_FTYPE_MOSTLY_{kind}")
    assert api.llama_model_quantize(str(source).encode(), str(target).encode(), params) == 0
