"""The shipped pair inside the real OpenCode: it runs the command that only the skill knows."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.client import OpenCode, configured, without_plugin
from tests.e2e.conftest import skillc
from tests.e2e.relay import Relay
from tests.e2e.test_opencode import has_text, lines_of

from skillc_compiler.data.tools import slim_prompt

pytestmark = [pytest.mark.e2e, pytest.mark.obedience, pytest.mark.timeout(3600)]
ASKED = "Run the quick tests."
LIMIT = 6  # requests for one simple task


def calls(project: Path) -> list[str]:
    path = project / "calls.log"
    return path.read_text("utf-8").splitlines() if path.is_file() else []


def test_it_runs_the_skills_literal_command(agent: OpenCode, relay: Relay, project: Path) -> None:
    agent.run(ASKED, "--command", "testing")
    assert "graft test --fast" in calls(project)
    seen = relay.take()
    assert len(seen) <= LIMIT
    assert has_text(seen, lines_of(project, "testing")) == []


def test_it_does_not_without_the_skill(agent: OpenCode, relay: Relay, project: Path) -> None:
    agent.run(ASKED)
    assert "graft test --fast" not in calls(project)
    assert len(relay.take()) <= LIMIT


def test_it_obeys_the_new_text(agent: OpenCode, project: Path) -> None:
    path = project / ".skills" / "testing" / "SKILL.md"
    text = path.read_text("utf-8")
    path.write_text(text.replace("--fast", "--brisk"), "utf-8")
    try:
        skillc(project, "build")
        agent.run(ASKED, "--command", "testing")
    finally:
        path.write_text(text, "utf-8")
        skillc(project, "build")
    assert "graft test --brisk" in calls(project)
    assert "graft test --fast" not in calls(project)


def test_it_obeys_text_that_is_pasted_and_elided(
    agent: OpenCode, relay: Relay, project: Path
) -> None:
    """A client without the plugin: OpenCode's own slash command pastes the skill's body."""
    with configured(project, without_plugin(project, slim_prompt(), bash="allow")):
        agent.run(ASKED, "--pure", "--agent", "bare", "--command", "testing")
    seen = relay.take()
    assert seen[0].report["tokens_elided"] > 100 and seen[0].attached == ["testing"]
    assert "graft test --fast" in calls(project)
    assert len(seen) <= LIMIT


def test_it_obeys_in_a_session_that_goes_on(agent: OpenCode, project: Path) -> None:
    agent.run("SAY hello", "--command", "testing")
    agent.run(ASKED, "--continue")
    assert "graft test --fast" in calls(project)
