"""The shipped pair obeys held-out skills, through the engine that serves and over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI

from skillc.demo import EXAMPLE
from skillc_compiler.bases import find_base
from skillc_runtime.server import running
from skillc_runtime.settings import ServeSettings

pytestmark = pytest.mark.slow


def skillc(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "skillc", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_quick_evaluation_holds_its_floors() -> None:
    done = skillc("eval", "--suite", "commands", "--split", "test", "--quick", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    figures = result["figures"]
    assert done.returncode == 0 and result["met"], figures
    assert figures["adapter_exact"] > 3 * max(figures["none_exact"], figures["wrong_exact"], 0.01)
    assert figures["adapter_recall"] > figures["wrong_recall"] + 0.4


def test_served_answers_are_those_of_torch() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "served_torch.py"
    command = [sys.executable, str(script), "--prompts", "200", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["met"] and result["figures"]["prompts"] == 200, result["figures"]


def test_official_client_gets_the_skill_and_says_so(tmp_path: Path) -> None:
    project = tmp_path / "orchard"
    target = project / ".skills" / "testing"
    target.mkdir(parents=True)
    source = EXAMPLE / ".skills" / "testing" / "SKILL.md"
    (target / "SKILL.md").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    built = skillc("-C", str(project), "build")
    assert built.returncode == 0, built.stderr
    base = find_base()
    with running(ServeSettings(base.gguf, project=project, port=0, n_threads=1)) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="local", max_retries=0)
        question = [{"role": "user", "content": "How do I run the quick tests?"}]
        answer = client.chat.completions.create(model="nano:testing", messages=question)  # type: ignore[arg-type]
        bare = client.chat.completions.create(model="nano", messages=question)  # type: ignore[arg-type]
        with pytest.raises(NotFoundError) as caught:
            client.chat.completions.create(model="nano:pruning", messages=question)  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found"
    attached = answer.model_extra["skillc"]["attached"] if answer.model_extra else []
    assert [(one["name"], one["as"]) for one in attached] == [("testing", "adapter")]
    assert "graft" in (answer.choices[0].message.content or "")
    assert "graft" not in (bare.choices[0].message.content or "")
    assert bare.usage and answer.usage
    assert answer.usage.prompt_tokens == bare.usage.prompt_tokens
