"""Every suite on an oracle: what an ideal adapter, a wrong one and none must be found to be."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from tests.plugin.oracle import KNOWN, OracleEngine, OracleHarness, oracle_bench, oracle_harness
from tests.plugin.project import FakeCompiler, Run
from tests.plugin.test_evaluate_texts import TEXT

from skillc.evaluate.bench import Bench, Settings
from skillc.evaluate.cases import FACT_KINDS, generated_cases
from skillc.evaluate.harness import Asked
from skillc.evaluate.needle import needle
from skillc.evaluate.obey import commands, handwritten
from skillc.evaluate.real import real
from skillc.evaluate.robust import robust
from skillc.evaluate.sets import sets
from skillc.evaluate.sweep import sweep
from skillc.evaluate.unrelated import unrelated
from skillc_compiler.bases import Base, find_base
from skillc_compiler.data.generate import UNKNOWN
from skillc_compiler.errors import ProjectError

SETTINGS = Settings(base="tiny", rank=4, skills=4, quick=True)
QUERIES = [
    {"kind": "command", "ask": "Do one.", "expect": "make one", "match": "exact"},
    {"kind": "apply", "ask": "Do.", "expect": "^make [0-9]+$", "match": "regex"},
    {"kind": "outside", "ask": "Logo?", "expect": "", "match": "exact"},
]


def bench(**changes: object) -> Bench:
    return oracle_bench(find_base("tiny"), replace(SETTINGS, **changes))  # type: ignore[arg-type]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A handwritten and a real file."""
    texts = [TEXT.replace("graft", f"graft-{n}").replace("make", f"make-{n}") for n in range(3)]
    hand = [
        {
            "id": f"graft-{n}",
            "text": text,
            "queries": [QUERIES[0] | {"expect": f"make-{n} one"}, *QUERIES[1:]],
        }
        for n, text in enumerate(texts)
    ]
    first, second = tmp_path / "hand.jsonl", tmp_path / "real.jsonl"
    first.write_text("".join(json.dumps(row) + "\n" for row in hand), "utf-8")
    second.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return first, second


def test_commands_on_the_oracle() -> None:
    cases = generated_cases("test", 4, 0)
    asks = [(case, ask) for case in cases for ask in case.asks if ask.kind in FACT_KINDS]
    reach = sum(ask.question.answer in case.skill.text for case, ask in asks) / len(asks)
    found = commands(bench()).figures
    for arm in ("text", "adapter"):
        assert found[f"{arm}_exact"] == pytest.approx(reach, abs=1e-4)
        assert found[f"{arm}_command"] == found[f"{arm}_literal"] == 1.0
        assert found[f"{arm}_entry"] == pytest.approx(reach, abs=1e-4)
    for arm in ("none", "wrong", "mean"):
        assert found[f"{arm}_exact"] == 0.0
    assert found["exact_minus_text"] == 0.0 and found["outside_leak"] == 0.0
    assert found["questions"] == len(asks) and found["skills"] == 4
    assert 0.0 < found["suffix_cache_recall"] < 1.0
    assert found["suffix_cache_exact"] < 0.5


def test_the_text_sft_base_is_asked_with_the_text() -> None:
    made = bench(skills=2)
    assert set(commands(made).skipped) == {"text_sft"}
    assert isinstance(made.harness, OracleHarness)
    result = commands(replace(made, sft=OracleHarness(OracleEngine({}))))
    assert not result.skipped
    assert result.figures["text_sft_command"] == 1.0
    assert "\n| text_sft |" in result.table


def test_right_answers_are_not_decoded_twice() -> None:
    made = bench()
    engine = made.harness.engine
    assert isinstance(engine, OracleEngine)
    cases = generated_cases("test", 4, 0)
    asked = [Asked(case, ask, case.skill.text) for case in cases for ask in case.asks]
    marks = made.harness.ask("text", asked)
    right = [mark for mark in marks if mark.right]
    assert engine.asked == len(marks) - len(right) < len(marks)
    assert {mark.answer for mark in marks if not mark.right} == {UNKNOWN}


def test_handwritten_on_the_oracle(files: tuple[Path, Path]) -> None:
    found = handwritten(bench(handwritten=files[0])).figures
    assert found["adapter_command"] == found["text_command"] == 1.0
    assert found["wrong_command"] == found["none_command"] == 0.0
    assert found["adapter_apply"] == 0.0
    # A pattern is no text to predict: it counts neither as entry nor as recall.
    assert found["adapter_entry"] == found["adapter_recall"] == 1.0
    assert found["questions"] == 6 and found["questions_outside"] == 3


def test_real_recovery_is_one_for_the_oracle_and_zero_for_another_document(
    files: tuple[Path, Path],
) -> None:
    result = real(bench(real=files[1]))
    for task in ("completion", "cloze"):
        assert result.figures[f"{task}_recovery"] == 1.0
        assert result.figures[f"{task}_recovery_low"] == 1.0
        assert result.figures[f"{task}_recovery_wrong"] < 0.5
        assert result.figures[f"text_{task}_nll"] == pytest.approx(KNOWN, abs=1e-3)
        assert result.figures[f"{task}_documents"] >= 2
    assert not result.skipped


def test_real_documents_need_room(files: tuple[Path, Path]) -> None:
    made = bench(real=files[1])
    made.harness.engine.n_ctx = 512
    with pytest.raises(ProjectError, match="640 are needed"):
        real(made)


def test_needles_on_the_oracle() -> None:
    result = needle(bench(skills=2))
    found = result.figures
    assert found["adapter_exact"] == found["text_exact"] == 1.0
    assert found["none_exact"] == 0.0 and found["wrong_exact"] <= 0.1
    for name in ("32_128", "1024_2048", "needles_8", "string_8", "string_40"):
        assert found[f"adapter_{name}"] == found[f"adapter_{name}_low"] == 1.0
    assert [len(curve.lines["adapter"]) for curve in result.curves] == [5, 5]


def test_needles_too_long_for_the_base_are_named() -> None:
    made = bench(skills=1)
    made.harness.engine.n_ctx = 900
    result = needle(made)
    assert set(result.skipped) == {"512_1024", "1024_2048"}
    assert "adapter_256_512" in result.figures


def test_variants_lose_nothing_on_the_oracle() -> None:
    found = robust(bench(skills=3)).figures
    for name in ("paraphrase", "noise", "reorder", "plaintext"):
        assert found[f"adapter_{name}_drop"] == found[f"text_{name}_drop"] == 0.0
    assert found["adapter_plain"] > 0.5


def test_sets_on_the_oracle() -> None:
    result = sets(bench(skills=4))
    found = result.figures
    assert found["sets_2_share"] == found["sets_4_share"] == 1.0
    assert found["stacked_1"] == found["text_4"] > 0.5
    # The oracle does not read sums: only what it is told apart by counts.
    assert found["merged_2"] == 0.0
    assert [point[0] for point in result.curves[0].lines["stacked"]] == [1, 2, 4]


def test_an_oracle_leaves_unrelated_prompts_alone_and_a_disturbed_one_does_not() -> None:
    found = unrelated(bench()).figures
    assert found["flips"] == found["perplexity_change"] == 0.0
    assert abs(found["cosine_mean"]) < 0.2 and 1 < found["stable_rank"] <= 4
    worse = unrelated(oracle_bench(find_base("tiny"), SETTINGS, disturbed=0.5)).figures
    assert worse["outside_flips"] == 0.0
    assert worse["prose_flips"] == 1.0 == worse["prose_flips_low"]
    assert worse["prose_perplexity_change"] == pytest.approx(math.exp(0.5) - 1, abs=1e-4)
    assert 0 < worse["flips"] < 1


def test_sweeps_on_the_oracle() -> None:
    result = sweep(bench(skills=2))
    found = result.figures
    assert found["rank_full"] == found["rank_8"] == found["scale_0.5"] > 0.5
    assert found["rank_16_share"] == 1.0 and found["length_drop"] == 0.0
    assert found["activation_full"] > 0.5 and found["tail_drop"] == 0.0
    assert {"length_100", "length_2000", "facts_4", "facts_32"} <= set(found)
    assert [curve.title for curve in result.curves] == [
        "by rank",
        "by scale",
        "by length",
        "by facts",
    ]


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """`skillc eval` on the oracle."""
    made = oracle_bench(find_base("tiny"), SETTINGS)
    engine = made.harness.engine
    assert isinstance(engine, OracleEngine)

    def open_harness(base: Base, *, threads: int | None = None) -> object:
        return oracle_harness(base, engine)

    monkeypatch.setattr("skillc.evaluate.suite.harness", open_harness)
    monkeypatch.setattr(
        "skillc_compiler.families.interface.load_compiler", lambda base: made.compiler
    )


@pytest.mark.usefixtures("oracle")
def test_all_suites_print_one_object(run: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    hand, texts = files
    answers = tmp_path / "answers.jsonl"
    options = ("--base", "tiny", "--rank", "4", "--skills", "2", "--quick", "--answers", answers)
    files_ = ("--file", hand, "--file", texts)
    ran = run("eval", "--suite", "all", "--jobs", "1", "--json", *options, *files_)
    record = json.loads(ran.out.splitlines()[-1])
    assert record["name"] == "eval all" and ran.code == (0 if record["met"] else 1)
    for key in ("commands.adapter_exact", "handwritten.adapter_command", "real.cloze_recovery"):
        assert key in record["figures"]
    assert {key.partition(".")[0] for key in record["targets"]} == {
        "commands", "handwritten", "real", "needle", "robust", "sets", "unrelated", "sweep",
    }  # fmt: skip
    assert record["skipped"].keys() == {"commands.text_sft", "handwritten.text_sft"}
    suites = {json.loads(line)["suite"] for line in answers.read_text("utf-8").splitlines()}
    assert suites == {"commands", "handwritten", "needle", "robust", "sets", "sweep"}


@pytest.mark.usefixtures("oracle")
def test_a_missed_target_is_exit_code_one_and_shown(run: Run) -> None:
    options = ("--base", "tiny", "--rank", "4", "--skills", "4")
    ran = run("eval", "--suite", "sets", *options)
    assert ran.code == 0 and "- sets_4_share 1: >= 0.92 met" in ran.out
    ran = run("eval", "--suite", "commands", *options)
    assert ran.code == 1 and "adapter_exact" in ran.out and "NOT met" in ran.out
    assert "- text_sft: left out (no --sft-base" in ran.out


@pytest.mark.slow
@pytest.mark.usefixtures("oracle")
def test_curves_are_drawn(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "sets.png"
    run("eval", "--suite", "sets", "--base", "tiny", "--rank", "4", "--skills", "4", "--plot", path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--suite", "commands", "--plot", "x.png"), "no curve"),
        (("--suite", "real"), "--file FILE.jsonl"),
        (("--suite", "sets", "--file", "{real}"), "takes no --file"),
        (("--suite", "real", "--file", "{real}", "--file", "{hand}"), "more than one"),
        (("--suite", "all", "--file", "{real}", "--file", "{real}"), "two files for the real"),
        (("--suite", "all", "--file", "none.jsonl"), "cannot be read"),
    ],
)
def test_bad_options_are_one_line(
    run: Run, files: tuple[Path, Path], args: tuple[str, ...], said: str
) -> None:
    hand, texts = files
    ran = run("eval", *(arg.format(hand=hand, real=texts) for arg in args))
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1


@pytest.mark.slow
def test_suites_run_on_the_engine_that_serves(run: Run, compiler: FakeCompiler, home: Path) -> None:
    """A random base obeys nothing; what counts is that every arm is asked and every set loads."""
    from tests.compiler import tiny

    tiny.write_base(home / "bases" / "tiny" / "base.gguf", max_position_embeddings=4096)
    object.__setattr__(compiler, "base", find_base("tiny"))
    options = ("--base", "tiny", "--rank", "4", "--json", "--quick")
    ran = run("eval", "--suite", "commands", "--skills", "2", *options)
    found = json.loads(ran.out.splitlines()[-1])["figures"]
    assert ran.code == 1
    assert all(found[f"{arm}_exact"] == 0 for arm in ("none", "adapter", "mean", "suffix_cache"))
    ran = run("eval", "--suite", "unrelated", "--skills", "2", *options)
    found = json.loads(ran.out.splitlines()[-1])["figures"]
    assert 0 < found["flips"] <= 1 and found["prompts"] > 20
