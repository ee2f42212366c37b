"""`skillc dev`: what is saved is built and served, and a watch that died shows in /health."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.plugin.project import FakeCompiler, write_skill
from tests.plugin.watched import eventually, text

from skillc.dev import dev
from skillc.outcome import Outcome
from skillc.plan import Plan
from skillc.telling import Json, Teller
from skillc.watch import Watch
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import find_base
from skillc_compiler.skill import Skill, parse_skill
from skillc_runtime.settings import ServeSettings


class Told(Teller):
    """Keeps what was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.attached: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def served(self, name: str, seconds: float) -> None:
        self.attached.append(name)


@contextmanager
def running_dev(root: Path, compiler: FakeCompiler, told: Told) -> Iterator[str]:
    """`skillc dev` in a thread; yields its URL."""
    stop = threading.Event()
    urls: list[str] = []
    settings = ServeSettings(find_base("tiny").gguf, "tiny", root, port=0, n_threads=1)
    thread = threading.Thread(
        target=dev,
        args=(root, settings, told, lambda base: compiler, stop),
        kwargs={"on_ready": urls.append},
    )
    thread.start()
    try:
        eventually(lambda: urls or not thread.is_alive())
        yield urls[0]
    finally:
        stop.set()
        thread.join()


def call(url: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one request."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def attached(url: str, skill: str) -> tuple[int, str]:
    """The status of an answer with `skill`, and the hash of what was attached."""
    body = {
        "model": f"tiny:{skill}",
        "messages": [{"role": "user", "content": "How?"}],
        "max_tokens": 1,
    }
    status, answer = call(f"{url}/v1/chat/completions", body)
    if status != 200:
        return status, ""
    return status, answer["skillc"]["attached"][0]["hash"]


def skill_hash(url: str, name: str) -> str:
    """Which text of a skill the server would serve now."""
    _, listed = call(f"{url}/v1/skills")
    return next((one["skill_hash"] for one in listed["data"] if one["name"] == name), "")


def hash_of(name: str, *more: str) -> str:
    return parse_skill(text(name, *more).encode(), folder=name).hash


def test_save_serve_change_delete(root: Path, compiler: FakeCompiler) -> None:
    told = Told()
    file = write_skill(root, "testing")
    with running_dev(root, compiler, told) as url:
        eventually(lambda: skill_hash(url, "testing") == hash_of("testing"))
        status, first = attached(url, "testing")
        assert status == 200
        assert attached(url, "deploy") == (404, "")
        file.write_text(text("testing", "More."), "utf-8")
        eventually(lambda: skill_hash(url, "testing") == hash_of("testing", "More."))
        status, second = attached(url, "testing")
        assert (status, second != first) == (200, True)
        write_skill(root, "deploy")
        eventually(lambda: attached(url, "deploy")[0] == 200)
        shutil.rmtree(file.parent)
        eventually(lambda: attached(url, "testing") == (404, ""))
        assert call(f"{url}/health")[0] == 200
    assert told.attached == ["testing", "testing", "deploy"]
    assert told.lines[-1] == "removed testing"


def test_the_old_adapter_answers_until_the_new_one_is_there(
    root: Path, compiler: FakeCompiler
) -> None:
    file = write_skill(root, "testing")
    told, begun, go_on = Told(), threading.Event(), threading.Event()
    compile_one = compiler.compile

    def slow(skill: Skill, *, rank: int = 32) -> Adapter:
        begun.set()
        go_on.wait(60)
        return compile_one(skill, rank=rank)

    with running_dev(root, compiler, told) as url:
        eventually(lambda: attached(url, "testing")[0] == 200)
        old = attached(url, "testing")
        compiler.compile = slow  # type: ignore[method-assign]
        file.write_text(text("testing", "More."), "utf-8")
        assert begun.wait(60)
        assert attached(url, "testing") == old
        go_on.set()
        eventually(lambda: attached(url, "testing") != old)
        assert attached(url, "testing")[0] == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_watch_is_a_503(
    root: Path, compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Watch, *, trusting: bool) -> float:
        raise KeyError("a bug")

    write_skill(root, "testing")
    told = Told()
    with running_dev(root, compiler, told) as url:
        eventually(lambda: attached(url, "testing")[0] == 200)
        assert call(f"{url}/health")[0] == 200
        monkeypatch.setattr(Watch, "_cycle", die)
        write_skill(root, "deploy")
        eventually(lambda: call(f"{url}/health")[0] == 503)
        _, health = call(f"{url}/health")
        assert health["status"] == "failed"
        assert health["problems"] == {"watch": "the watch for changed skills has ended: restart it"}
        assert attached(url, "testing")[0] == 200
    assert told.lines[-1].startswith("the watch has ended: unexpected KeyError: 'a bug'; restart")


def test_json_lines(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teller = Json()
    teller.said("something")
    teller.served("testing", 0.01234)
    teller.built(Plan.__new__(Plan), [Outcome("testing", "built", key="ab")])
    teller.watching(3, polling=False)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["line", "served", "built", "watching"]
    assert all(isinstance(line["time"], float) for line in lines)
    assert (lines[1]["seconds"], lines[2]["status"], lines[3]["skills"]) == (0.0123, "built", 3)


@pytest.mark.parametrize("verb", ["watch", "dev"])
def test_a_signal_ends_the_program(verb: str, root: Path) -> None:
    """The fake family cannot be loaded: that is said, and the program stays."""
    write_skill(root, "testing")
    options = ["--port", "0", "--threads", "1"] if verb == "dev" else []
    command = [sys.executable, "-m", "skillc", "-C", str(root), verb, "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    said = []
    for line in process.stdout:
        said.append(json.loads(line))
        if "family 'fake' is not known" in said[-1].get("text", ""):
            break
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert said[0]["event"] == ("serving" if verb == "dev" else "detected")
