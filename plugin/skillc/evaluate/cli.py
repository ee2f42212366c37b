"""`skillc eval`: runs a suite and prints its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

SUITES = (
    "commands",
    "handwritten",
    "real",
    "needle",
    "robust",
    "sets",
    "unrelated",
    "sweep",
)
CURVED = ("needle", "sets", "sweep")
_PATH = click.Path(path_type=Path, dir_okay=False)


@click.command("eval", help="Measure how well adapters obey, against their controls.")
@click.option(
    "--suite",
    type=click.Choice((*SUITES, "all")),
    default="commands",
    show_default=True,
    help="What to measure.",
)
@click.option(
    "--split",
    type=click.Choice(("train", "val", "test")),
    default="test",
    show_default=True,
    help="Whose wording the generated skills use; only test was never trained on.",
)
@click.option(
    "--file",
    "files",
    type=_PATH,
    multiple=True,
    help="JSON lines of the handwritten suite (with queries) or of the real one (texts; may be"
    " .xz). Give both with --suite all.",
)
@click.option("--skills", type=click.IntRange(1), help="How many skills, instead of the suite's.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--rank", type=click.IntRange(1, 256), default=64, show_default=True)
@click.option("--base", "base_name", default="nano", show_default=True)
@click.option("--sft-base", help="A base trained on the same data with the text: arm text_sft.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Suites at once: with --suite all and a small base as many as cores, else one.",
)
@click.option("--quick", is_flag=True, help="Few skills, floors as targets: a check.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, last on standard output.")
@click.option("--answers", type=_PATH, help="Write every answer to this JSONL file.")
@click.option("--plot", type=_PATH, help=f"Draw the curves of {', '.join(CURVED)} as a PNG.")
def command(
    suite: str,
    split: str,
    files: tuple[Path, ...],
    skills: int | None,
    seed: int,
    rank: int,
    base_name: str,
    sft_base: str | None,
    threads: int | None,
    jobs: int | None,
    quick: bool,
    as_json: bool,
    answers: Path | None,
    plot: Path | None,
) -> int:
    """Run suites in all their arms; exit 1 when a target is missed."""
    from skillc.evaluate.bench import Settings
    from skillc.evaluate.suite import run

    if plot and suite not in (*CURVED, "all"):
        raise click.UsageError(f"the {suite} suite has no curve to plot: {', '.join(CURVED)} have")
    handwritten, real = _files(suite, files)
    if split == "train":
        click.echo("skillc: wording of the train split was seen in training", err=True)
    settings = Settings(
        base_name, rank, split, seed, skills, quick, threads, sft_base, handwritten, real, answers,
        plot, jobs,
    )  # fmt: skip
    return run(SUITES if suite == "all" else (suite,), settings, as_json=as_json)


def _files(suite: str, files: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """The handwritten and the real file: as the suite says, or told apart by their contents."""
    from skillc.evaluate.cases import has_queries

    if suite != "all" and len(files) > 1:
        raise click.UsageError("more than one --file: only --suite all takes two")
    found: dict[str, Path] = {}
    for path in files:
        name = suite if suite != "all" else ("handwritten" if has_queries(path) else "real")
        if name in found:
            raise click.UsageError(f"two files for the {name} suite: {found[name]} and {path}")
        found[name] = path
    unused = set(found) - {"handwritten", "real"}
    if unused:
        raise click.UsageError(f"the {suite} suite generates its skills and takes no --file")
    if suite in ("handwritten", "real") and not files:
        kind = "with queries" if suite == "handwritten" else "of texts"
        raise click.UsageError(f"the {suite} suite needs --file FILE.jsonl, JSON lines {kind}")
    return found.get("handwritten"), found.get("real")
