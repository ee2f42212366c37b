"""The suite `real`: how much of what a document in context is worth its adapter brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skillc.evaluate.bench import Bench, Result
from skillc.evaluate.documents import Section, cut, middle, read_documents, sections
from skillc.evaluate.report import bootstrap, markdown, span
from skillc_compiler.errors import ProjectError
from skillc_compiler.skill import Skill

if TYPE_CHECKING:
    from skillc_runtime.adapters import AdapterRef

TASKS = ("completion", "cloze")
ARMS = ("none", "text", "adapter", "wrong")
_LIMIT = 1000  # tokens of a document; a text arm reads it up to three times
_LEAST = 128
_HELD = 256  # tokens that are predicted at most
_BODY = 16  # tokens that a section to restore has at least


@dataclass(frozen=True)
class Task:
    """Tokens to predict after a text that every arm sees as it is, outside of any turn."""

    kind: str
    document: int
    shown: str
    held: list[int]


def real(bench: Bench) -> Result:
    """Recovery ratio on prefix completion and section cloze, with another document as control."""
    path = bench.settings.real
    if path is None:
        raise ProjectError("the real suite needs --file FILE.jsonl[.xz] of texts without queries")
    engine = bench.harness.engine
    limit = min(_LIMIT, (engine.n_ctx - _HELD) // 3)
    if limit < _LEAST:
        raise ProjectError(
            f"the base's context of {engine.n_ctx} tokens is too small for the real suite:"
            f" {3 * _LEAST + _HELD} are needed"
        )
    documents = [
        cut(document, limit, engine.tokenize, engine.detokenize)
        for document in read_documents(path, bench.settings.size(80, 8))
    ]
    adapters = bench.compile(documents)
    refs = [bench.harness.store(adapter) for adapter in adapters]
    tasks = [task for number in range(len(documents)) for task in _tasks(bench, documents, number)]
    losses: dict[str, list[float]] = {}
    for arm in ARMS:
        if arm in ("none", "text"):
            losses[arm] = _losses(bench, documents, tasks, in_text=arm == "text")
            bench.note(arm, len(tasks), len(tasks))
            continue
        losses[arm] = [0.0] * len(tasks)
        for number in range(len(documents)):
            own = [place for place, task in enumerate(tasks) if task.document == number]
            ref = refs[(number + (arm == "wrong")) % len(refs)]
            found = _losses(bench, documents, [tasks[place] for place in own], [ref])
            for place, loss in zip(own, found, strict=True):
                losses[arm][place] = loss
            bench.note(arm, number + 1, len(documents))
    return _result(tasks, losses)


def _tasks(bench: Bench, documents: Sequence[Skill], number: int) -> list[Task]:
    tokenize = bench.harness.engine.tokenize
    document = documents[number]
    first, rest = middle(document.text)
    tasks = [Task("completion", number, first, tokenize(rest)[:_HELD])]
    parts = sections(document.text)
    fitting = [
        place
        for place, part in enumerate(parts)
        if part.heading and len(tokenize(part.body.strip())) >= _BODY
    ]
    if fitting:
        place = fitting[number % len(fitting)]
        held = tokenize(parts[place].body.strip())[:_HELD]
        tasks.append(Task("cloze", number, _moved(parts, place), held))
    return tasks


def _moved(parts: Sequence[Section], place: int) -> str:
    """The document without one section, whose heading then stands alone at the end."""
    rest = "".join(part.heading + part.body for n, part in enumerate(parts) if n != place)
    return f"{rest.rstrip()}\n\n{parts[place].heading}\n"


def _losses(
    bench: Bench,
    documents: Sequence[Skill],
    tasks: Sequence[Task],
    attached: Sequence[AdapterRef] = (),
    *,
    in_text: bool = False,
) -> list[float]:
    """The summed negative log-likelihood, in nats, of each task's held tokens."""
    engine = bench.harness.engine
    pairs = []
    for task in tasks:
        above = _opened(bench, documents[task.document].text) if in_text else []
        pairs.append((above + engine.tokenize(task.shown), task.held))
    return [-float(score.logprobs.sum()) for score in engine.score_many(pairs, attached)]


def _opened(bench: Bench, text: str) -> list[int]:
    """The system turn up to the end of `text`, as the base's chat template begins it."""
    own = bench.harness.engine.tokenize(text)
    messages = [{"role": "system", "content": text}, {"role": "user", "content": "?"}]
    rendered = bench.harness.template.render(messages)
    # A template may trim the text; then its tokens are not found, and stand alone.
    for start in range(len(rendered) - len(own)):
        if rendered[start : start + len(own)] == own:
            return rendered[: start + len(own)]
    return own


def _result(tasks: Sequence[Task], losses: dict[str, list[float]]) -> Result:
    found: dict[str, float] = {}
    skipped: dict[str, str] = {}
    rows = []
    for kind in TASKS:
        places = [place for place, task in enumerate(tasks) if task.kind == kind]
        if not places:
            skipped[f"{kind}_recovery"] = "no document has a section to leave out"
            continue
        tokens = sum(len(tasks[place].held) for place in places)
        found[f"{kind}_documents"], found[f"{kind}_tokens"] = len(places), tokens
        row = [kind, str(len(places)), str(tokens)]
        for arm in ARMS:
            loss = sum(losses[arm][place] for place in places) / tokens
            found[f"{arm}_{kind}_nll"] = loss
            row.append(f"{loss:.3f}")
        if found[f"text_{kind}_nll"] >= found[f"none_{kind}_nll"]:
            skipped[f"{kind}_recovery"] = "the text in context does not help this base"
            rows.append([*row, "-", "-", "-"])
            continue
        for arm, key in (("adapter", f"{kind}_recovery"), ("wrong", f"{kind}_recovery_wrong")):
            found[key] = _recovery(losses, arm, places)
        key = f"{kind}_recovery"
        found[f"{key}_low"], found[f"{key}_high"] = bootstrap(
            places, lambda drawn: _recovery(losses, "adapter", drawn)
        )
        shown = (f"{found[key]:.3f}", span(found, key), f"{found[f'{key}_wrong']:.3f}")
        rows.append([*row, *shown])
    head = ["task", "documents", "tokens", *(f"NLL {arm}" for arm in ARMS)]
    text = markdown([*head, "recovery", "95%", "of a wrong adapter"], rows)
    return Result({key: round(value, 4) for key, value in found.items()}, text, skipped=skipped)


def _recovery(losses: dict[str, list[float]], arm: str, places: Sequence[int]) -> float:
    """(NLL none - NLL arm) / (NLL none - NLL text), over all tokens of these tasks."""
    none, text, own = (sum(losses[a][p] for p in places) for a in ("none", "text", arm))
    return (none - own) / (none - text) if none > text else 0.0
