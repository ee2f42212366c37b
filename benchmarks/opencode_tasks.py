"""Does the agent run the right command: with no skill, with its text, with its adapter?

Held-out skills of the generator's test split, one question about a command of each, asked in the
wording of that split, through the real OpenCode with the slim agent.  A task is solved when the
first tool call is the shell with the skill's literal command.  No command is executed: all but
`true` are forbidden to the agent, and the task ends there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from _bench import say
from _opencode import Stage, configure, staged
from tests.e2e.client import post

from skillc.figures import print_figures
from skillc_compiler.data.generate import Generator, Shape

TASKS = 36
SEED = 7
ARMS = ("none", "text", "adapter")
TARGETS = {"n": (">=", 30.0)}


@dataclass(frozen=True, slots=True)
class Task:
    """A skill, a question about it, and the command that answers it."""

    skill: str
    text: str
    ask: str
    command: str


def tasks(count: int) -> list[Task]:
    """One task a skill, each skill under a name of its own."""
    found: dict[str, Task] = {}
    for sample in Generator("test", SEED, Shape(outside=0.0, chat=0.0)):
        commands = [question for question in sample.questions if question.kind == "command"]
        if commands and sample.name not in found:
            first = commands[0]
            found[sample.name] = Task(sample.name, sample.text, first.ask, first.answer)
        if len(found) == count:
            break
    return list(found.values())


def solved(stage: Stage, url: str, task: Task, arm: str) -> bool:
    """Whether the first call in a fresh session is the task's command."""
    stage.relay.take()
    session = f"{url}/session/{post(f'{url}/session', {})['id']}"
    if arm == "adapter":
        body = {"command": task.skill, "arguments": task.ask, "agent": "slim"}
        post(f"{session}/command", {**body, "model": "skillc/nano"})
    else:
        ask = f"{task.text}\n{task.ask}" if arm == "text" else task.ask
        model = {"providerID": "skillc", "modelID": "nano-as-it-is"}
        parts = [{"type": "text", "text": ask}]
        post(f"{session}/message", {"agent": "slim", "model": model, "parts": parts})
    seen = stage.relay.take()
    wanted = [task.skill] if arm == "adapter" else []
    if not seen or seen[0].status != 200 or seen[0].attached != wanted:
        raise SystemExit(f"{arm}: {task.skill} was not served as planned: {seen[:1]}")
    return [" ".join(c.split()) for c in seen[0].commands[:1]] == [" ".join(task.command.split())]


def measure(scratch: Path, count: int) -> Mapping[str, float]:
    found = tasks(count)
    good = dict.fromkeys(ARMS, 0)
    with staged(scratch, {task.skill: task.text for task in found}) as stage:
        rules = {"*": "deny", "use_skill": "deny", "bash": {"*": "deny", "true": "allow"}}
        slim = {"mode": "primary", "model": "skillc/nano", "permission": rules}
        models = {
            name: {"id": "nano", "tool_call": True, "limit": {"context": 4096, "output": 128}}
            for name in ("nano", "nano-as-it-is")
        }
        # The server would take the text out and attach the adapter instead.
        models["nano-as-it-is"]["headers"] = {"X-Skillc-Elide": "off"}
        provider = {"npm": "@ai-sdk/openai-compatible", "models": models}
        provider["options"] = {"baseURL": f"{stage.relay.url}/v1", "apiKey": "local"}
        configure(stage.project, agent={"slim": slim}, provider={"skillc": provider})
        stage.relay.one_step = True
        with stage.agent.serving() as url:
            for task in found:
                for arm in ARMS:
                    good[arm] += solved(stage, url, task, arm)
                say(f"{task.skill}: {good}")
    return {arm: good[arm] / len(found) for arm in ARMS} | {"n": float(len(found))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="two tasks")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="skillc-opencode-") as folder:
        figures = measure(Path(folder), 2 if args.quick else TASKS)
    # An adapter shall do at least what the text does.
    targets = {**TARGETS, "adapter": (">=", figures["text"])}
    print_figures("opencode_tasks", figures, targets, as_json=args.json)


if __name__ == "__main__":
    main()
