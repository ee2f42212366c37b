"""Writes the table of docs/eval.md from what `skillc eval --suite all --json` printed.

python docs/make_eval.py RESULT.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from skillc.figures import COMPARE

PAGE = Path(__file__).with_name("eval.md")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
HEAD = "| figure | measured (95% interval) | target | met | the same with the text |\n"
RULE = "|---|---|---|---|---|\n"
# What the text's figure is called where the adapter's has a target.
TEXT = {
    "commands.adapter_exact": "commands.text_exact",
    "handwritten.adapter_command": "handwritten.text_command",
    "handwritten.adapter_recall": "handwritten.text_recall",
}


def row(result: dict[str, Any], key: str) -> str:
    """A target's row; a figure that there is not has its reason, or none."""
    figures, skipped = result["figures"], result["skipped"]
    sign, bound = result["targets"][key]
    target = f"{sign} {bound:g}"
    if key not in figures:
        return (
            f"| `{key}` | none{': ' + skipped[key] if key in skipped else ''} | {target} | no | |"
        )
    value = figures[key]
    met = COMPARE[sign](value, bound)
    low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
    interval = "" if low is None else f" ({low:.3f} to {high:.3f})"
    text = f"{figures[TEXT[key]]:.3f}" if key in TEXT else ""
    return f"| `{key}` | {value:.3f}{interval} | {target} | {'yes' if met else 'no'} | {text} |"


def table(result: dict[str, Any]) -> str:
    """The whole table, and how long all suites took together."""
    machine = result["machine"]
    took = (
        f"All together {result['figures']['seconds'] / 60:.0f} minutes on {machine['cores']} cores"
    )
    rows = "\n".join(row(result, key) for key in result["targets"])
    return f"{took} ({machine['cpu']}).\n\n{HEAD}{RULE}{rows}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="its last line is the JSON object")
    path = parser.parse_args().result
    result = json.loads(path.read_text("utf-8").splitlines()[-1])
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(result)}{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
