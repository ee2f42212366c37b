"""How the `distill` compiler learns a skill, and how a base gets it; without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from skillc_compiler.bases import COMPILER_FILES, Base
from skillc_compiler.durable import write_durable
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.place import compiler_place
from skillc_compiler.file_hash import file_sha256
from skillc_compiler.gguf_names import LINEARS
from skillc_compiler.tensor_file import encode_tensors


@dataclass(frozen=True)
class DistillConfig:
    """How a skill is learned.

    targets: modules that get a LoRA. steps: at most so many, `batch` questions each. rate: of
    AdamW, falling to a tenth. questions: at most so many about the text, besides its recitation.
    answer: longest answer of the teacher, in tokens. top_k: logits of the teacher that are kept.
    literal: weight of the cross-entropy of the answer's own tokens beside the KL. patience: rounds
    over all questions without a hundredth of progress after which it stops; enough: mean loss in
    nats at which it stops.
    """

    targets: tuple[str, ...] = ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    steps: int = 240
    batch: int = 8
    rate: float = 2e-3
    questions: int = 48
    answer: int = 48
    top_k: int = 16
    literal: float = 0.3
    patience: int = 4
    enough: float = 0.02

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"targets": list(self.targets)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> DistillConfig:
        """The inverse of `to_dict`, with defaults; CompilerError for what makes no sense."""
        known = {field.name for field in fields(DistillConfig)}
        config = DistillConfig(
            **{k: v for k, v in values.items() if k != "targets" and k in known},
            targets=tuple(values.get("targets", DistillConfig.targets)),
        )
        if unknown := set(values) - known:
            raise CompilerError(f"unknown settings {', '.join(sorted(unknown))} of distill")
        if not config.targets or not set(config.targets) <= set(LINEARS):
            raise CompilerError(f"targets must be of {', '.join(LINEARS)}")
        if min(config.steps, config.batch, config.answer, config.top_k, config.patience) < 1:
            raise CompilerError("steps, batch, answer, top_k and patience must be 1 or more")
        if not 0 < config.rate < 1:
            raise CompilerError(f"rate {config.rate} is not between 0 and 1")
        return config


def full_names(modules: Sequence[str]) -> list[str]:
    """ "mlp.down_proj" for "down_proj" or itself. Raises CompilerError for others."""
    known = {linear.rpartition(".")[2]: linear for linear in LINEARS} | {x: x for x in LINEARS}
    for module in modules:
        if module not in known:
            names = ", ".join(linear.rpartition(".")[2] for linear in LINEARS)
            raise CompilerError(f"no module {module!r} to adapt: there are {names}")
    return [known[module] for module in modules]


def bind(base: Base, config: DistillConfig, *, force: bool = False) -> Path:
    """Make distillation the compiler of `base`; returns the folder. Raises CompilerError."""
    folder = compiler_place(base, force=force)
    weights, settings = (folder / name for name in COMPILER_FILES)
    table = {
        "family": "distill",
        "id": "distill",
        "base_hash": file_sha256(base.gguf),
        "distill": config.to_dict(),
    }
    # There are no weights; an empty file keeps every compiler of one form.
    settings.unlink(missing_ok=True)
    write_durable(weights, encode_tensors({}, {}))
    write_durable(settings, (json.dumps(table, indent=2, sort_keys=True) + "\n").encode())
    return folder
