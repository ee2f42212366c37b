"""What compiling a skill costs, in units of one prefill of the same text by the same base.

Both sides run in torch in float32 on one thread, alternating, over generated test skills.
`ratio` counts reading, writing and the SVDs; `ratio_judged` also the probe behind the verdict.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from skillc.figures import print_figures
from skillc_compiler.bases import find_base
from skillc_compiler.data.generate import Generator, Shape
from skillc_compiler.families.interface import DEFAULT_RANK, load_compiler
from skillc_compiler.families.writer import Writer
from skillc_compiler.families.writer_net import low_rank
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.skill import parse_skill


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """Measure and print; 0 when the target holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, last")
    parser.add_argument("--base", default="nano")
    parser.add_argument("--skills", type=int, default=20)
    parser.add_argument("--rank", type=int, default=DEFAULT_RANK)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as compiling does, so that its bytes do not depend on the machine
    base = find_base(arguments.base)
    writer = load_compiler(base)
    assert isinstance(writer, Writer)
    info = read_base_info(base.gguf)
    generator = Generator("test", 11, Shape(facts=(4, 10)))
    rows: list[tuple[float, float, float]] = []
    sizes, tokens = [], []
    for number in range(arguments.skills + 2):
        sample = generator.sample()
        skill = parse_skill(sample.text.encode(), folder=sample.name)
        ids = torch.tensor([writer.tokenizer.encode(skill.text).ids])

        def prefill(ids: torch.Tensor = ids) -> None:
            with torch.inference_mode():
                writer.host.model(ids, use_cache=True)

        def write(text: str = skill.text) -> None:
            with torch.inference_mode():
                for keys, values in writer.memories(text).values():
                    low_rank(keys, values, arguments.rank)

        times = (
            statistics.median(seconds(prefill) for _ in range(3)),
            statistics.median(seconds(write) for _ in range(3)),
            seconds(lambda skill=skill: writer.compile(skill, rank=arguments.rank)),  # type: ignore[misc]
        )
        if number >= 2:  # the first ones warm up
            rows.append(times)
            tokens.append(ids.shape[1])
            adapter = writer.compile(skill, rank=arguments.rank)
            sizes.append(len(adapter_to_gguf(adapter, info, "f16")))
        print(f"skill {number + 1}: {ids.shape[1]} tokens", file=sys.stderr)
    read, made, judged = (statistics.median(column) for column in zip(*rows, strict=True))
    figures = {
        "ratio": made / read,
        "ratio_judged": judged / read,
        "prefill_ms": 1000 * read,
        "compile_ms": 1000 * made,
        "judged_ms": 1000 * judged,
        "tokens_median": float(statistics.median(tokens)),
        "adapter_bytes": float(statistics.median(sizes)),
    }
    rounded = {key: round(value, 3) for key, value in figures.items()}
    print_figures("compile_time", rounded, {"ratio": ("<=", 2.5)}, as_json=arguments.json)
    return 0 if rounded["ratio"] <= 2.5 else 1


if __name__ == "__main__":
    sys.exit(main())
