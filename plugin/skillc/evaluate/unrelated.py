"""The suite `unrelated`: what adapters change where they have no business, and how alike they are.

Flips: tokens whose greedy choice changes. Perplexity: of the same expected tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from skillc.evaluate.bench import Bench, Result
from skillc.evaluate.cases import generated_cases
from skillc.evaluate.factors import cosines, stable_rank
from skillc.evaluate.report import bootstrap, markdown, span
from skillc_compiler.data.generate import UNKNOWN, Shape
from skillc_compiler.data.lexicon import load

if TYPE_CHECKING:
    from skillc_runtime.batched import Score

GROUPS = ("chat", "outside", "prose")
ALARM = 0.9
_CUE = 4  # tokens of a prose text that are given
_PROSE = 256  # tokens of a prose text at most

Pair = tuple[list[int], list[int]]


def unrelated(bench: Bench) -> Result:
    """Argmax flips and the change of perplexity under random skills' adapters; their cosines."""
    settings = bench.settings
    # Skills without filler: the prose below is what others are filled with.
    shape = Shape(filler=0.0)
    cases = generated_cases(settings.split, settings.size(24, 6), settings.seed + 1, shape)
    adapters = bench.compile([case.skill for case in cases])
    prompts = {group: list(_prompts(bench, group)) for group in GROUPS}
    pairs = [pair for group in GROUPS for pair in prompts[group]]
    groups = [group for group in GROUPS for _ in prompts[group]]
    bare = bench.harness.engine.score_many(pairs)
    under = []
    for number, adapter in enumerate(adapters, 1):
        ref = bench.harness.store(adapter)
        under.append(bench.harness.engine.score_many(pairs, [ref]))
        bench.note("unrelated", number, len(adapters))
    found: dict[str, float] = {}
    for group in (*GROUPS, ""):
        places = [place for place, name in enumerate(groups) if group in ("", name)]
        found |= _change(f"{group}_" if group else "", places, bare, under)
    alike = cosines(adapters)
    found["cosine_mean"] = sum(alike) / max(len(alike), 1)
    found["cosine_max"] = max(alike, default=0.0)
    found["stable_rank"] = sum(map(stable_rank, adapters)) / len(adapters)
    found |= {"skills": len(adapters), "prompts": len(pairs)}
    found = {key: round(value, 6) for key, value in found.items()}
    return Result(found, _table(found))


def _prompts(bench: Bench, group: str) -> Iterator[Pair]:
    """Prompt and expected tokens: small talk, questions no skill answers, prose without a turn."""
    harness = bench.harness
    lexicon = load(bench.settings.split)
    end = harness.engine.tokenize("<|im_end|>", special=True)
    if group == "prose":
        for text in (*lexicon.sections, " ".join(lexicon.fillers)):
            tokens = harness.engine.tokenize(text)[:_PROSE]
            yield tokens[:_CUE], tokens[_CUE:]
        return
    talk = lexicon.chat if group == "chat" else [(ask, UNKNOWN) for ask in lexicon.outside]
    for ask, answer in talk:
        prompt = harness.template.render([{"role": "user", "content": ask}])
        yield prompt, harness.engine.tokenize(answer) + end


def _change(
    prefix: str, places: Sequence[int], bare: Sequence[Score], under: Sequence[Sequence[Score]]
) -> dict[str, float]:
    """Flips and perplexity change over some prompts, with intervals over adapters."""
    tokens = sum(len(bare[place].greedy) for place in places)
    flips = [sum(int((own[p].greedy != bare[p].greedy).sum()) for p in places) for own in under]
    losses = [-sum(float(own[p].logprobs.sum()) for p in places) for own in under]
    before = -sum(float(bare[p].logprobs.sum()) for p in places)
    share = [count / tokens for count in flips]
    change = [math.exp((loss - before) / tokens) - 1 for loss in losses]
    found = {
        f"{prefix}tokens": float(tokens),
        f"{prefix}perplexity": math.exp(before / tokens),
        f"{prefix}flips": _mean(share),
        f"{prefix}perplexity_change": _mean(change),
    }
    for key, values in (("flips", share), ("perplexity_change", change)):
        low, high = bootstrap(values, _mean)
        found |= {f"{prefix}{key}_low": low, f"{prefix}{key}_high": high}
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _table(found: dict[str, float]) -> str:
    rows = []
    for group in (*GROUPS, ""):
        prefix = f"{group}_" if group else ""
        cells = [group or "all", f"{found[f'{prefix}tokens']:.0f}"]
        cells.append(f"{found[f'{prefix}perplexity']:.3f}")
        for key in ("flips", "perplexity_change"):
            cells += [f"{100 * found[prefix + key]:.2f}%", span(found, prefix + key)]
        rows.append(cells)
    head = ["prompts", "tokens", "perplexity", "flips", "95%", "perplexity change", "95%"]
    alarm = "  ALARM: above 0.9" if found["cosine_mean"] > ALARM else ""
    return (
        f"{markdown(head, rows)}\n\n"
        f"cosine of two adapters: mean {found['cosine_mean']:.3f}, most {found['cosine_max']:.3f}"
        f"{alarm}; stable rank {found['stable_rank']:.1f}"
    )
