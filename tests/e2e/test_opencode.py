"""The real OpenCode against the real server: what it sends, what is attached, what it costs.

Where the model's own words do not matter a script speaks for it (relay.py); the server still gets
every request.  How well a base obeys is in test_opencode_obeys.py.
"""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.client import NOWHERE, OpenCode, configured, post, without_plugin
from tests.e2e.conftest import skillc
from tests.e2e.relay import Relay, Seen

from skillc.usage import read_usage
from skillc_compiler.skill import read_skill

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]
SESSIONS = int(os.environ.get("SKILLC_E2E_SESSIONS", "20"))
PLAIN = "---\nname: plain\ndescription: Not compiled at all.\n---\n\nBe plain.\n"
ON = 'CALL use_skill {"name": "testing"}\n'


def lines_of(project: Path, *names: str) -> list[str]:
    """Lines of skills that nothing else would have."""
    bodies = [read_skill(project / ".skills" / name).body for name in names]
    return [line for body in bodies for line in body.splitlines() if len(line) > 30]


def has_text(seen: list[Seen], lines: list[str]) -> list[str]:
    """The lines that are in a request."""
    sent = "\n".join(one.text for one in seen)
    return [line for line in lines if json.dumps(line, ensure_ascii=False)[1:-1] in sent]


def test_a_slash_command_attaches_the_skill_and_sends_no_text(
    agent: OpenCode, relay: Relay, project: Path
) -> None:
    prompt = 'CALL bash {"command": "./tools/graft test --fast"}'
    done = agent.run(prompt, "--command", "testing")
    assert (done.code, done.errors) == (0, []), done.err
    assert (project / "calls.log").read_text("utf-8") == "graft test --fast\n"
    seen = relay.take()
    assert len(seen) == 2
    for one in seen:
        assert (one.status, one.asked, one.attached) == (200, "testing", ["testing"])
        assert one.tools == ["bash", "edit", "read", "use_skill", "write"]
        assert "available_skills" not in one.text
    assert has_text(seen, lines_of(project, "testing", "deploy", "database")) == []


def test_without_a_skill_nothing_is_attached(agent: OpenCode, relay: Relay) -> None:
    assert agent.run("SAY hello").code == 0
    (one,) = relay.take()
    assert (one.status, one.asked, one.attached) == (200, "", [])


def test_few_skills_are_on_from_the_start_in_the_slim_agent(agent: OpenCode, relay: Relay) -> None:
    del agent.env["SKILLC_ACTIVE"]
    assert agent.run("SAY hello", "--agent", "slim").code == 0
    (one,) = relay.take()
    assert one.attached == ["database", "deploy", "testing"]


def test_a_skill_that_is_edited_is_new_in_the_next_session(
    agent: OpenCode, relay: Relay, project: Path
) -> None:
    agent.run(ON)
    before = relay.take()[-1].report["attached"]
    path = project / ".skills" / "testing" / "SKILL.md"
    text = path.read_text("utf-8")
    path.write_text(text.replace("--fast", "--brisk"), "utf-8")
    try:
        skillc(project, "build")
        agent.run(ON)
        after = relay.take()[-1].report["attached"]
    finally:
        path.write_text(text, "utf-8")
        skillc(project, "build")
    assert [one["name"] for one in before] == [one["name"] for one in after] == ["testing"]
    assert before[0]["hash"] != after[0]["hash"]


def test_continue_keeps_the_active_set(agent: OpenCode, relay: Relay) -> None:
    first = agent.run(ON + 'CALL use_skill {"name": "deploy", "scale": 0.5}')
    assert first.outputs("use_skill") == ["testing is on.", "deploy is on."]
    assert [one.asked for one in relay.take()] == ["", "testing", "testing,deploy@0.5"]
    second = agent.run("SAY more", "--continue")
    assert second.session == first.session
    (one,) = relay.take()
    assert (one.asked, one.attached) == ("testing,deploy@0.5", ["deploy", "testing"])


def test_a_subagent_has_what_its_parent_has(agent: OpenCode, relay: Relay, project: Path) -> None:
    """Both with prompts that nano has room for."""
    short = {"prompt": "You help.", "model": "skillc/nano"}
    rules = {"*": "deny", "task": "allow", "use_skill": "allow"}
    helper = {**short, "mode": "subagent", "description": "Helps.", "permission": {"*": "deny"}}
    agents: dict[tuple[str, ...], Any] = {
        ("agent", "boss"): {**short, "mode": "primary", "permission": rules},
        ("agent", "helper"): helper,
    }
    task = {"description": "x", "prompt": "SAY hello", "subagent_type": "helper"}
    with configured(project, agents):
        done = agent.run(f"{ON}CALL task {json.dumps(task)}", "--agent", "boss")
    assert done.errors == []
    (child,) = [one for one in relay.take() if "x-parent-session-id" in one.headers]
    assert child.headers["x-parent-session-id"] == done.session
    assert (child.status, child.asked, child.attached) == (200, "testing", ["testing"])


def test_the_set_survives_compaction(agent: OpenCode, relay: Relay) -> None:
    model = {"providerID": "skillc", "modelID": "nano"}
    with agent.serving() as url:
        session = f"{url}/session/{post(f'{url}/session', {})['id']}"
        body = {"command": "testing", "arguments": "SAY hello", "agent": "slim"}
        post(f"{session}/command", {**body, "model": "skillc/nano"})
        post(f"{session}/summarize", model)
        summarized = relay.take()
        assert len(summarized) > 1  # the command, and what the summary was made of
        parts = [{"type": "text", "text": "SAY more"}]
        post(f"{session}/message", {"agent": "slim", "model": model, "parts": parts})
    (one,) = relay.take()
    assert (one.asked, one.attached) == ("testing", ["testing"])
    assert "hello" not in one.text  # the history is the summary now


def test_other_agents_lose_the_text_of_adapters_only(
    agent: OpenCode, relay: Relay, project: Path
) -> None:
    native = project / ".agents" / "skills" / "plain" / "SKILL.md"
    native.parent.mkdir(parents=True)
    native.write_text(
        "---\nname: plain\ndescription: Not compiled at all.\n---\n\nBe plain.\n", "utf-8"
    )
    try:
        agent.run("SAY hello", "--agent", "build")
    finally:
        native.unlink()
    (one,) = relay.take()
    assert "<name>plain</name>" in one.system and "skill" in one.tools
    assert "<name>testing</name>" not in one.system


def test_without_a_server_skills_are_text_and_one_line_says_so(
    agent: OpenCode, relay: Relay
) -> None:
    relay.upstream = None
    done = agent.run("SAY hello", "--agent", "build")
    assert [line for line in done.err.splitlines() if "skillc" in line] == [
        f"skillc: no server at {relay.url}/v1: skills stay text (skillc serve)"
    ]
    (one,) = relay.take()
    assert "<name>testing</name>" in one.system
    assert "skill" in one.tools and "use_skill" not in one.tools


def test_without_a_server_the_native_tool_gives_the_text(
    agent: OpenCode, relay: Relay, project: Path, tmp_path: Path
) -> None:
    """The plugin finds nobody at its address; the words come from elsewhere."""
    agent.do_without_ripgrep(tmp_path)
    agent.env |= {"SKILLC_URL": f"{NOWHERE}/v1", "SKILLC_WAIT": "1500"}
    done = agent.run('CALL skill {"name": "testing"}', "--agent", "build")
    assert f"skillc: no server at {NOWHERE}/v1: skills stay text (skillc serve)" in done.err
    lines = lines_of(project, "testing")
    (output,) = done.outputs("skill")
    assert all(line in output for line in lines)
    assert has_text(relay.take()[-1:], lines) == lines


def test_text_that_a_client_without_the_plugin_pastes_is_elided(
    agent: OpenCode, relay: Relay, project: Path, log: Path
) -> None:
    """A slash command of plain OpenCode pastes the skill's body."""
    with configured(project, without_plugin(project, "You help.")):
        done = agent.run("SAY hello", "--pure", "--agent", "bare", "--command", "testing")
    assert done.errors == []
    (one,) = relay.take()
    assert one.asked is None and one.attached == ["testing"]
    assert has_text([one], lines_of(project, "testing"))  # the client did send it
    assert one.report["tokens_elided"] > 100
    usage = read_usage(log.read_text("utf-8").splitlines())
    assert usage.sessions[done.session].elided >= one.report["tokens_elided"]


def test_many_sessions_neither_loop_nor_leak(agent: OpenCode, relay: Relay, server: str) -> None:
    for _ in range(SESSIONS):
        done = agent.run('CALL bash {"command": "true"}', "--command", "testing")
        assert (done.code, done.errors, len(relay.take())) == (0, [], 2)
    with urllib.request.urlopen(f"{server}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values["skillc_adapters_loaded"]) <= 16
    assert float(values["skillc_requests_waiting"]) == 0
