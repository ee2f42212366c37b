"""The shipped pair inside the real OpenCode: it runs the command that only the skill knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.client import OpenCode, configured, without_plugin
from tests.e2e.obeyed import Task, edited, first_solved
from tests.e2e.relay import Relay
from tests.e2e.test_opencode import has_text, lines_of

from skillc_compiler.data.tools import slim_prompt

pytestmark = [pytest.mark.e2e, pytest.mark.obedience, pytest.mark.timeout(3600)]
LIMIT = 6  # requests for one simple task


@pytest.fixture(scope="module")
def task(server: str, project: Path) -> Task:
    """One that the pair solves when nothing stands between it and the server."""
    return first_solved(server, project)


def calls(project: Path) -> list[str]:
    path = project / "calls.log"
    return path.read_text("utf-8").splitlines() if path.is_file() else []


def test_it_runs_the_skills_literal_command(
    agent: OpenCode, relay: Relay, project: Path, task: Task
) -> None:
    agent.run(task.ask, "--command", task.skill)
    assert task.command(project) in calls(project)
    seen = relay.take()
    assert len(seen) <= LIMIT
    assert has_text(seen, lines_of(project, task.skill)) == []


def test_it_does_not_without_the_skill(
    agent: OpenCode, relay: Relay, project: Path, task: Task
) -> None:
    agent.run(task.ask)
    assert task.command(project) not in calls(project)
    assert len(relay.take()) <= LIMIT


def test_it_obeys_the_new_text(agent: OpenCode, project: Path, task: Task) -> None:
    before = task.command(project)
    with edited(project, task):
        after = task.command(project)
        agent.run(task.ask, "--command", task.skill)
    assert after != before
    assert after in calls(project) and before not in calls(project)


def test_it_obeys_text_that_is_pasted_and_elided(
    agent: OpenCode, relay: Relay, project: Path, task: Task
) -> None:
    """A client without the plugin: OpenCode's own slash command pastes the skill's body.

    It has no tools there: what it says of its own shell alone fills half of nano's context.
    """
    with configured(project, without_plugin(project, slim_prompt())):
        done = agent.run(task.ask, "--pure", "--agent", "bare", "--command", task.skill)
    seen = relay.take()
    assert seen[0].report["tokens_elided"] > 100 and seen[0].attached == [task.skill]
    assert task.command(project) in done.said
    assert len(seen) <= LIMIT


def test_it_obeys_in_a_session_that_goes_on(agent: OpenCode, project: Path, task: Task) -> None:
    agent.run("SAY hello", "--command", task.skill)
    agent.run(task.ask, "--continue")
    assert task.command(project) in calls(project)
