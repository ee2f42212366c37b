"""Files written by torch.save, read without running anything that is pickled in them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from skillc_compiler.errors import CompilerError


class Stub:
    """Stands for one pickled object of a library that is not needed to read its fields.

    Whatever it is called with or given as state becomes attributes; nothing else happens.
    """

    arguments: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def read_torch(path: Path, *, stubs: Sequence[str] = ()) -> Any:
    """What torch.save put into `path`, tensors on the CPU, the large ones mapped from the file.

    Only tensors and plain containers are built. Classes of the packages named in `stubs`, say
    "peft", come back as `Stub`; anything else that is pickled is refused and never called.
    Raises CompilerError.
    """
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) if stubs else []
        allowed: list[Any] = []
        for name in named:
            if name.partition(".")[0] not in stubs:
                raise CompilerError(f"{path}: refused, it would run {name} when read")
            allowed.append((type("Stub", (Stub,), {}), name))
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except OSError as error:
        raise CompilerError(f"{path}: cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        raise CompilerError(
            f"{path}: refused, it holds more than tensors ({_why(error)})"
        ) from error
    except (RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        raise CompilerError(f"{path}: not a file of torch.save ({_why(error)})") from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _why(error: Exception) -> str:
    """The sentence of torch's many-line message that names what was refused."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return " ".join((telling or lines or [type(error).__name__])[0].split())[:160]
