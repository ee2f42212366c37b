"""Every error a user can cause, as one tree; each message says what, where, and what to do."""

from __future__ import annotations


class SkillcError(Exception):
    """Base of all errors shown to the user as one line; `exit_code` is the process's exit code."""

    exit_code = 2


class SkillError(SkillcError):
    """A skill cannot be read."""


class BaseModelError(SkillcError):
    """A base model is missing, unreadable, or not what its record says."""


class CompilerError(SkillcError):
    """A compiler is missing, unreadable, or bound to another base."""


class AdapterError(SkillcError):
    """An adapter's bytes are malformed, foreign, or not finite."""


class StoreError(SkillcError):
    """The store or the lock cannot be read or written."""


class ProjectError(SkillcError):
    """A project's files or settings are not usable."""


class ServeError(SkillcError):
    """The server cannot start or cannot answer."""
