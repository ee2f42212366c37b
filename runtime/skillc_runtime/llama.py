"""A thin typed wrapper over llama_cpp's low-level API: model, vocabulary, adapters.

Knows nothing of skills or HTTP.  `context.py` holds the part that computes.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import tempfile
from collections import deque
from functools import cached_property
from pathlib import Path
from typing import Any

# A waiting OpenMP thread that spins starves every other process (50x slower on a busy machine),
# and a native abort would start a debugger for its backtrace.  Both are read at library load.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

import llama_cpp.llama_cpp as lib
from llama_cpp._utils import errnull_file, outnull_file

from skillc_compiler.chat import TOOL_CALL_CLOSE, TOOL_CALL_OPEN
from skillc_compiler.errors import AdapterError, BaseModelError

_LOG_ERROR = 4  # ggml.h; llama_cpp's own table is one behind
_LOG_CONTINUES = 5
_TOOL_MARKS = (
    TOOL_CALL_OPEN.encode(),
    TOOL_CALL_CLOSE.encode(),
    b"[TOOL_CALLS]",
    b"[ARGS]",
    b"[CALL_ID]",
)
_SPECIAL = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN


__all__ = ["LOG", "LoadedAdapter", "Model", "Vocab", "lib"]


class _Log:
    """Keeps the last error lines of the library, which says why it failed nowhere else."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=20)
        self._level = 0
        self._callback = lib.llama_log_callback(self._take)

    def install(self) -> None:
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _data: object) -> None:
        self._level = self._level if level == _LOG_CONTINUES else level
        if self._level == _LOG_ERROR and (line := text.decode("utf-8", "replace").strip()):
            self._lines.append(line)

    def clear(self) -> None:
        self._lines.clear()

    def last(self) -> str:
        """The first error since the last clear: later ones only repeat that loading failed."""
        return self._lines[0] if self._lines else "no reason given"


# llama_cpp opens /dev/null twice when it is imported and never closes it; Python would warn of
# both at the end of the process.  Not closed before then: others may redirect their output there.
for _null in (outnull_file, errnull_file):
    atexit.register(_null.close)

LOG = _Log()
LOG.install()
lib.llama_backend_init()


class Model:
    """The weights of a base GGUF in memory; BaseModelError when the library refuses the file."""

    def __init__(self, path: Path, *, vocabulary_only: bool = False) -> None:
        self.path = path
        params = lib.llama_model_default_params()
        params.vocab_only = vocabulary_only
        LOG.clear()
        self.handle: Any = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            raise BaseModelError(f"{path}: llama.cpp cannot load this base: {LOG.last()}")
        self.vocab = Vocab(lib.llama_model_get_vocab(self.handle))

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return int(lib.llama_model_size(self.handle))

    def close(self) -> None:
        """Free the weights; every context and adapter of it must be gone before."""
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None


class Vocab:
    """Text to tokens and back; safe to call from several threads."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.size: int = lib.llama_vocab_n_tokens(handle)
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; only with `special` do texts such as <|im_end|> become control
        tokens.  No BOS is added: chat templates write their own."""
        data = text.encode("utf-8")
        room = len(data) + 1
        ids = (lib.llama_token * room)()
        count = lib.llama_tokenize(self.handle, data, len(data), ids, room, False, special)
        if count < 0:
            ids = (lib.llama_token * -count)()
            count = lib.llama_tokenize(self.handle, data, len(data), ids, -count, False, special)
        return list(ids[:count])

    @cached_property
    def adds_space(self) -> bool:
        """Whether `tokenize` puts a space in front of a text, as SentencePiece mostly does."""
        first, *_ = self.tokenize("a", special=False)
        return self.spelling(first).startswith(b" ")

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to an answer; may end inside a character.

        Control tokens add none, except the marks of a tool call, which some bases make control.
        """
        if (known := self._pieces.get(token)) is None:
            known = self.spelling(token)
            if self.is_control(token) and known not in _TOOL_MARKS:
                known = b""
            self._pieces[token] = known
        return known

    def spelling(self, token: int) -> bytes:
        """The bytes of a token, control tokens included."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            size: int = lib.llama_token_to_piece(self.handle, token, buffer, room, 0, True)
            if size >= 0:
                return buffer.raw[:size]
            room = -size

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer (end of text, end of turn)."""
        return bool(lib.llama_vocab_is_eog(self.handle, token))

    def is_control(self, token: int) -> bool:
        """Whether the token is no text: turn markers and the like."""
        return bool(lib.llama_vocab_get_attr(self.handle, token) & _SPECIAL)

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """The spellings that `tokenize(special=True)` turns into control tokens."""
        return tuple(
            self.spelling(token).decode("utf-8", "replace")
            for token in range(self.size)
            if self.is_control(token)
        )

    def special(self, name: str) -> str:
        """The spelling of the token `bos` or `eos`, empty when the base has none."""
        token: int = getattr(lib, f"llama_vocab_{name}")(self.handle)
        # For a base that names none the library makes one up: some ordinary token.
        if token < 0 or not self.is_control(token):
            return ""
        return self.spelling(token).decode("utf-8", "replace")


class LoadedAdapter:
    """A LoRA adapter in memory.  Detach it from every context before `free`."""

    def __init__(self, model: Model, data: bytes) -> None:
        """Load bytes that `gguf_check.validate_adapter` accepted: others abort the process."""
        LOG.clear()
        self.size = len(data)
        with _AsPath(data) as path:
            self.handle: Any = lib.llama_adapter_lora_init(model.handle, path)
        if not self.handle:
            raise AdapterError(f"llama.cpp refuses the adapter: {LOG.last()}")

    def free(self) -> None:
        if self.handle:
            lib.llama_adapter_lora_free(self.handle)
            self.handle = None


class _AsPath:
    """Gives bytes a path that nobody else can change between the check and the load."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> bytes:
        if hasattr(os, "memfd_create"):
            self._file: Any = os.fdopen(os.memfd_create("adapter"), "wb")
            path = f"/proc/self/fd/{self._file.fileno()}"
        else:
            self._file = tempfile.NamedTemporaryFile(suffix=".gguf")
            path = self._file.name
        self._file.write(self._data)
        self._file.flush()
        return os.fsencode(path)

    def __exit__(self, *_: object) -> None:
        self._file.close()
