"""One llama.cpp context: its KV cache, the adapters attached to it, decoding, logits rows."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skillc_compiler.errors import ServeError
from skillc_runtime.llama import LOG, LoadedAdapter, Model, lib
from skillc_runtime.sampling import Row

State = npt.NDArray[np.uint8]
BATCH = 512
_OUTPUTS = 64  # logits rows of one decode; more would reserve vocabulary x rows floats


@dataclass(frozen=True, slots=True)
class Entry:
    """One token to decode: where it stands, in which sequence, and whether its row is wanted."""

    token: int
    position: int
    sequence: int = 0
    output: bool = False


class Context:
    """Not safe to share between threads: one thread at a time decodes."""

    def __init__(
        self, model: Model, *, cells: int, n_threads: int, sequences: int, exact: bool
    ) -> None:
        """`cells` tokens, of all sequences together, find place in the cache."""
        params = lib.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = BATCH
        params.n_outputs_max = max(_OUTPUTS, sequences)
        params.n_seq_max = sequences + 2  # see `Cells`
        params.n_threads = params.n_threads_batch = n_threads
        # Flash attention keeps NaN in freed cells from reaching later requests, but computes in
        # float16; without it and with a float32 cache logits are as exact as the weights.
        flash = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED if exact else lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.flash_attn_type = flash
        params.type_k = params.type_v = lib.GGML_TYPE_F32 if exact else lib.GGML_TYPE_F16
        params.kv_unified = True
        params.no_perf = True
        LOG.clear()
        self.handle: Any = lib.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise ServeError(f"{model.path}: no context of {cells} tokens: {LOG.last()}")
        self.cells: int = lib.llama_n_ctx(self.handle)
        # Such memories keep only a sequence's newest state: no cutting, no sharing of beginnings.
        self.recurrent = bool(
            lib.llama_model_is_recurrent(model.handle) or lib.llama_model_is_hybrid(model.handle)
        )
        self.sequences = sequences
        self.outputs = params.n_outputs_max
        self._vocab_size = model.vocab.size
        self._memory = lib.llama_get_memory(self.handle)
        self._batch = _Batch()

    def attach(self, adapter: tuple[LoadedAdapter, float] | None) -> None:
        """Make this adapter, at this scale, act on what is decoded from now on; None: no adapter.

        One at most: of several the library adds the deltas in no fixed order.
        """
        handles, scales, count = None, None, 0
        if adapter is not None:
            handles = (lib.llama_adapter_lora_p_ctypes * 1)(adapter[0].handle)
            scales = (ctypes.c_float * 1)(adapter[1])
            count = 1
        if lib.llama_set_adapters_lora(self.handle, handles, count, scales):
            raise ServeError(f"llama.cpp cannot attach an adapter: {LOG.last()}")

    def decode(self, entries: Sequence[Entry]) -> None:
        """Decode at most BATCH tokens; ServeError (and an empty cache) when that fails."""
        LOG.clear()
        code = lib.llama_decode(self.handle, self._batch.fill(entries))
        if code:
            self.clear(data=True)
            raise ServeError(f"llama.cpp failed to decode (code {code}): {LOG.last()}")

    def row(self, index: int) -> Row:
        """The logits after entry `index` of the last decode: float32 [vocabulary], a copy."""
        pointer = lib.llama_get_logits_ith(self.handle, index)
        if not pointer:
            raise ServeError(f"no logits were asked for at {index} of the last decode")
        return np.ctypeslib.as_array(pointer, (self._vocab_size,)).copy()

    def forget(self, sequence: int = -1, start: int = 0) -> bool:
        """Drop a sequence (-1: all) from a position on; False when the base cannot cut there."""
        return bool(lib.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def share(self, source: int, target: int, start: int = 0, end: int = -1) -> None:
        """Let `target` have the cells of `source` from position `start` to before `end` too."""
        lib.llama_memory_seq_cp(self._memory, source, target, start, end)

    def state_size(self, sequence: int) -> int:
        """Bytes that `save` would give."""
        return int(lib.llama_state_seq_get_size(self.handle, sequence))

    def save(self, sequence: int) -> State:
        """A copy of what the cache holds of a sequence: uint8 [bytes]."""
        state: State = np.empty(self.state_size(sequence), np.uint8)
        data = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        size = lib.llama_state_seq_get_data(self.handle, data, len(state), sequence)
        return state[:size]

    def restore(self, sequence: int, state: State) -> bool:
        """Put a copy back, as any sequence; False, and nothing is left of it, without room."""
        data = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if lib.llama_state_seq_set_data(self.handle, data, len(state), sequence):
            return True
        self.forget(sequence)
        return False

    def clear(self, *, data: bool) -> None:
        """Empty the cache; with `data` overwrite it too, the only cure once NaN is in it."""
        lib.llama_memory_clear(self._memory, data)

    def close(self) -> None:
        if self.handle:
            lib.llama_free(self.handle)
            self.handle = None


class _Batch:
    """The C batch, its arrays filled through numpy."""

    def __init__(self) -> None:
        self._token = np.zeros(BATCH, np.int32)
        self._position = np.zeros(BATCH, np.int32)
        self._sequence = np.zeros(BATCH, np.int32)
        self._output = np.zeros(BATCH, np.int8)
        self._one = np.ones(BATCH, np.int32)
        address = self._sequence.ctypes.data
        self._rows = np.arange(address, address + 4 * BATCH, 4, dtype=np.uintp)
        self._struct = lib.llama_batch(
            0,
            self._token.ctypes.data_as(ctypes.POINTER(lib.llama_token)),
            None,
            self._position.ctypes.data_as(ctypes.POINTER(lib.llama_pos)),
            self._one.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            self._rows.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))),
            self._output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def fill(self, entries: Sequence[Entry]) -> Any:
        count = len(entries)
        if not 0 < count <= BATCH:
            raise ValueError(f"a batch holds 1 to {BATCH} tokens, not {count}")
        self._token[:count] = [entry.token for entry in entries]
        self._position[:count] = [entry.position for entry in entries]
        self._sequence[:count] = [entry.sequence for entry in entries]
        self._output[:count] = [entry.output for entry in entries]
        self._struct.n_tokens = count
        return self._struct
