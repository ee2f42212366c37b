"""The shipped pair inside the real OpenCode: it runs the command that only the skill knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.client import OpenCode, configured, without_plugin
from tests.e2e.obeyed import Task, edited, likeliest_first
from tests.e2e.relay import Relay
from tests.e2e.test_opencode import has_text, lines_of

from skillc_compiler.data.tools import slim_prompt

pytestmark = [pytest.mark.e2e, pytest.mark.obedience, pytest.mark.timeout(3600)]
LIMIT = 6  # requests for one simple task


@pytest.fixture(scope="module")
def tasks(server: str, project: Path) -> list[Task]:
    return likeliest_first(server, project)


def calls(project: Path) -> list[str]:
    """What was executed since the last time."""
    path = project / "calls.log"
    found = path.read_text("utf-8").splitlines() if path.is_file() else []
    path.unlink(missing_ok=True)
    return found


def test_it_runs_the_skills_literal_command(
    agent: OpenCode, relay: Relay, project: Path, tasks: list[Task]
) -> None:
    def obeyed(task: Task) -> bool:
        agent.run(task.ask, "--command", task.skill)
        seen = relay.take()
        assert len(seen) <= LIMIT
        assert has_text(seen, lines_of(project, task.skill)) == []
        return task.command(project) in calls(project)

    assert any(map(obeyed, tasks))


def test_it_does_not_without_the_skill(
    agent: OpenCode, relay: Relay, project: Path, tasks: list[Task]
) -> None:
    for task in tasks[:2]:
        agent.run(task.ask)
        assert task.command(project) not in calls(project)
        assert len(relay.take()) <= LIMIT


def test_it_obeys_the_new_text(agent: OpenCode, project: Path, tasks: list[Task]) -> None:
    def obeyed(task: Task) -> bool:
        before = task.command(project)
        with edited(project, task):
            after = task.command(project)
            agent.run(task.ask, "--command", task.skill)
        found = calls(project)
        assert after != before and before not in found
        return after in found

    assert any(map(obeyed, tasks))


def test_it_obeys_text_that_is_pasted_and_elided(
    agent: OpenCode, relay: Relay, project: Path, tasks: list[Task]
) -> None:
    """A client without the plugin: OpenCode's own slash command pastes the skill's body.

    It has no tools there: what it says of its own shell alone fills half of nano's context.
    """

    def obeyed(task: Task) -> bool:
        with configured(project, without_plugin(project, slim_prompt())):
            done = agent.run(task.ask, "--pure", "--agent", "bare", "--command", task.skill)
        seen = relay.take()
        assert seen[0].report["tokens_elided"] > 100 and seen[0].attached == [task.skill]
        assert len(seen) <= LIMIT
        return task.command(project) in done.said

    assert any(map(obeyed, tasks))


def test_it_obeys_in_a_session_that_goes_on(
    agent: OpenCode, project: Path, tasks: list[Task]
) -> None:
    def obeyed(task: Task) -> bool:
        agent.run("SAY hello", "--command", task.skill)
        agent.run(task.ask, "--continue")
        return task.command(project) in calls(project)

    assert any(map(obeyed, tasks))
