"""The skills of one request as they are served, and how the answer reports them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from skillc_runtime.adapters import AdapterRef

ATTACHED_HEADER = "X-Skillc-Attached"


@dataclass(frozen=True, slots=True)
class Member:
    """One skill of a set: its adapter, or its text where measurement preferred that.

    `hash` is the sha256 of what is used: of the adapter's GGUF, or of the text; `activation` is the
    manifest's.
    """

    name: str
    hash: str
    scale: float
    ref: AdapterRef | None = None
    text: str | None = None
    activation: str = "full"

    @property
    def served_as(self) -> Literal["adapter", "text"]:
        return "text" if self.ref is None else "adapter"

    def report(self) -> dict[str, Any]:
        """What the answer says of it."""
        return {
            "name": self.name,
            "hash": self.hash,
            "scale": self.scale,
            "as": self.served_as,
        }


@dataclass(frozen=True, slots=True)
class SkillSet:
    """The ordered skills of one request."""

    members: tuple[Member, ...] = ()

    @property
    def adapters(self) -> tuple[AdapterRef, ...]:
        """What the engine attaches."""
        return tuple(member.ref for member in self.members if member.ref is not None)

    @property
    def tail(self) -> bool:
        """Whether there are adapters, and all need to act from the last user's turn on only."""
        activations = {member.activation for member in self.members if member.ref is not None}
        return activations == {"tail"}

    @property
    def texts(self) -> tuple[str, ...]:
        """What goes into the system message."""
        return tuple(member.text for member in self.members if member.text is not None)

    def report(self) -> list[dict[str, Any]]:
        """The `attached` list of the answer."""
        return [member.report() for member in self.members]

    def header(self) -> str:
        """The value of X-Skillc-Attached; empty when nothing is attached."""
        return ", ".join(
            f"{m.name}@{m.scale:g};as={m.served_as};hash={m.hash}" for m in self.members
        )
