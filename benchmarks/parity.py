"""How far are llama.cpp's logits with our adapters from those of transformers with PEFT?

Every architecture, every module that an adapter may target and all of them together, adapters as
f32, f16 and q8_0, on random models of 2 to 7 layers whose logits spread by 1.2. Both engines see
the same 60 tokens; the number is the largest difference of any logit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Container
from pathlib import Path

# The random models are those of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.compiler import parity, stand_in

from skillc.figures import print_figures

# llama.cpp looks GELU up in a table of float16: Gemma differs that much without an adapter too. A
# recurrent state carries what is rounded from token to token, the more so in a random model.
APART = {"gelu": "gemma3", "recurrent": "qwen35"}
TYPES = ("f32", "f16", "q8_0")
TARGETS: dict[str, tuple[str, float]] = {
    "worst_f32": ("<", 1e-4),
    "worst_f16": ("<", 8e-3),
    "worst_f32_gelu": ("<", 5e-3),
    "worst_f32_recurrent": ("<", 1e-3),
}


def measure() -> list[parity.Row]:
    """All rows of all architectures."""
    found = []
    for kind in stand_in.KINDS:
        with tempfile.TemporaryDirectory() as scratch, parity.opened(kind, Path(scratch)) as pair:
            found += list(parity.rows(pair, kind))
        print(f"{kind}: {len(found)} comparisons so far", file=sys.stderr)
    return found


def table(rows: list[parity.Row]) -> list[str]:
    """One line an architecture and target: the differences by type, and the adapter's effect."""
    cells: dict[tuple[str, str], dict[str, parity.Row]] = defaultdict(dict)
    for row in rows:
        cells[row.kind, row.target][row.dtype] = row
    head = f"{'base':8} {'target':18} {'f32':>9} {'f16':>9} {'q8_0':>9} {'effect':>7}"
    lines = [head]
    for (kind, target), types in cells.items():
        shown = [f"{types[t].difference:9.1e}" if t in types else " " * 9 for t in TYPES]
        effect = next(iter(types.values())).effect
        lines.append(f"{kind:8} {target:18} {' '.join(shown)} {effect:7.2f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    rows = measure()
    print("\n".join(table(rows)), file=sys.stderr if args.json else sys.stdout)

    def worst(dtype: str, kinds: Container[str]) -> float:
        return max(r.difference for r in rows if r.dtype == dtype and r.kind in kinds)

    plain = set(stand_in.KINDS) - set(APART.values())
    figures = {f"worst_{dtype}": worst(dtype, plain) for dtype in TYPES}
    for why, kind in APART.items():
        figures |= {f"worst_{dtype}_{why}": worst(dtype, {kind}) for dtype in TYPES}
    figures["least_effect"] = min(r.effect for r in rows if r.target != "no adapter")
    figures["cases"] = float(len(rows))
    print_figures("parity", figures, TARGETS, as_json=args.json)


if __name__ == "__main__":
    main()
