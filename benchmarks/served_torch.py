"""Do the server's answers equal those of torch with the same adapter, token for token?

Held-out skills; torch runs the base in float32 with the adapter's matrices as the GGUF has them,
both sides choose greedily. Where the two likeliest tokens are nearly equal, rounding decides:
`same` counts whole answers, `same_tokens` the tokens up to the first difference.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import torch

from skillc.evaluate.cases import Case, generated_cases
from skillc.evaluate.harness import MAX_ANSWER, Asked, Harness, harness
from skillc.figures import Target, print_figures
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import find_base
from skillc_compiler.data.generate import Shape
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.taps import Factors
from skillc_compiler.families.writer import Writer
from skillc_runtime.sampling import Sampling

TARGETS: dict[str, Target] = {"same": (">=", 0.98)}


@dataclass
class Tally:
    """Answers and tokens compared, and how many were the same."""

    answers: int = 0
    same: int = 0
    tokens: int = 0
    same_tokens: int = 0

    def add(self, served: list[int], computed: list[int]) -> None:
        """Count one answer of each side."""
        pairs = enumerate(zip(served, computed, strict=False))
        until = next((at for at, (a, b) in pairs if a != b), min(len(served), len(computed)))
        self.answers += 1
        self.same += served == computed
        self.tokens += len(computed)
        self.same_tokens += until


def rounded(adapter: Adapter) -> Factors:
    """The adapter's matrices after float16, by layer."""
    factors = {}
    for name, pair in adapter.pairs.items():
        a, b = (
            torch.from_numpy(np.ascontiguousarray(matrix.astype(np.float16).astype(np.float32)))
            for matrix in (pair.a, pair.b)
        )
        factors[int(name.split(".")[2])] = (a, b)
    return factors


def greedy(writer: Writer, factors: Factors, prompt: list[int], end: int, most: int) -> list[int]:
    """Torch's answer: likeliest tokens until the end of the turn."""
    answer: list[int] = []
    while len(answer) < most:
        with writer.attached(factors):
            logits = writer.host.model(torch.tensor([[*prompt, *answer]])).logits
        token = int(logits[0, -1].argmax())
        if token == end:
            break
        answer.append(token)
    return answer


def compare(bench: Harness, writer: Writer, case: Case, tally: Tally, prompts: int) -> None:
    """Ask one skill's questions of both sides, until `prompts` are compared."""
    adapter = writer.compile(case.skill)
    factors, attached = rounded(adapter), [bench.store(adapter)]
    (end,) = bench.engine.tokenize("<|im_end|>", special=True)
    for ask in case.asks[: prompts - tally.answers]:
        prompt = bench.prompt(Asked(case, ask)).prompt
        served = bench.engine.answer(prompt, attached, Sampling(max_tokens=MAX_ANSWER))
        with torch.inference_mode():
            tally.add(list(served.tokens), greedy(writer, factors, prompt, end, MAX_ANSWER))


def main() -> int:
    """Measure and print; 0 when the target holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, last")
    parser.add_argument("--prompts", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base = find_base()
    writer = load_compiler(base)
    assert isinstance(writer, Writer)
    tally = Tally()
    cases = generated_cases("test", -(-arguments.prompts // 5), 5, Shape(questions=5, chat=0.0))
    with harness(base) as bench:
        for case in cases:
            compare(bench, writer, case, tally, arguments.prompts)
            print(f"{tally.answers} of {arguments.prompts}", file=sys.stderr)
    figures = {
        "prompts": tally.answers,
        "same": tally.same / tally.answers,
        "same_tokens": tally.same_tokens / max(tally.tokens, 1),
    }
    figures = {key: round(value, 4) for key, value in figures.items()}
    print_figures("served_torch", figures, TARGETS, as_json=arguments.json)
    return 0 if figures["same"] >= TARGETS["same"][1] else 1


if __name__ == "__main__":
    sys.exit(main())
