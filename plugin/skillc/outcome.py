"""What a build did with each skill, and the report of them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["built", "fetched", "unchanged", "failed", "removed", "planned", "changed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One skill's way through a build; `size` is the bytes of its served adapter."""

    name: str
    status: Status
    source: str = ""
    key: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    size: int = 0
    kept: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain JSON values."""
        return {
            "name": self.name,
            "status": self.status,
            "source": self.source,
            "key": self.key,
            "reason": self.reason,
            "seconds": round(self.seconds, 4),
            "bytes": self.size,
            "kept": self.kept,
        }

    def line(self) -> str:
        """The outcome as one line for people."""
        if self.status == "failed":
            stays = "; its last good adapter stays" if self.kept else ""
            return f"failed {self.name}: {self.reason}{stays}"
        if self.status == "built":
            return f"built {self.name} in {self.seconds:.2f} s, {self.size / 1024:.0f} KiB"
        if self.status == "fetched":
            return f"fetched {self.name}, {self.size / 1024:.0f} KiB"
        if self.status == "changed":
            return f"changed {self.name} while it was built: building it again"
        if self.status == "planned":
            return f"would build {self.name}"
        return f"{self.status} {self.name}"


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Every outcome of one build; `warnings` are about skills that were read all the same."""

    base: str
    compiler: str
    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...]
    seconds: float
    dry_run: bool = False

    def count(self, status: Status) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """0 when all went well, 1 when a skill failed."""
        return 1 if self.count("failed") else 0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        counts: tuple[Status, ...] = (
            "built",
            "fetched",
            "unchanged",
            "failed",
            "removed",
            "planned",
        )
        return {
            "base": self.base,
            "compiler": self.compiler,
            **{status: self.count(status) for status in counts},
            "skills": [outcome.to_dict() for outcome in self.outcomes],
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 4),
            "dry_run": self.dry_run,
        }

    def summary(self) -> str:
        """The counts as one line."""
        first: Status = "planned" if self.dry_run else "built"
        parts = [f"{self.count(first)} {'to build' if self.dry_run else 'built'}"]
        parts.append(f"{self.count('unchanged')} unchanged")
        if self.count("fetched"):
            parts.insert(1, f"{self.count('fetched')} fetched")
        if self.count("removed"):
            parts.append(f"{self.count('removed')} removed")
        if self.count("failed"):
            parts.append(f"{self.count('failed')} failed")
        return f"{', '.join(parts)} in {self.seconds:.2f} s"
