"""The log: one line of JSON a request, with its costs and without its text."""

from __future__ import annotations

import json

from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder, chat, wait_for

from skillc_compiler.skill import read_skill
from skillc_runtime.server import running

SECRET = "marmalade"


def test_the_session_and_what_text_would_have_cost(project: ProjectFolder) -> None:
    lines: list[str] = []
    with running(settings_for(project, log=lines.append)) as server:
        client = Client(server)
        client.chat(
            chat("tiny:deploy+notes"),
            headers={"X-Session-Id": "s" * 300, "X-Parent-Session-Id": "p"},
        )
        client.chat(chat("tiny"), headers={"session-id": "codex"})
        wait_for(lambda: len(lines) == 2)
        skill = read_skill(project.root / project.locked["deploy"].source)
        size = len(server.worker.engine.tokenize(skill.body))
    first, second = map(json.loads, lines)
    assert (first["session"], first["parent"]) == ("s" * 100, "p")
    assert first["text_tokens"] == {"deploy": size}
    assert (second["session"], second["parent"], second["text_tokens"]) == ("codex", None, {})


def test_one_line_a_request(project: ProjectFolder) -> None:
    lines: list[str] = []
    with running(settings_for(project, log=lines.append)) as server:
        client = Client(server)
        whole = client.chat(chat("tiny:deploy", SECRET)).json
        client.chat(chat("tiny:style@0.5", SECRET, stream=True))
        client.chat(chat("tiny:unknown", SECRET))
        client.send("/line\nbreak".replace("\n", "%0A"))
        wait_for(lambda: len(lines) == 4)
    assert SECRET not in "".join(lines)
    assert not any("\n" in line for line in lines)
    first, streamed, unknown, other = map(json.loads, lines)
    assert (first["method"], first["path"]) == ("POST", "/v1/chat/completions")
    assert (first["status"], first["stream"], first["skills"]) == (200, False, ["deploy@1"])
    assert first["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert first["ttft_ms"] == whole["skillc"]["ttft_ms"]
    assert 0 < first["ttft_ms"] / 1000 <= first["seconds"]
    assert first["tokens_elided"] == 0
    assert (streamed["stream"], streamed["skills"]) == (True, ["style@0.5"])
    assert streamed["finish_reason"] in ("stop", "length")
    assert streamed["completion_tokens"] > 0
    assert (unknown["status"], "model" in unknown) == (404, False)
    assert (other["path"], other["status"]) == ("/line\nbreak", 404)
