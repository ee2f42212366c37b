"""Tasks for the tests that want a model which obeys.

What is tested with them is that a model which obeys does so through a client, too, and that nothing
else comes of it: one task must be solved. How many are is what opencode_tasks.py measures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.client import post
from tests.e2e.conftest import SKILLS, skillc

from skillc_compiler.data.tools import slim_box, slim_prompt


@dataclass(frozen=True, slots=True)
class Task:
    """A command of a skill, how it is asked for, and what stands in its place in an edited text."""

    skill: str
    ask: str
    old: str
    new: str

    def command(self, project: Path) -> str:
        """The literal command, as `project` has it now, without the script's folder."""
        text = path_of(project, self.skill).read_text("utf-8")
        found = re.search(rf"`\./tools/(graft [^`]*(?:{self.old}|{self.new})[^`]*)`", text)
        assert found, self
        return found[1]


TASKS = (
    Task("testing", "Run the quick tests.", "--fast", "--brisk"),
    Task("testing", "Run the quick tests before I commit.", "--fast", "--brisk"),
    Task("testing", "Make the coverage report.", "--min 85", "--min 70"),
    Task("testing", "Show me the coverage.", "--min 85", "--min 70"),
    Task("database", "Undo the last migration.", "--steps 1", "--steps 2"),
    Task("database", "Start over with sample data.", "--seed plums", "--seed pears"),
    Task("database", "Write a backup.", "var/backup", "var/copies"),
)


def path_of(project: Path, skill: str) -> Path:
    return project / ".skills" / skill / "SKILL.md"


@contextmanager
def edited(project: Path, task: Task) -> Iterator[None]:
    """The task's skill with another command, compiled, for the block."""
    path = path_of(project, task.skill)
    text = path.read_text("utf-8")
    path.write_text(text.replace(task.old, task.new), "utf-8")
    try:
        skillc(project, "build")
        yield
    finally:
        path.write_text(text, "utf-8")
        skillc(project, "build")


def solved(url: str, project: Path, task: Task) -> bool:
    """Whether the server's own answer, asked as the slim agent asks, is the literal command."""
    messages = [
        {"role": "system", "content": slim_prompt()},
        {"role": "user", "content": task.ask},
    ]
    body = {"model": f"nano:{task.skill}", "messages": messages, "tools": slim_box(SKILLS)}
    answer = post(f"{url}/v1/chat/completions", {**body, "temperature": 0, "max_tokens": 128})
    calls = answer["choices"][0]["message"].get("tool_calls") or ()
    wanted = f"./tools/{task.command(project)}"
    return [json.loads(call["function"]["arguments"]).get("command") for call in calls] == [wanted]


def likeliest_first(url: str, project: Path) -> list[Task]:
    """All tasks; those first that are solved before and after the skill is edited."""
    found = []
    for task in TASKS:
        good = solved(url, project, task)
        if good:
            with edited(project, task):
                good = solved(url, project, task)
        found.append((not good, task))
    return [task for _, task in sorted(found, key=lambda one: one[0])]
