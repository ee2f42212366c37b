"""What the skills of a project are compiled for and by: known without loading either."""

from __future__ import annotations

from dataclasses import dataclass

from skillc_compiler.bases import Base, find_base
from skillc_compiler.errors import BaseModelError
from skillc_compiler.families.interface import compiler_identity
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.lock import Lock


@dataclass(frozen=True, slots=True)
class Target:
    """A base and the compiler bound to it, by content."""

    base: Base
    base_hash: str
    compiler_id: str
    compiler_hash: str

    def matches(self, lock: Lock) -> bool:
        """Whether `lock` was written for this base and compiler."""
        ours = (self.base_hash, self.compiler_hash)
        return ours == (lock.base.hash, lock.compiler.hash)


def find_target(name: str) -> Target:
    """The base called `name` and its compiler; BaseModelError or CompilerError in one line."""
    base = find_base(name)
    compiler_id, compiler_hash = compiler_identity(base)
    return Target(base, hash_base(base), compiler_id, compiler_hash)


def hash_base(base: Base) -> str:
    try:
        return file_sha256(base.gguf)
    except OSError as error:
        raise BaseModelError(f"{base.gguf}: cannot be read: {error.strerror}") from error
