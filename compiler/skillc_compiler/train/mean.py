"""The mean of several runs' weights, which can be better than each of them.

Runs that went on from the same pair with other seeds or data end in the same basin; their mean is
nearer to its middle (model soups, Wortsman et al., arXiv 2203.05482).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from skillc_compiler.errors import CompilerError
from skillc_compiler.train.export import CHECKPOINT, TOKENIZER, trained


def write_mean(runs: Sequence[Path], out: Path) -> None:
    """Leave in `out` what a run leaves there: a checkpoint, and the tokenizer.

    Raises CompilerError when a run has none, when the runs do not fit together, or when `out` has
    a checkpoint already.
    """
    if (out / CHECKPOINT).exists():
        raise CompilerError(f"{out} has a checkpoint already: choose another folder")
    first = trained(runs[0])
    sums = {part: {n: t.double() for n, t in first[part].items()} for part in ("model", "writer")}
    for run in runs[1:]:
        state = trained(run)
        if (run / TOKENIZER).read_bytes() != (runs[0] / TOKENIZER).read_bytes():
            raise CompilerError(f"{run} has another tokenizer than {runs[0]}")
        for part, total in sums.items():
            _add(total, state[part], f"{run} has another {part} than {runs[0]}")
    out.mkdir(parents=True, exist_ok=True)
    means = {
        part: {
            name: (value / len(runs)).to(first[part][name].dtype) for name, value in sum_.items()
        }
        for part, sum_ in sums.items()
    }
    torch.save(first | {"optimizers": []} | means, out / CHECKPOINT)
    shutil.copyfile(runs[0] / TOKENIZER, out / TOKENIZER)


def _add(total: dict[str, Tensor], more: Mapping[str, Tensor], complaint: str) -> None:
    if {name: value.shape for name, value in total.items()} != {
        name: value.shape for name, value in more.items()
    }:
        raise CompilerError(f"{complaint}: only runs of one shape have a mean")
    for name, value in more.items():
        total[name] += value
