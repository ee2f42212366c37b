"""Coding agents against the real server: what they send is answered, and they show the answer.

They are set up word for word as their pages say.  What fits the base is answered with the skill
attached; what does not is refused with a line that the client shows.  How well the base obeys is
in test_obeys.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.e2e.agents import Agent, Page, binary, said
from tests.e2e.relay import Relay, Seen

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
TOO_LONG = re.compile(r"the prompt has (\d+) tokens; the context has 4096")
# Headless aider must not stop to ask; elsewhere somebody answers.
AIDER = {"AIDER_YES_ALWAYS": "true", "AIDER_CHECK_UPDATE": "false", "AIDER_ANALYTICS": "false"}


def agent_of(program: str, page: str, relay: Relay, home: Path) -> Agent:
    """A client in a git repository below `home`, set up as its page says."""
    folder = home / "work"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    env = AIDER if program == "aider" else {}
    found = Agent(program, Page(page, relay.url), folder, home, env)
    found.set_up()
    return found


def answered(done: subprocess.CompletedProcess[str], relay: Relay, path: str) -> Seen:
    """The one request of a run that went well: answered, and its answer shown."""
    assert done.returncode == 0, done.stderr
    (one,) = relay.take()
    assert (one.path, one.status) == (path, 200), one.error
    assert one.report["attached"], "no skill"
    text = said(one).strip()
    assert text and text.split()[0] in done.stdout
    return one


def refused(done: subprocess.CompletedProcess[str], relay: Relay, path: str) -> list[Seen]:
    """The requests of a run whose prompt does not fit: our line is what the client shows."""
    assert done.returncode == 1, done.stdout
    seen = relay.take()
    assert {(one.path, one.status) for one in seen} == {(path, 400)}
    shown = TOO_LONG.search(done.stdout + done.stderr)
    assert shown and shown[0] in seen[-1].error
    return seen


@pytest.mark.parametrize(
    ("program", "page"),
    [("aider", "aider"), ("claude", "claude-code"), ("cn", "continue"), ("codex", "codex")],
)
def test_the_page_says_which_version(program: str, page: str, tmp_path: Path) -> None:
    client = Agent(program, Page(page, ""), tmp_path, tmp_path)
    shown = subprocess.run(
        [str(binary(program)), "--version"],
        env=client.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert client.page.version() in shown.stdout.split()


def test_aider(relay: Relay, tmp_path: Path) -> None:
    client = agent_of("aider", "aider", relay, tmp_path)
    named, header = client.page.commands("aider")
    one = answered(client.run(named), relay, CHAT)
    assert (one.body["model"], one.attached) == ("nano:testing", ["testing"])
    one = answered(client.run(header), relay, CHAT)
    assert (one.body["model"], one.asked, one.attached) == ("nano", "testing", ["testing"])


def test_continue(relay: Relay, tmp_path: Path) -> None:
    client = agent_of("cn", "continue", relay, tmp_path)
    plain, slim = client.page.commands("cn")
    done = client.run(plain)
    assert done.returncode == 0, done.stderr
    first = relay.take()[0]
    assert (first.path, first.status, first.attached) == (CHAT, 200, ["testing"])
    assert len(first.tools) > 5
    one = answered(client.run(slim), relay, CHAT)
    assert (one.body["model"], one.attached, one.tools) == ("nano:testing", ["testing"], [])


def test_continue_by_header(relay: Relay, tmp_path: Path) -> None:
    client = agent_of("cn", "continue", relay, tmp_path)
    config = tmp_path / ".continue" / "config.yaml"
    head, _, by_header = re.split(r"(?m)^(?=  - name: )", config.read_text("utf-8"))
    config.write_text(head + by_header, "utf-8")  # its first model is the one that is asked
    one = answered(client.run(client.page.commands("cn")[1]), relay, CHAT)
    assert (one.body["model"], one.asked, one.attached) == ("nano", "testing", ["testing"])


def test_codex(relay: Relay, tmp_path: Path) -> None:
    client = agent_of("codex", "codex", relay, tmp_path)
    plain, slim = client.page.commands("codex")
    (one,) = refused(client.run(plain), relay, RESPONSES)
    assert len(one.body["tools"]) > 5
    one = answered(client.run(slim), relay, RESPONSES)
    assert (one.body["model"], one.asked, one.attached) == ("nano:testing", "testing", ["testing"])
    assert one.body["tools"] == []


def test_claude_code(relay: Relay, tmp_path: Path) -> None:
    client = agent_of("claude", "claude-code", relay, tmp_path)
    plain, slim, header = client.page.commands("claude")
    seen = refused(client.run(plain), relay, MESSAGES)
    assert all(len(one.body["tools"]) > 5 for one in seen)
    one = answered(client.run(slim), relay, MESSAGES)
    assert (one.body["model"], one.attached) == ("nano:testing", ["testing"])
    assert not one.body.get("tools")
    one = answered(client.run(header), relay, MESSAGES)
    assert (one.asked, one.attached) == ("testing,deploy", ["deploy", "testing"])
