"""One process of several that share a base; `test_sharded` starts them with accelerate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from skillc_compiler.bases import find_base
from skillc_compiler.train_base import cli, trainer
from skillc_compiler.train_base.recipe import FAMILIES, load_recipe


def held(parameter: Any) -> int:
    """Values of a parameter that this process holds."""
    local = getattr(parameter, "to_local", None)
    return int((parameter if local is None else local()).numel())


def main(recipe: str, texts: Path, out: Path) -> None:
    """Train every family, begin one run, and tell what the process holds of another base."""
    ending, Accelerator.end_training = Accelerator.end_training, lambda self: None
    for family in FAMILIES:
        cli.train_compiler("tiny3", recipe, out / family, family=family, texts=[texts])
    cli.train_compiler("tiny3", recipe, out / "begun", family="m2p", texts=[texts], minutes=1e-9)
    accelerator = Accelerator()
    student = trainer.begin(find_base("gemma"), load_recipe(recipe), accelerator.device, 0).student
    layers = [p for layer in student.host.layers for p in layer.parameters()]
    found = {
        "held": sum(map(held, layers)),
        "whole": sum(p.numel() for p in layers),
        "sharded": student.host.sharded,
    }
    (out / f"part-{accelerator.process_index}.json").write_text(json.dumps(found))
    torch.save(student.net.state_dict(), out / f"start-{accelerator.process_index}.pt")
    ending(accelerator)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
