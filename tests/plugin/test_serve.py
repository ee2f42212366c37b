"""`skillc serve`: what it says, and the whole way over HTTP with a small base."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.plugin.project import BROKEN, SKILL, FakeCompiler, Run, write_skill

from skillc.ask import ask
from skillc.project import Project
from skillc.serve import announcement, stale_lines
from skillc.server_process import serving, stop, wait_until_ready

USER = [{"role": "user", "content": "Which command do I run?"}]


def test_announcement(root: Path, run: Run, compiler: FakeCompiler) -> None:
    project = Project.at(root)
    alone = list(announcement("http://127.0.0.1:1", "tiny", project))
    assert alone[:2] == ["serving http://127.0.0.1:1/v1", "  tiny  the base alone"]
    for number in range(22):
        write_skill(root, f"skill-{number:02d}")
    run("build")
    lines = list(announcement("http://127.0.0.1:1", "tiny", project))
    assert "  tiny:skill-00  as adapter" in lines
    assert "  and 2 more: http://127.0.0.1:1/v1/models" in lines
    assert lines[-1].startswith("  curl http://127.0.0.1:1/v1/chat/completions ")
    body = json.loads(lines[-1].split("-d ")[1].strip("'"))
    assert body["model"] == "tiny:skill-00"


def test_stale_lines(root: Path, run: Run, compiler: FakeCompiler) -> None:
    project = Project.at(root)
    write_skill(root, "testing")
    write_skill(root, "deploy")
    run("build")
    assert list(stale_lines(project)) == []
    write_skill(root, "testing", SKILL.format(name="testing") + "- More.\n")
    write_skill(root, "deploy", BROKEN.replace("broken", "deploy"))
    write_skill(root, "new")
    assert list(stale_lines(project)) == [
        "testing: changed since the last build and served as built: run 'skillc build'",
        "new: not built yet: run 'skillc build'",
        "deploy: unreadable now and served as last built, if at all: run 'skillc build'",
    ]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["--base", "giant"], "no base called 'giant'"),
        (["--host", "0.0.0.0"], "set an API key"),
        (["--port", "70000"], "Invalid value for '--port'"),
        (["--threads", "0"], "Invalid value for '--threads'"),
    ],
)
def test_what_cannot_be_served(args: list[str], problem: str, root: Path, run: Run) -> None:
    done = run("serve", *args)
    assert done.code == 2
    assert problem in done.err
    assert done.err.count("\n") == 1


def test_a_taken_port_is_one_line(root: Path, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", str(taken.getsockname()[1]))
    assert done.code == 2
    assert re.fullmatch(r"skillc: error: cannot listen on 127\.0\.0\.1:\d+: .*\n", done.err)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def post(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.slow
def test_from_text_to_answer(root: Path, tmp_path: Path, run: Run, compiler: FakeCompiler) -> None:
    """Build, serve, ask, change a skill, build, ask again: no restart, no stale adapter."""
    write_skill(root, "testing")
    write_skill(root, "deploy")
    run("build")
    log = tmp_path / "log"
    with serving(root, log, ["--threads", "1"]) as url:
        models = {model["id"] for model in get(f"{url}/v1/models")["data"]}
        assert {"tiny", "tiny:testing", "tiny:deploy"} <= models
        plain = ask(url, "tiny", USER, max_tokens=8)
        adapted = ask(url, "tiny:testing", USER, max_tokens=8)
        assert plain.prompt_tokens == adapted.prompt_tokens
        assert plain.text != adapted.text
        body = {"model": "tiny:testing", "messages": USER, "max_tokens": 8, "temperature": 0}
        _, first = post(url, body)
        assert [skill["name"] for skill in first["skillc"]["attached"]] == ["testing"]
        status, error = post(url, {"model": "tiny:nothing", "messages": USER})
        assert (status, error["error"]["code"]) == (404, "model_not_found")
        write_skill(root, "testing", SKILL.format(name="testing") + "- More.\n")
        (root / ".skills" / "deploy" / "SKILL.md").unlink()
        assert run("build").code == 0
        _, second = post(url, body)
        assert second["skillc"]["attached"][0]["hash"] != first["skillc"]["attached"][0]["hash"]
        assert post(url, body | {"model": "tiny:deploy"})[0] == 404
    assert "Traceback" not in log.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals, root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "skillc", "serve", "--base", "tiny", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=root, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ)
        )
    try:
        url = wait_until_ready(process, log)
        ask(url, "tiny", USER, max_tokens=2)
        process.send_signal(number)
        assert process.wait(20) == 0
    finally:
        stop(process)
    assert "Traceback" not in log.read_text("utf-8")
