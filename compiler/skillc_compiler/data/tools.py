"""Tools that agents offer, calls of the shell among them, and what comes back from a command."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from skillc_compiler.data.words import Words

Tools = tuple[dict[str, Any], ...]
SHELL_NAMES = ("bash", "bash", "bash", "shell", "run", "terminal", "execute_command", "run_command")
_ARGUMENTS = ("command", "command", "command", "cmd", "script", "input")
_TEXTS = (
    "Run a shell command.", "Execute a command in the project.",
    "Runs a command and returns its output.", "Executes a shell command",
    "Run one command in the terminal.", "Run a bash command",
)  # fmt: skip
# Other tools of coding agents: name, arguments, description.
_OTHERS = (
    ("read", ("filePath",), "Read a file"),
    ("read_file", ("path",), "Read a file from the workspace."),
    ("edit", ("filePath", "oldString", "newString"), "Replace text in a file"),
    ("write", ("filePath", "content"), "Write a file"),
    ("grep", ("pattern",), "Search file contents"),
    ("glob", ("pattern",), "Find files by name"),
    ("list", ("path",), "List a folder"),
    ("webfetch", ("url",), "Fetch a page"),
    ("use_skill", ("name",), "Activate a skill"),
    ("todowrite", ("todos",), "Keep a list of what is to be done"),
)
DONE = "Done."
FAILED = "That failed; see the output."
_GOOD = (
    "{n} passed in {m}.{k}s", "ok", "", "Everything is up to date.", "done in {m} s", "{w}: ok",
    "Wrote {f}", "Finished {w} ({n} files)", "created {f}\ncreated {g}", "All checks passed!",
    "listening on port {n}", "{w}\n{v}\n{w}-{v}", "Success: {n} {w} processed", "(no output)",
)  # fmt: skip
_BAD = (
    "error: {w} not found", "{n} failed, {m} passed", "bash: {w}: command not found", "exit code 1",
    "fatal: cannot open {f}", "Error: permission denied: {f}", "Traceback: {w} failed",
)  # fmt: skip


def tool(name: str, arguments: tuple[str, ...], text: str) -> dict[str, Any]:
    """An OpenAI tool schema whose arguments are required strings."""
    parameters = {
        "type": "object",
        "properties": {argument: {"type": "string"} for argument in arguments},
        "required": list(arguments),
    }
    return {
        "type": "function",
        "function": {"name": name, "description": text, "parameters": parameters},
    }


def shell_tool(rng: random.Random) -> dict[str, Any]:
    """A shell under one of its many names."""
    return tool(rng.choice(SHELL_NAMES), (rng.choice(_ARGUMENTS),), rng.choice(_TEXTS))


def tool_box(rng: random.Random, others: int) -> Tools:
    """A shell and `others` more tools, in any order."""
    tools = [shell_tool(rng), *(tool(*other) for other in rng.sample(_OTHERS, others))]
    rng.shuffle(tools)
    return tuple(tools)


@cache
def _slim() -> dict[str, Any]:
    path = resources.files("skillc_compiler.data") / "slim.json"
    slim: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return slim


def slim_prompt() -> str:
    """The system prompt of the slim agent that `skillc init opencode` sets up."""
    return str(_slim()["prompt"])


def slim_box(skills: Sequence[str]) -> Tools:
    """The slim agent's tools as they are sent; `skills` are those that can be switched on."""
    box = []
    for name, own in _slim()["tools"].items():
        function = {"name": name, **copy.deepcopy(own)}
        if name == "use_skill":
            function["parameters"]["properties"]["name"]["enum"] = sorted(skills)
        box.append({"type": "function", "function": function})
    return tuple(box)


def shell_call(tools: Tools, command: str) -> str:
    """The Hermes-style call that runs `command` with the shell among `tools`."""
    function = next(t["function"] for t in tools if t["function"]["name"] in SHELL_NAMES)
    argument = function["parameters"]["required"][0]
    arguments = json.dumps({argument: command}, ensure_ascii=False)
    name = json.dumps(function["name"])
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


def outcome(words: Words, rng: random.Random) -> tuple[str, str]:
    """What a command printed, and what the assistant says to it."""
    bad = rng.random() < 0.25
    text = rng.choice(_BAD if bad else _GOOD).format(
        n=words.number(), m=rng.randint(1, 90), k=rng.randint(0, 9), w=words.word(),
        v=words.word(), f=words.file(), g=words.file(),
    )  # fmt: skip
    return text, FAILED if bad else DONE
