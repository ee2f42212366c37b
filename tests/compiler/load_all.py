"""Load adapters in a process of its own: `python -m tests.compiler.load_all BASE ADAPTER...`.

Prints one line for each adapter: its name and "loads", "nan" or "refused".
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tests.compiler.llama import Llama


def main(base: Path, adapters: list[Path]) -> None:
    with Llama(base, n_ctx=32) as llama:
        for path in adapters:
            print(path.name, end=" ", flush=True)
            handle = llama.load(path)
            if handle is None:
                print("refused", flush=True)
                continue
            logits = llama.logits([1, 300, 41, 77], [(handle, 1.0)])
            llama.free(handle)
            print("loads" if np.isfinite(logits).all() else "nan", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
