"""`skillc add`: adapters trained elsewhere are checked, stored, locked, left alone and served."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.compiler import tiny
from tests.plugin.project import SKILL, FakeCompiler, Run, build_json, locked, write_skill

from skillc.ask import ask
from skillc.server_process import serving
from skillc_compiler.adapter import load_peft, save_peft
from skillc_compiler.bases import find_base
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.gguf_base import read_base_info


@pytest.fixture
def peft(tmp_path: Path, home: Path) -> Path:
    """A PEFT folder that fits the base `tiny`."""
    base = read_base_info(find_base("tiny").gguf)
    save_peft(tiny.adapter(base, ["mlp.down_proj"], rank=4), tmp_path / "peft")
    return tmp_path / "peft"


def test_a_foreign_adapter_is_locked_and_stays(
    root: Path, run: Run, compiler: FakeCompiler, peft: Path
) -> None:
    write_skill(root, "testing")
    write_skill(root, "deploy")
    assert build_json(run)["built"] == 2
    compiled = locked(root).skills["testing"]
    done = run("add", "--adapter", peft, "--skill", "testing")
    assert (done.code, done.out) == (0, "added testing: rank 4, 2 modules, 3 KiB, foreign\n")
    assert "trained on tiny" in done.err
    entry = locked(root).skills["testing"]
    assert (entry.foreign, entry.hash, entry.verdict) == (True, compiled.hash, "adapter")
    assert entry.key != compiled.key
    assert not locked(root).skills["deploy"].foreign
    assert build_json(run)["unchanged"] == 2
    assert run("build", "--locked").code == 0
    assert build_json(run, "--force")["built"] == 1
    assert locked(root).skills["testing"] == entry
    write_skill(root, "testing", SKILL.format(name="testing") + "- More.\n")
    report = build_json(run)
    assert report["unchanged"] == 2
    assert "its foreign adapter stays" in report["warnings"][0]
    assert locked(root).skills["testing"] == entry
    assert build_json(run, "testing", "--force")["built"] == 1
    assert not locked(root).skills["testing"].foreign
    assert b"foreign" not in (root / "skillc.lock").read_bytes()


def test_a_base_without_a_compiler_can_serve_foreign_adapters(
    root: Path, run: Run, home: Path, peft: Path
) -> None:
    for name in ("compiler.safetensors", "compiler.json"):
        (home / "bases" / "tiny" / name).unlink()
    write_skill(root, "testing")
    assert run("add", "--adapter", peft, "--skill", "testing").code == 0
    assert locked(root).compiler.id == "none"
    listed = json.loads(run("list", "--json").out)["skills"]
    assert [(one["name"], one["state"]) for one in listed] == [("testing", "built")]
    manifest = json.loads(run("show", "testing", "--json").out)["manifest"]
    assert (manifest["compiler_id"], manifest["source"]) == ("foreign", "peft")


def test_what_does_not_fit_changes_nothing(
    root: Path, run: Run, home: Path, peft: Path, tmp_path: Path
) -> None:
    write_skill(root, "testing")
    done = run("add", "--adapter", peft, "--skill", "tasting")
    assert (done.code, "did you mean 'testing'" in done.err) == (2, True)
    assert run("add", "--adapter", tmp_path / "absent", "--skill", "testing").code == 2
    other = tiny.write_base(tmp_path / "other.gguf", intermediate_size=128)
    adapter = tiny.adapter(other, ["mlp.up_proj"], rank=4)
    (tmp_path / "other-lora.gguf").write_bytes(adapter_to_gguf(adapter, other))
    done = run("add", "--adapter", tmp_path / "other-lora.gguf", "--skill", "testing")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "adapter refused: made for base" in done.err
    assert not (root / "skillc.lock").exists()


@pytest.mark.slow
def test_it_is_served_like_any_other(
    root: Path, tmp_path: Path, run: Run, compiler: FakeCompiler, peft: Path
) -> None:
    """A PEFT folder, and the same adapter as a GGUF: both attached, and to the same effect."""
    write_skill(root, "testing")
    write_skill(root, "deploy")
    base = read_base_info(find_base("tiny").gguf)
    gguf = tmp_path / "lora.gguf"
    gguf.write_bytes(adapter_to_gguf(load_peft(peft), base, "f16"))
    assert run("add", "--adapter", peft, "--skill", "testing").code == 0
    assert run("add", "--adapter", gguf, "--skill", "deploy").code == 0
    assert b'"foreign": true' in (root / "skillc.lock").read_bytes()
    assert gguf.read_bytes() == stored_gguf(root, "deploy")
    with serving(root, tmp_path / "log", ["--threads", "1"]) as url:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as response:
            names = {model["id"] for model in json.load(response)["data"]}
        assert "tiny:testing" in names
        user = [{"role": "user", "content": "Which command do I run?"}]
        plain = ask(url, "tiny", user, max_tokens=8)
        adapted = ask(url, "tiny:testing", user, max_tokens=8)
        again = ask(url, "tiny:deploy", user, max_tokens=8)
        attached = chat(url, "tiny:deploy")["skillc"]["attached"]
    assert [(one["name"], one["as"]) for one in attached] == [("deploy", "adapter")]
    assert attached[0]["hash"] == hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert again.text == adapted.text
    assert plain.prompt_tokens == adapted.prompt_tokens
    assert plain.text != adapted.text


def stored_gguf(root: Path, name: str) -> bytes:
    """What the store has for a skill of the lock."""
    key = locked(root).skills[name].key
    return (root / ".skillc" / "store" / key / "adapter.gguf").read_bytes()


def chat(url: str, model: str) -> Any:
    """The whole answer to a question, with what was attached."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
