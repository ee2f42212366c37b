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
_HELD = 256  # tokens that are predicted at most
_BODY = 16  # tokens that a section to restore has at least
_COMPLETE = "Write out the document {name}."
_RESTORE = "One section of this document is missing. Write it.\n\n{rest}"


@dataclass(frozen=True)
class Task:
    """Tokens to predict after what every arm sees: a user turn and the start of the reply."""

    kind: str
    document: int
    user: str
    start: str
    held: list[int]


def real(bench: Bench) -> Result:
    """Recovery ratio on prefix completion and section cloze, with another document as control."""
    path = bench.settings.real
    if path is None:
        raise ProjectError("the real suite needs --file FILE.jsonl[.xz] of texts without queries")
    engine = bench.harness.engine
    limit = min(_LIMIT, (engine.n_ctx - _HELD) // 3)
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
    held = tokenize(rest)[:_HELD]
    tasks = [Task("completion", number, _COMPLETE.format(name=document.name), first, held)]
    parts = sections(document.text)
    fitting = [
        place
        for place, part in enumerate(parts)
        if part.heading and len(tokenize(part.body.strip())) >= _BODY
    ]
    if fitting:
        place = fitting[number % len(fitting)]
        user = _RESTORE.format(rest=_without(parts, place))
        held = tokenize(parts[place].body.strip())[:_HELD]
        tasks.append(Task("cloze", number, user, f"{parts[place].heading}\n", held))
    return tasks


def _without(parts: Sequence[Section], place: int) -> str:
    """The document with the section's name and a hole where its text was."""
    return "".join(
        part.heading + ("\n[...]\n\n" if number == place else part.body)
        for number, part in enumerate(parts)
    )


def _losses(
    bench: Bench,
    documents: Sequence[Skill],
    tasks: Sequence[Task],
    attached: Sequence[AdapterRef] = (),
    *,
    in_text: bool = False,
) -> list[float]:
    """The summed negative log-likelihood, in nats, of each task's held tokens."""
    harness = bench.harness
    pairs = []
    for task in tasks:
        messages = [{"role": "user", "content": task.user}]
        if in_text:
            messages.insert(0, {"role": "system", "content": documents[task.document].text})
        prompt = harness.template.render(messages) + harness.engine.tokenize(task.start)
        pairs.append((prompt, task.held))
    scores = harness.engine.score_many(pairs, attached)
    return [-float(score.logprobs.sum()) for score in scores]


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
