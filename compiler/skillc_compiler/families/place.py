"""Where the compiler of a base is put."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from skillc_compiler.bases import Base
from skillc_compiler.errors import CompilerError


def compiler_place(base: Base, *, force: bool) -> Path:
    """The folder for the base's compiler; CompilerError where none may be put."""
    folder = base.gguf.parent
    if folder.is_relative_to(Path(str(files("skillc_compiler")))):
        raise CompilerError(
            f"base {base.name!r} comes with skillc and keeps its own compiler: name another base"
        )
    if base.compiler_dir is not None and not force:
        raise CompilerError(f"base {base.name!r} has a compiler: replace it with --force")
    return folder
