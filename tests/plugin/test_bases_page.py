"""Every command of the walk-through in docs/bases.md, on a small model of the same architecture."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.compiler import published_cases, stand_in
from tests.plugin.project import Ran

from skillc.cli import main
from skillc.server_process import serving
from skillc_compiler.adapter import save_peft
from skillc_compiler.lock import Lock

pytestmark = pytest.mark.slow
RECIPE = """
[writer]
width = 16
heads = 2
[data]
skills = 1
facts = [1, 2]
[schedule]
steps = 2
check_skills = 1
"""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "bases.md"


def commands() -> list[str]:
    """The indented lines of the walk-through."""
    text = PAGE.read_text("utf-8").split("## From nothing to a served skill")[1].split("\n## ")[0]
    return [line.strip() for line in re.findall(r"^    .+$", text, re.M)]


@pytest.fixture
def models(home: Path) -> Path:
    """What the page expects below ~: the model twice, a published checkpoint, an adapter."""
    root = home / "models"
    folder = stand_in.write_folder(root / "Qwen3-4B", "qwen3")
    base = stand_in.write_gguf(folder, root / "Qwen3-4B-Q8_0.gguf", "q8_0")
    published_cases.write_doc2lora(root / "doc-to-lora-qwen3-4b")
    adapter = stand_in.adapter(base, ["mlp.up_proj"], rank=4)
    save_peft(adapter, home / "adapters" / "picking")
    return root


def ask(line: str, url: str) -> Any:
    """What the page's curl would get, from the server at `url`."""
    _, address, option, body = shlex.split(line)
    assert option == "-d"
    path = address.removeprefix("http://127.0.0.1:8191")
    wanted = {**json.loads(body), "max_tokens": 4}
    request = urllib.request.Request(
        url + path, json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_every_command_of_the_page(
    models: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A stand-in has as much to learn in 240 steps as in 2.
    for name, value in (("STEPS", "2"), ("QUESTIONS", "4"), ("BATCH", "2")):
        monkeypatch.setenv(f"SKILLC_COMPILER_DISTILL_{name}", value)
    (tmp_path / "few.toml").write_text(RECIPE, "utf-8")
    monkeypatch.setenv("SKILLC_TRAIN_COMPILER_RECIPE", str(tmp_path / "few.toml"))
    where, compilers = tmp_path, []

    def run(line: str) -> Ran:
        args = [arg.replace("~", str(home), 1) for arg in shlex.split(line)[1:]]
        monkeypatch.chdir(where)
        with pytest.raises(SystemExit) as ended:
            main(args)
        captured = capsys.readouterr()
        assert ended.value.code == 0, (line, captured.err)
        return Ran(0, captured.out, captured.err)

    lines = commands()
    assert len(lines) == 14
    for line in lines:
        if line.startswith("mkdir"):
            subprocess.run(["bash", "-c", line], cwd=where, check=True)
            where = where / line.rpartition(" ")[2]
        elif line == "skillc serve":
            with serving(where, tmp_path / "log", ["--threads", "1"]) as url:
                answer = ask(lines[-1], url)
            assert [one["name"] for one in answer["skillc"]["attached"]] == ["picking"]
        elif line.startswith("curl"):
            assert line == lines[-1]
        elif line.startswith("echo"):
            subprocess.run(["bash", "-c", line], cwd=where, check=True)
        else:
            run(line)
            if line == "skillc build" or line.startswith("skillc add"):
                lock = Lock.load(where / "skillc.lock")
                compilers.append((lock.compiler.id, lock.skills["picking"].foreign))
    assert [foreign for _, foreign in compilers] == [False, False, False, True]
    made_by = [name for name, _ in compilers]
    assert made_by == ["doc2lora-qwen3-4b", "writer-qwen3-4b", "distill", "distill"]
    assert shutil.which("bash")
