"""`skillc serve --upstream` as a user runs it, in front of a stub of vLLM's API."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from tests.plugin.project import FakeCompiler, Run, write_skill
from tests.runtime.vllm_stub import vllm

from skillc.ask import ask
from skillc.server_process import serving

USER = [{"role": "user", "content": "Which command do I run?"}]


@pytest.mark.slow
def test_a_built_skill_is_served_by_the_upstream(
    root: Path, run: Run, compiler: FakeCompiler, tmp_path: Path
) -> None:
    write_skill(root, "testing")
    assert run("build").code == 0
    with (
        vllm(key="secret") as stub,
        serving(
            root, tmp_path / "log", ["--upstream", stub.url, "--upstream-key", "secret"]
        ) as url,
    ):
        with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as response:
            names = [model["id"] for model in json.load(response)["data"]]
        answer = ask(url, "tiny:testing", USER, max_tokens=8)
        (name,) = stub.loaded
        assert names == ["tiny", "tiny:testing"]
        assert answer.text.strip() == f"answered by {name}"
        assert stub.loaded[name].parent == root / ".skillc" / "upstream"
    assert stub.loaded == {}
    assert "in front of http://127.0.0.1" in (tmp_path / "log").read_text("utf-8")


def test_what_makes_no_sense_is_refused(
    root: Path, run: Run, compiler: FakeCompiler, tmp_path: Path
) -> None:
    for option in (["--ctx", "512"], ["--deadline", "9"], ["--lora-loading"]):
        done = run("serve", "--upstream", "http://127.0.0.1:9", *option)
        assert (done.code, "are for the own engine" in done.err) == (2, True)
    done = run("serve", "--upstream", "http://127.0.0.1:9", "--port", "0")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "http://127.0.0.1:9 cannot be reached" in done.err
    done = run("-C", tmp_path, "serve", "--base", "tiny", "--upstream", "http://127.0.0.1:9")
    assert (done.code, "--upstream needs a project" in done.err) == (2, True)
