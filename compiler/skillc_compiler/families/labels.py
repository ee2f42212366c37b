"""The manifest that a compiler puts on its adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skillc_compiler import __version__
from skillc_compiler.adapter import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from skillc_compiler.families.bound import Bound
    from skillc_compiler.families.writer import Writer
    from skillc_compiler.skill import Skill


def label(
    compiler: Writer | Bound,
    skill: Skill,
    rank: int,
    targets: Iterable[str],
    probe: Mapping[str, float],
) -> Manifest:
    """Whose adapter it is: skill, base, compiler, rank (alpha equals it), targets, probe."""
    return Manifest(
        skill_name=skill.name,
        skill_hash=skill.hash,
        base_name=compiler.base.name,
        base_hash=compiler.base_hash,
        compiler_id=compiler.id,
        compiler_hash=compiler.hash,
        rank=rank,
        alpha=float(rank),
        targets=tuple(targets),
        activation=compiler.activation,
        tool_version=__version__,
        licence=skill.metadata.get("license"),
        source=skill.metadata.get("source"),
        probe=probe,
    )
