"""`skillc compiler` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.compiler import published_cases as cases
from tests.plugin.project import Run, build_json, locked, write_skill

from skillc.verbs.compiler_verb import SOURCES
from skillc_compiler.bases import COMPILER_FILES
from skillc_compiler.published import convert


@pytest.fixture
def bare(home: Path) -> Path:
    """The base `tiny` without a compiler; returns its folder."""
    folder = home / "bases" / "tiny"
    for name in COMPILER_FILES:
        (folder / name).unlink()
    return folder


def test_the_verb_offers_what_can_be_read() -> None:
    assert SOURCES == convert.SOURCES


@pytest.mark.slow
def test_a_published_compiler_builds_the_project(
    bare: Path, root: Path, run: Run, tmp_path: Path
) -> None:
    checkpoint = cases.write_memory_token(tmp_path / "checkpoint-epoch-10")
    done = run("compiler", "import", checkpoint, "--from", "latentskill", "--heads", "4")
    assert (done.code, done.err) == (0, "")
    assert "of family m2p for base tiny, rank 4" in done.out
    write_skill(root, "testing")
    assert build_json(run)["built"] == 1
    lock = locked(root)
    assert lock.compiler.id == "latentskill-tiny"
    stored = list((root / ".skillc" / "store").glob("*/adapter_config.json"))
    targets = json.loads(stored[0].read_text())["target_modules"]
    assert len(stored) == 1 and len(targets) == 14


@pytest.mark.slow
def test_doc_to_lora_with_settings_as_json(bare: Path, run: Run, tmp_path: Path) -> None:
    checkpoint = cases.write_doc2lora(tmp_path / "d2l")
    done = run(
        "compiler", "import", checkpoint, "--from", "doc2lora", "--base", "tiny",
        "--chunk", "64", "--gain", "0.5", "--json",
    )  # fmt: skip
    record = json.loads(done.out)
    assert record["family"] == "perceiver"
    assert (record["settings"]["chunk"], record["settings"]["scaling"]) == (64, 0.5)
    assert record["remarks"] == ["no chat affixes are known for 'tiny-random': texts are read bare"]
    again = run("compiler", "import", checkpoint, "--from", "doc2lora", "--base", "tiny")
    assert again.code == 2
    assert again.err == ("skillc: error: base 'tiny' has a compiler: replace it with --force\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--from", "sakana"], "'sakana' is not one of"),
        (["--from", "shine", "--chunk", "9"], "--chunk has no meaning with --from shine"),
        (["--from", "doc2lora", "--truncate"], "--truncate has no meaning with --from doc2lora"),
        (["--from", "shine"], "no mem_tokens.pt in it or below"),
        (["--from", "doc2lora"], "no pytorch_model.bin in it or below"),
        (["--from", "shine", "--base", "none"], "no base called 'none'"),
    ],
)
def test_wrong_use_is_one_line(
    args: list[str], message: str, bare: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = run("compiler", "import", tmp_path / "empty", *args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and done.err.count("\n") == 1


@pytest.mark.slow
def test_distillation_needs_no_hypernetwork(bare: Path, root: Path, run: Run) -> None:
    done = run("compiler", "distill", "--steps", "3", "--questions", "2", "--targets", "down_proj")
    assert (done.code, done.err) == (0, "")
    assert "base tiny is compiled by distillation now" in done.out
    write_skill(root, "testing")
    built = run("build")
    assert built.code == 0 and "1 built" in built.out
    assert "distill testing: step 3 of at most 3, loss " in built.err
    assert locked(root).compiler.id == "distill"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--targets", "down_proj,lm_head"], "no module 'lm_head' to adapt"),
        (["--base", "none"], "no base called 'none'"),
        (["--steps", "0"], "Invalid value for '--steps'"),
    ],
)
def test_wrong_distillation_is_one_line(
    args: list[str], message: str, bare: Path, run: Run
) -> None:
    done = run("compiler", "distill", *args)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and done.err.count("\n") == 1


def test_a_base_keeps_its_compiler(run: Run) -> None:
    done = run("compiler", "distill")
    assert (done.code, done.out) == (2, "")
    assert "base 'tiny' has a compiler: replace it with --force" in done.err


@pytest.mark.slow
def test_an_untrained_writer_is_calibrated_and_builds(bare: Path, root: Path, run: Run) -> None:
    args = ("compiler", "calibrate", "--skills", "1", "--minutes", "0.0001", "--flips", "1")
    done = run(*args, "--json")
    record = json.loads(done.out)
    assert record["base"] == "tiny" and record["trials"] == 1 and record["gain"] == 0.5
    assert "layers 0 gain 0.5 rank 32: right " in done.err
    assert done.code == (0 if record["helps"] else 1)
    assert (bare / "compiler.json").exists() == record["helps"]
    if not record["helps"]:
        assert "nothing written; try distill" in run(*args).out
        return
    write_skill(root, "testing")
    assert build_json(run)["built"] == 1
    assert locked(root).compiler.id == "writer-untrained"
