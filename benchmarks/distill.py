"""Does distillation, skill by skill, obey as well as the writer, and what does it cost?

Both compile the same generated test skills for the same base, at the same rank, in one run; the
answers come from the engine that also serves. `obeyed` is the share of questions about a skill's
facts that are answered exactly, `seconds` the wall time of one skill's compilation.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from skillc.evaluate.cases import FACT_KINDS, Case, generated_cases
from skillc.evaluate.scoring import is_right
from skillc.figures import print_figures
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import Base, find_base
from skillc_compiler.families.distill_settings import DistillConfig, bind
from skillc_compiler.families.interface import Compiler, load_compiler
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import read_base_info
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.sampling import Sampling
from skillc_runtime.template import ChatTemplate

MAX_ANSWER = 64


class Judge:
    """The engine, and how the facts of a case are asked of it."""

    def __init__(self, base: Base, folder: Path) -> None:
        self.info = read_base_info(base.gguf)
        self.engine = Engine(self.info)
        self.template = ChatTemplate(self.info.chat_template or "", self.engine.model.vocab)
        self.folder = folder

    def right(self, case: Case, adapter: Adapter | None, *, text: bool = False) -> list[bool]:
        """Whether each question about a fact is answered right."""
        asks = [ask for ask in case.asks if ask.kind in FACT_KINDS]
        system = [{"role": "system", "content": case.skill.text}] if text else []
        prompts = [
            self.template.render(
                [*system, {"role": "user", "content": ask.question.ask}], ask.question.tools
            )
            for ask in asks
        ]
        attached = [] if adapter is None else [self.store(adapter)]
        sampling = Sampling(max_tokens=MAX_ANSWER)
        answers = self.engine.generate_many(prompts, attached, sampling)
        return [is_right(ask, answer.text) for ask, answer in zip(asks, answers, strict=True)]

    def store(self, adapter: Adapter) -> AdapterRef:
        """The adapter as the GGUF that a build would write."""
        data = adapter_to_gguf(adapter, self.info, "f16")
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / f"{digest}.gguf"
        path.write_bytes(data)
        return AdapterRef(path, digest)


def distiller(base: Base, folder: Path, settings: dict[str, object]) -> Compiler:
    """The distillation of `base`, whose own compiler stays where it is."""
    linked = folder / "base.gguf"
    linked.symlink_to(base.gguf.resolve())
    bare = replace(base, gguf=linked, compiler_dir=None)
    bind(bare, DistillConfig.from_dict(settings))
    return load_compiler(replace(bare, compiler_dir=folder))


def share(marks: Sequence[Sequence[bool]]) -> float:
    """Of all questions, those answered right."""
    flat = [mark for one in marks for mark in one]
    return sum(flat) / max(len(flat), 1)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, last")
    parser.add_argument("--base", default="nano")
    parser.add_argument("--skills", type=int, default=4, help="at most so many skills")
    parser.add_argument("--minutes", type=float, default=10, help="no new skill after so many")
    parser.add_argument("--steps", type=int, default=DistillConfig.steps)
    parser.add_argument("--rank", type=int, default=32)
    arguments = parser.parse_args()
    begun = time.monotonic()
    base = find_base(arguments.base)
    cases = generated_cases("test", arguments.skills, 5)
    marks: dict[str, list[list[bool]]] = {"": [], "writer_": [], "text_": [], "none_": []}
    spent: dict[str, float] = {"": 0.0, "writer_": 0.0}
    with tempfile.TemporaryDirectory(prefix="skillc-distill-") as scratch:
        judge = Judge(base, Path(scratch))
        makers = {
            "writer_": load_compiler(base),
            "": distiller(base, Path(scratch), {"steps": arguments.steps}),
        }
        # The first compilation of each warms up and is not counted.
        makers["writer_"].compile(cases[0].skill, rank=arguments.rank)
        for number, case in enumerate(cases, 1):
            for name, maker in makers.items():
                started = time.perf_counter()
                adapter = maker.compile(case.skill, rank=arguments.rank)
                spent[name] += time.perf_counter() - started
                marks[name].append(judge.right(case, adapter))
            marks["text_"].append(judge.right(case, None, text=True))
            marks["none_"].append(judge.right(case, None))
            print(f"skill {number} of {len(cases)}", file=sys.stderr, flush=True)
            if time.monotonic() - begun > 60 * arguments.minutes:
                break
        judge.engine.close()
    skills = len(marks[""])
    figures = {f"{name}obeyed": share(found) for name, found in marks.items()}
    figures |= {f"{name}seconds": total / skills for name, total in spent.items()}
    figures |= {"skills": skills, "questions": sum(map(len, marks[""]))}
    rounded = {key: round(value, 4) for key, value in figures.items()}
    print_figures("distill", rounded, {}, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
