"""Lays facts out as a SKILL.md body: bullets, tables, prose, fenced blocks, procedures."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from skillc_compiler.data.facts import Fact
from skillc_compiler.data.forms import Forms
from skillc_compiler.data.lexicon import Lexicon, load

Style = Callable[[Sequence[Fact], random.Random, str], str]

_PROSE = {
    "train": (
        "To {say}, run `{v}`.", "To {say}, use `{v}`.", "Run `{v}` to {say}.",
        "Use `{v}` when you want to {say}.", "`{v}` is how we {say}.",
        "If you have to {say}, the command is `{v}`.", "In order to {say}: `{v}`.",
        "When it is time to {say}, type `{v}`.", "You {say} with `{v}`.",
        "Need to {say}? Then it is `{v}`.", "We {say} by means of `{v}`.",
        "{Head}: `{v}`.", "{Head} means `{v}` here.", "For {head}, call `{v}`.",
        "{Head} goes through `{v}`.", "`{v}` takes care of {head}.",
        "The only supported way to {say} is `{v}`.", "Always {say} with `{v}`.",
        "Please {say} using `{v}`, from the root of the repository.",
        "Anyone may {say}: `{v}`.", "`{v}` will {say}.", "Before anything else, {say}: `{v}`.",
        "`{v}` to {say}.", "{Head} is `{v}`.", "{Head}? `{v}`.",
        "There is one command to {say}, `{v}`.",
        "You can {say}; run `{v}`, then look at what it prints.",
        "{Head} is done with `{v}`, nothing else.",
        "We never {say} by hand: `{v}` does it.", "Whoever wants to {say} runs `{v}`.",
        "Type `{v}`, wait, and that was {head}.", "Do not guess how to {say}. It is `{v}`.",
        "{Head} lives behind `{v}`.", "The job of `{v}` is to {say}.", "Say `{v}` to {say}.",
    ),
    "test": (
        "Should you wish to {say}, `{v}` is what you want.", "{Head} is a matter of `{v}`.",
        "Our way to {say} is called `{v}`.", "There is `{v}` for {head}.",
        "One can {say} like this: `{v}`.", "Reach for `{v}` whenever you must {say}.",
        "Here, {say} = `{v}`.", "`{v}` has the job to {say}.",
    ),
}  # fmt: skip
_HEADINGS = {
    "train": (
        "Commands", "Everyday commands", "Daily work", "Workflow", "How to", "Tasks", "Operations",
        "Running things", "Working here", "Cheat sheet", "Development", "Quick reference", "Usage",
        "Steps", "Routine", "What to run", "Recipes", "Essentials", "Tooling",
    ),
    "test": ("Handbook", "Playbook", "What you will type", "The short list", "Chores"),
}  # fmt: skip
_NOTES = {
    "train": ("Notes", "Conventions", "Rules", "Good to know", "Details", "Background", "Settings"),
    "test": ("Fine print", "Agreements", "Facts"),
}


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _prose_line(fact: Fact, rng: random.Random, split: str) -> str:
    frame = rng.choice(_PROSE[split])
    head = fact.head[:1].lower() + fact.head[1:] if not fact.head[:2].isupper() else fact.head
    return _cap(frame.format(say=fact.say, v=fact.value, head=head, Head=_cap(fact.head)))


def _prose(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    lines = [_prose_line(fact, rng, split) for fact in facts]
    return (" " if rng.random() < 0.5 else "\n\n").join(lines)


def _inverted(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    """The command first, then what it is for: harder to look up for a model that reads forward."""
    frames = [each for each in _PROSE[split] if each.index("{v}") <= each.index("{") + 1]
    mark = rng.choice(("", "- ", "* "))
    form = rng.choice(
        ("`{v}`: {say}", "`{v}` - {head}", "{v}  # {say}", "| `{v}` | {say} |", "`{v}` ({head})")
    )
    prose = rng.random() < 0.4
    lines = [_form(rng.choice(frames) if prose else form, fact) for fact in facts]
    return "\n".join(mark + line for line in lines)


def _bullets(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    mark = rng.choice("-*")
    form = rng.choice(
        ("{Head}: `{v}`", "To {say}: `{v}`", "`{v}`: {head}", "**{Head}**: `{v}`", "{Say}: `{v}`",
         "`{v}` - {say}", "{Head} (`{v}`)", "prose")
    )  # fmt: skip
    lines = [
        _prose_line(fact, rng, split) if form == "prose" else _form(form, fact) for fact in facts
    ]
    return "\n".join(f"{mark} {line}" for line in lines)


def _form(form: str, fact: Fact) -> str:
    return form.format(
        say=fact.say, Say=_cap(fact.say), head=fact.head, Head=_cap(fact.head), v=fact.value
    )


def _numbered(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    form = rng.choice(("{Say}: `{v}`", "{Head}: `{v}`", "{Say} with `{v}`."))
    return "\n".join(f"{i}. {_form(form, fact)}" for i, fact in enumerate(facts, 1))


def _table(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    left, right = rng.choice(
        (("Task", "Command"), ("I want to", "Run"), ("What", "How"), ("Goal", "Type this"))
    )
    cell = rng.choice(("{head}", "{say}"))
    if rng.random() < 0.25:
        rows = [f"| `{fact.value}` | {_form(cell, fact)} |" for fact in facts]
        return "\n".join([f"| {right} | {left} |", "|---|---|", *rows])
    rows = [f"| {_form(cell, fact)} | `{fact.value}` |" for fact in facts]
    return "\n".join([f"| {left} | {right} |", "|---|---|", *rows])


def _fenced(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    language = rng.choice(("sh", "bash", "", "console"))
    comment = rng.choice(("# {say}", "# {Head}"))
    if rng.random() < 0.3:
        width = max(len(fact.value) for fact in facts) + 2
        lines = [f"{fact.value:<{width}}{_form(comment, fact)}" for fact in facts]
    else:
        lines = [f"{_form(comment, fact)}\n{fact.value}" for fact in facts]
    return f"```{language}\n" + "\n".join(lines) + "\n```"


def _blocks(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    form = rng.choice(("{Head}:", "To {say}:", "{Say}:"))
    fence = rng.choice(("```sh\n{v}\n```", "    {v}", "```\n{v}\n```"))
    return "\n\n".join(f"{_form(form, fact)}\n\n{_form(fence, fact)}" for fact in facts)


def _headed(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    mark = rng.choice(("###", "##"))
    body = rng.choice(("`{v}`", "```sh\n{v}\n```", "Run `{v}`.", "prose"))
    parts = []
    for fact in facts:
        text = _prose_line(fact, rng, split) if body == "prose" else _form(body, fact)
        parts.append(f"{mark} {_cap(fact.head)}\n\n{text}")
    return "\n\n".join(parts)


def _console(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    note = rng.choice(("{Say}:", "{Head}:", "# {say}"))
    lines = "\n".join(f"{_form(note, fact)}\n$ {fact.value}" for fact in facts)
    return lines if rng.random() < 0.3 else f"```console\n{lines}\n```"


def _defined(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    form = rng.choice(("{Head}\n:   `{v}`", "{Head}\n  `{v}`", "{head} -> `{v}`", "{head}: {v}"))
    return rng.choice(("\n", "\n\n")).join(_form(form, fact) for fact in facts)


def _explained(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    """All commands in one block, what they do in the same order below or in comments behind."""
    if rng.random() < 0.5:
        lines = [f"{fact.value}  # {fact.say}" for fact in facts]
        return "```sh\n" + "\n".join(lines) + "\n```"
    return "\n\n".join(f"```sh\n{fact.value}\n```\n\nUse it to {fact.say}." for fact in facts)


def _questions(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    return "\n\n".join(f"How do I {fact.say}? `{fact.value}`" for fact in facts)


def _arrows(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    return "\n".join(f"+ {fact.head} => `{fact.value}`" for fact in facts)


def _checklist(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    return "\n".join(f"- [ ] {_cap(fact.say)} (`{fact.value}`)" for fact in facts)


def _free(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    """In no template; only what is trained on is written so."""
    pairs = [(rng.choice((fact.say, fact.head)), fact.value) for fact in facts]
    return Forms(load("train").fillers, rng).lines(pairs)


_STYLES: dict[str, tuple[Style, ...]] = {
    "val": (
        _prose, _prose, _prose, _bullets, _bullets, _bullets, _numbered, _table, _fenced, _blocks,
        _headed, _console, _defined, _explained, _inverted,
    ),
    "test": (_prose, _questions, _arrows, _checklist),
}  # fmt: skip
_STYLES["train"] = (*_STYLES["val"], *[_free] * 8)
_PLAIN = 0.12  # share of training documents that know no Markdown


def _plain(text: str) -> str:
    """The document without the marks that would show where a literal begins and ends."""
    text = re.sub(r"^```.*\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"^#+ |`|\*\*", "", text, flags=re.MULTILINE).strip("\n")


def body(
    title: str,
    facts: Sequence[Fact],
    lexicon: Lexicon,
    rng: random.Random,
    *,
    filler: float,
    inverted: bool = False,
) -> str:
    """A Markdown body stating every fact once; `filler` is the chance of a distractor a place.

    `inverted`: every command stands before what it is for.
    """
    split = "test" if lexicon.split == "test" else "train"
    parts: list[str] = []
    styles = (_inverted,) if inverted else _STYLES[lexicon.split]
    sections = _sections(facts, rng, split, styles)
    if rng.random() < 0.4:
        rng.shuffle(sections)
    if rng.random() < 0.7:
        parts.append(f"# {title}")
    if rng.random() < 0.4 + filler / 3:
        parts.append(rng.choice(lexicon.intros).format(project=title))
    headed = len(sections) > 1 or rng.random() < 0.5
    for heading, text in sections:
        filled = _with_filler(text, lexicon, rng) if rng.random() < filler else text
        parts.append(f"## {heading}\n\n{filled}" if headed and heading else filled)
        if rng.random() < filler * 0.5:
            parts.append(rng.choice(lexicon.sections))
    text = "\n\n".join(parts)
    return _plain(text) if split == "train" and rng.random() < _PLAIN else text


def statements(facts: Sequence[Fact], rng: random.Random, split: str) -> str:
    """The facts stated once each, and nothing else, as a split (train, val, test) has it."""
    form = "test" if split == "test" else "train"
    return "\n\n".join(text for _, text in _sections(facts, rng, form, _STYLES[split]))


def _sections(
    facts: Sequence[Fact], rng: random.Random, split: str, styles: Sequence[Style]
) -> list[tuple[str, str]]:
    """Headings and texts: first the commands', then the others'."""
    commands = [fact for fact in facts if fact.kind == "command"]
    others = [fact for fact in facts if fact.kind != "command"]
    free = _free in styles
    found = _command_sections(commands, rng, split, styles)
    return found + _other_sections(others, rng, split, free=free)


def _with_filler(text: str, lexicon: Lexicon, rng: random.Random) -> str:
    sentence = rng.choice(lexicon.fillers)
    return f"{sentence}\n\n{text}" if rng.random() < 0.5 else f"{text}\n\n{sentence}"


def _command_sections(
    facts: Sequence[Fact], rng: random.Random, split: str, styles: Sequence[Style]
) -> list[tuple[str, str]]:
    sections = []
    rest = list(facts)
    while rest:
        size = rng.randint(1, len(rest))
        group, rest = rest[:size], rest[size:]
        style = rng.choice(styles)
        sections.append((rng.choice(_HEADINGS[split]), style(group, rng, split)))
    return sections


def _other_sections(
    facts: Sequence[Fact], rng: random.Random, split: str, *, free: bool
) -> list[tuple[str, str]]:
    if not facts:
        return []
    lines = [_other_line(fact, rng, free=free) for fact in facts]
    if rng.random() < 0.4:
        return [("", line) for line in lines]
    joined = "\n".join(f"- {line}" for line in lines) if rng.random() < 0.6 else " ".join(lines)
    return [(rng.choice(_NOTES[split]), joined)]


def _other_line(fact: Fact, rng: random.Random, *, free: bool) -> str:
    if free and fact.kind == "literal" and rng.random() < 0.25:
        return Forms(load("train").fillers, rng).line(fact.head, fact.value)
    if fact.kind == "literal" and rng.random() < 0.25:
        return f"{fact.head}: `{fact.value}`"
    return fact.say
