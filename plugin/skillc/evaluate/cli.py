"""`skillc eval`: runs a suite and prints its figures."""

from __future__ import annotations

from pathlib import Path

import click

from skillc.evaluate.cases import Case

SUITES = ("commands", "handwritten")
QUICK_SKILLS, FULL_SKILLS = 24, 240


@click.command("eval", help="Measure how well adapters obey, against their controls.")
@click.option("--suite", type=click.Choice(SUITES), default="commands", show_default=True)
@click.option(
    "--split",
    type=click.Choice(("train", "val", "test")),
    default="test",
    show_default=True,
    help="Whose wording the generated skills use; only test was never trained on.",
)
@click.option("--file", type=click.Path(path_type=Path), help="JSONL of the handwritten suite.")
@click.option("--skills", type=click.IntRange(1), help="How many skills.  [default: 240]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--rank", type=click.IntRange(1, 256), default=32, show_default=True)
@click.option("--base", "base_name", default="nano", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine.")
@click.option("--quick", is_flag=True, help=f"{QUICK_SKILLS} skills: a check, not a measurement.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, last on standard output.")
@click.option(
    "--answers",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every answer to this JSONL file.",
)
def command(
    suite: str,
    split: str,
    file: Path | None,
    skills: int | None,
    seed: int,
    rank: int,
    base_name: str,
    threads: int | None,
    quick: bool,
    as_json: bool,
    answers: Path | None,
) -> int:
    """Run one suite in all its arms; exit 1 when a target is missed."""
    from skillc.evaluate.suite import Settings, run

    count = skills or (QUICK_SKILLS if quick else FULL_SKILLS)
    settings = Settings(base_name, rank, threads, answers)
    return run(suite, _cases(suite, split, file, count, seed), settings, as_json=as_json)


def _cases(suite: str, split: str, file: Path | None, count: int, seed: int) -> list[Case]:
    from skillc.evaluate.cases import generated_cases, handwritten_cases

    if suite == "handwritten":
        if file is None:
            raise click.UsageError("the handwritten suite needs --file FILE.jsonl")
        return handwritten_cases(file)[:count]
    if split == "train":
        click.echo("skillc: wording of the train split was seen in training", err=True)
    return generated_cases(split, count, seed)
