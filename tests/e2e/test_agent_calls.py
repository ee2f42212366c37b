"""The tools of real agents: they make the calls that the server writes, and send the results.

What the model says is written down here, for this is not about what it would say: the server's own
reading of calls, its three APIs and the agents are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.relay import Relay, Seen, relaying
from tests.e2e.test_agents import agent_of
from tests.runtime.stand_in import scripted

from skillc_compiler.bases import find_base
from skillc_runtime.server import running
from skillc_runtime.settings import ServeSettings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
COMMAND = "echo answer $((6 * 7))"


def calling(tool: str, **arguments: Any) -> str:
    """What a model says to call a tool."""
    call = json.dumps({"name": tool, "arguments": arguments})
    return f"Looking.\n<tool_call>\n{call}\n</tool_call>"


@pytest.fixture
def said(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Relay, list[str]]]:
    """A relay to a server whose model says what is in the list, one text an answer."""
    base = find_base("nano")
    settings = ServeSettings(
        base.gguf, name=base.name, project=project, port=0, n_threads=1, in_process=True
    )
    with running(settings) as server, relaying(server.url) as relay:
        yield relay, scripted(server, monkeypatch)


def check(seen: list[Seen], done: Any) -> Seen:
    """The second of a run's two requests, which has the call's result; its answer is shown."""
    assert done.returncode == 0, done.stderr
    assert [(one.status, one.attached) for one in seen] == [(200, ["testing"])] * 2
    assert "All is well." in done.stdout
    return seen[1]


def test_codex(said: tuple[Relay, list[str]], tmp_path: Path) -> None:
    relay, script = said
    client = agent_of("codex", "codex", relay, tmp_path)
    profile = tmp_path / ".codex" / "nano.config.toml"
    text = profile.read_text("utf-8")
    assert ", shell_tool = false" in text
    profile.write_text(text.replace(", shell_tool = false", ""), "utf-8")  # as the page says
    script += [calling("exec_command", cmd=COMMAND), "All is well."]
    done = client.run(client.page.commands("codex")[1])
    last = check(relay.take(), done)
    results = [item for item in last.body["input"] if item["type"] == "function_call_output"]
    assert [("answer 42" in str(item["output"])) for item in results] == [True]


def test_claude_code(said: tuple[Relay, list[str]], tmp_path: Path) -> None:
    relay, script = said
    client = agent_of("claude", "claude-code", relay, tmp_path)
    slim = client.page.commands("claude")[1]
    assert '--tools ""' in slim
    script += [calling("Bash", command=COMMAND, description="Compute."), "All is well."]
    done = client.run(slim.replace('--tools ""', "--tools Bash --allowed-tools Bash"))
    last = check(relay.take(), done)
    blocks = [part for one in last.body["messages"] for part in one["content"]]
    results = [part for part in blocks if isinstance(part, dict) and "tool_use_id" in part]
    assert [("answer 42" in str(part["content"])) for part in results] == [True]


def test_claude_codes_tool_search(said: tuple[Relay, list[str]], tmp_path: Path) -> None:
    """A tool is offered only once its search has found it."""
    relay, script = said
    client = agent_of("claude", "claude-code", relay, tmp_path)
    slim = client.page.commands("claude")[1]
    script += [calling("ToolSearch", query="select:CronList", max_results=1), "All is well."]
    done = client.run(slim.replace('--tools ""', "--tools ToolSearch,CronList"))
    first, last = relay.take()
    check([first, last], done)
    assert "tool_reference" not in json.dumps(first.body)
    assert '{"type": "tool_reference", "tool_name": "CronList"}' in json.dumps(last.body)
    deferred = [tool["name"] for tool in last.body["tools"] if tool.get("defer_loading")]
    assert "CronList" in deferred


def test_continue(said: tuple[Relay, list[str]], tmp_path: Path) -> None:
    relay, script = said
    client = agent_of("cn", "continue", relay, tmp_path)
    script += [calling("Bash", command=COMMAND), "All is well."]
    done = client.run(client.page.commands("cn")[0].replace("cn -p", "cn -p --allow Bash"))
    last = check(relay.take(), done)
    results = [one for one in last.body["messages"] if one["role"] == "tool"]
    assert [("answer 42" in str(one["content"])) for one in results] == [True]
