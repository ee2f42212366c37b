"""`skillc base`: both sides of a model are checked, recorded, found again, or refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.compiler import stand_in
from tests.plugin.project import Run

from skillc.base_check import LogitCheck, compare
from skillc_compiler import bases
from skillc_compiler.base_match import match_weights
from skillc_compiler.bases import find_base, list_bases
from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.gguf_header import read_header
from skillc_compiler.hf_folder import HfFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two models of the same shapes, and GGUFs of the first."""
    root = tmp_path_factory.mktemp("models")
    stand_in.write_folder(root / "one", "llama")
    stand_in.write_folder(root / "other", "llama", seed=1)
    for dtype in ("f16", "q8_0"):
        stand_in.write_gguf(root / "one", root / f"one.{dtype}.gguf", dtype)
    return root


def test_add_list_show_verify_remove(models: Path, run: Run, home: Path) -> None:
    gguf = models / "one.q8_0.gguf"
    done = run("base", "add", "one", "--hf", models / "one", "--gguf", gguf)
    assert (done.code, done.err.count("comparing")) == (0, 3), done.err
    assert done.out.startswith("added one: llama, 21 weights within 0.0")
    folder = home / "bases" / "one"
    assert sorted(path.name for path in folder.iterdir()) == ["base.gguf", "base.json"]
    assert (folder / "base.gguf").resolve() == gguf
    base = find_base("one")
    assert (base.hf, base.compiler_dir) == (models / "one", None)
    assert base.load == {"dtype": "float32"}
    record = json.loads((folder / "base.json").read_text("utf-8"))
    assert record["gguf"]["sha256"] == read_base_info(gguf).hash
    assert "model.safetensors.index.json" not in record["hf"]["files"]
    assert {"config.json", "tokenizer.json"} < record["hf"]["files"].keys()
    assert record["checks"]["logits"]["difference"] < record["checks"]["logits"]["tolerance"]
    listed = json.loads(run("base", "list", "--json").out)["bases"]
    assert {one["name"] for one in listed} >= {"one", "tiny"}
    assert "llama" in run("base", "list").out
    shown = run("base", "show", "one").out
    assert str(gguf) in shown
    assert "tokenized alike" in shown
    assert run("base", "verify", "one", "--logits").out == "one: good\n"
    assert run("base", "add", "one", "--gguf", gguf).code == 2
    assert run("base", "remove", "one").code == 0
    assert gguf.is_file()
    assert "no base called 'one'" in run("base", "show", "one").err


def test_the_gguf_is_written_when_there_is_none(models: Path, run: Run, home: Path) -> None:
    done = run("base", "add", "one", "--hf", models / "one", "--write-as", "q8_0", "--json")
    assert done.code == 0, done.err
    gguf = home / "bases" / "one" / "base.gguf"
    assert not gguf.is_symlink()
    assert json.loads(done.out)["gguf"]["path"] == "base.gguf"
    assert read_header(gguf).tensors == read_header(models / "one.q8_0.gguf").tensors


def test_a_gguf_alone_is_enough(models: Path, run: Run) -> None:
    done = run("base", "add", "alone", "--gguf", models / "one.f16.gguf")
    assert done.code == 0, done.err
    assert find_base("alone").hf is None
    assert "from the GGUF" in run("base", "show", "alone").out


def test_changed_files_are_found(models: Path, run: Run, home: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "one", tmp_path / "copy")
    shutil.copy(models / "one.f16.gguf", tmp_path / "copy.gguf")
    run("base", "add", "one", "--hf", tmp_path / "copy", "--gguf", tmp_path / "copy.gguf",
        "--no-logits")  # fmt: skip
    shard = min((tmp_path / "copy").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    done = run("base", "verify", "one")
    assert (done.code, done.out.splitlines()[-1]) == (1, "one: NOT what was added")
    assert f"{shard}: is not what was added" in done.out
    (tmp_path / "copy.gguf").unlink()
    assert "is gone: put it back" in run("base", "verify", "one").err
    assert "one" not in {base.name for base in list_bases()}
    (home / "bases" / "one" / "base.json").write_text("torn", "utf-8")
    assert "run 'skillc base add' again" in run("base", "show", "one").err


def other_weights(folder: Path) -> None:
    for shard in folder.glob("*.safetensors"):
        shutil.copy(folder.parent / "other" / shard.name, shard)


def edited(name: str, *path: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        parsed = json.loads((folder / name).read_text("utf-8"))
        inner = parsed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / name).write_text(json.dumps(parsed), "utf-8")

    return change


def swapped_tokens(folder: Path) -> None:
    parsed = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocab = parsed["model"]["vocab"]
    vocab["e"], vocab["a"] = vocab["a"], vocab["e"]
    (folder / "tokenizer.json").write_text(json.dumps(parsed), "utf-8")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (other_weights, r"model\.embed_tokens\.weight differs by 1\.[34]"),
        (edited("config.json", "rms_norm_eps", value=1e-3), "layer_norm_rms_epsilon is"),
        (edited("config.json", "vocab_size", value=640), "token_embd.weight is"),
        (edited("config.json", "num_hidden_layers", value=3), "block_count is 2 in the GGUF"),
        (edited("config.json", "model_type", value="qwen2"), "the folder is qwen2, the GGUF is"),
        (edited("config.json", "rope_parameters", "rope_theta", value=1e4), "rope.freq_base is"),
        (edited("config.json", "rope_parameters", "factor", value=2.0), "rope_freqs.weight"),
        (swapped_tokens, "not the same tokenizer"),
    ],
)
def test_two_models_are_no_base(
    models: Path,
    run: Run,
    home: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    problem: str,
) -> None:
    import re

    shutil.copytree(models / "other", tmp_path / "other")
    shutil.copytree(models / "one", tmp_path / "copy")
    damage(tmp_path / "copy")
    done = run("base", "add", "x", "--hf", tmp_path / "copy", "--gguf", models / "one.f16.gguf",
               "--no-logits")  # fmt: skip
    assert done.code == 2
    assert re.search(problem, done.err), done.err
    assert not (home / "bases" / "x").exists()
    assert not list((home / "bases").glob(".*"))


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ([], "say where the model is"),
        (["--hf", "no/such/folder"], "no such folder"),
        (["--gguf", "absent.gguf"], "no such file"),
        (["--gguf", os.devnull], "no such file"),
    ],
)
def test_what_cannot_be_added(args: list[str], problem: str, run: Run, home: Path) -> None:
    done = run("base", "add", "x", *args)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert problem in done.err
    assert not (home / "bases" / "x").exists()


def test_names_and_compilers_are_safe(
    models: Path, run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = models / "one.f16.gguf"
    embedded = tmp_path / "package" / "assets" / "nano"
    embedded.mkdir(parents=True)
    shutil.copy(gguf, embedded / "base.gguf")
    monkeypatch.setattr(bases, "files", lambda name: tmp_path / "package")
    assert "comes with skillc" in run("base", "add", "nano", "--gguf", gguf, "--force").err
    assert "not the name of a base" in run("base", "add", "../x", "--gguf", gguf).err
    assert "comes with skillc" in run("base", "remove", "nano").err
    assert "has a compiler" in run("base", "remove", "tiny").err
    assert run("base", "remove", "tiny", "--force").code == 0
    assert not (home / "bases" / "tiny").exists()


def test_other_logits_are_other_models(models: Path) -> None:
    """The comparison of logits sees what the weights cannot show."""
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((5, 30)).astype(np.float32)]
    near = compare(rows, [rows[0] + np.float32(0.01)], 0.1)
    assert near.difference < 1e-6
    far = compare(rows, [rng.standard_normal((5, 30)).astype(np.float32)], 0.1)
    assert isinstance(far, LogitCheck)
    assert far.difference > 1
    assert (near.positions, near.same_first) == (5, 1.0)
    assert far.divergence > 0.1 > abs(near.divergence)


def test_a_quantised_base_is_matched_by_its_type(models: Path, tmp_path: Path) -> None:
    match = match_weights(HfFolder.open(models / "one"), models / "one.q8_0.gguf")
    assert match.coarsest.name in ("Q8_0", "F16")
    assert 1e-3 < match.worst < 1.5e-2
    with pytest.raises(BaseModelError, match="differs by"):
        match_weights(HfFolder.open(models / "other"), models / "one.q8_0.gguf")
