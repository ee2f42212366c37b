"""`skillc base`: the language models that skills are compiled for and served on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from skillc.verbs.list_verb import aligned
from skillc_compiler.bases import find_base, list_bases

HEAD = ("NAME", "ARCHITECTURE", "PARAMETERS", "GGUF", "TRANSFORMERS", "COMPILER")


@click.group("base")
def command() -> None:
    """Add, list and check bases.

    A base is one model on two sides: a GGUF that llama.cpp runs, and the same weights as
    transformers reads them, which is what skills are compiled with.
    """


@command.command("add")
@click.argument("name", metavar="NAME")
@click.option("--hf", metavar="DIR_OR_ID", help="The model's folder, or its id on the hub.")
@click.option(
    "--gguf",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The model as GGUF, which is linked. Without it, it is written from --hf.",
)
@click.option(
    "--write-as",
    type=click.Choice(["f16", "q8_0", "f32"]),
    default="f16",
    show_default=True,
    help="Type of the weights in a GGUF that is written.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
    help="How the compiler loads it: float32, and bfloat16 from 1.5 billion parameters on.",
)
@click.option("--device-map", metavar="MAP", help="As transformers takes it, such as 'auto'.")
@click.option("--quantize", type=click.Choice(["4bit", "8bit"]), help="Load it quantised.")
@click.option(
    "--layers",
    type=click.Choice(["auto", "memory", "disk"]),
    help="Where its layers are while it is used; auto: on the disk when memory is short.",
)
@click.option("--no-logits", is_flag=True, help="Skip the comparison that loads both sides.")
@click.option("--force", is_flag=True, help="Replace a base of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def add(
    *,
    name: str,
    hf: str | None,
    gguf: Path | None,
    write_as: str,
    dtype: str | None,
    device_map: str | None,
    quantize: str | None,
    layers: str | None,
    no_logits: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Add a base after checking that both sides are the same model.

    Architecture, shapes, samples of all weights, token ids and logits are compared; a difference
    that the GGUF's types do not explain is refused.
    """
    from skillc.base_home import Request, add_base

    request = Request(
        name,
        hf,
        gguf,
        write_as=write_as,
        dtype=dtype,
        device_map=device_map,
        quantize=quantize,
        layers=layers,
        logits=not no_logits,
        force=force,
    )
    record = add_base(request, say)
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return 0
    click.echo(f"added {name}: {record['architecture']}, {summary(record['checks'])}")
    click.echo(f'use it with base = "{name}" in skillc.toml')
    return 0


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(*, as_json: bool) -> int:
    """List all bases."""
    from skillc.base_home import describe

    found = [describe(base) for base in list_bases()]
    if as_json:
        click.echo(json.dumps({"bases": found}, indent=2))
        return 0
    for line in aligned([HEAD, *map(row, found)]):
        click.echo(line)
    return 0


@command.command("show")
@click.argument("name", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(*, name: str, as_json: bool) -> int:
    """Show one base: its two sides, and what was checked."""
    from skillc.base_home import describe

    record = describe(find_base(name))
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return 0
    for key in ("name", "architecture", "layers", "hidden", "vocabulary", "context", "parameters"):
        click.echo(f"{key:13} {record[key]}")
    gguf, hf = record["gguf"], record["hf"]
    click.echo(f"{'gguf':13} {gguf['path']} ({gguf['type']}, {gguf['bytes'] / 2**20:.0f} MiB)")
    click.echo(f"{'sha256':13} {gguf['sha256']}")
    click.echo(f"{'transformers':13} {hf['folder'] if hf else 'from the GGUF'}")
    click.echo(f"{'compiler':13} {record['compiler'] or 'none'}")
    if record["checks"]:
        click.echo(f"{'checked':13} {summary(record['checks'])}")
    return 0


@command.command("verify")
@click.argument("name", metavar="NAME")
@click.option("--logits", is_flag=True, help="Make every check of `add` again, logits too.")
def verify(*, name: str, logits: bool) -> int:
    """Check that a base's files are what was added; exit code 1 when they are not."""
    from skillc.base_home import verify_base

    findings = verify_base(name, say, logits=logits)
    for finding in findings:
        click.echo(finding)
    click.echo(f"{name}: {'NOT what was added' if findings else 'good'}")
    return 1 if findings else 0


@command.command("remove")
@click.argument("name", metavar="NAME")
@click.option("--force", is_flag=True, help="Also when its folder holds a compiler.")
def remove(*, name: str, force: bool) -> int:
    """Forget a base; a GGUF that was linked stays where it is."""
    from skillc.base_home import remove_base

    click.echo(f"removed {name}: {', '.join(remove_base(name, force=force))}")
    return 0


def row(record: dict[str, Any]) -> tuple[str, ...]:
    gguf = record["gguf"]
    return (
        record["name"],
        record["architecture"],
        f"{record['parameters'] / 1e6:,.1f} M",
        f"{gguf['type']}, {gguf['bytes'] / 2**20:,.0f} MiB",
        "folder" if record["hf"] else "from the GGUF",
        record["compiler"] or "-",
    )


def summary(checks: dict[str, Any]) -> str:
    """What was checked, in one line."""
    parts = []
    if "weights" in checks:
        one = checks["weights"]
        parts.append(f"{one['compared']} weights within {one['worst']:.2g}")
    parts.append(f"{checks['tokenizer']['texts']} texts tokenized alike")
    if "logits" in checks:
        one = checks["logits"]
        parts.append(
            f"logits of {one['positions']} positions within {one['difference']:.2g} "
            f"(same first token at {one['same_first']:.0%})"
        )
    return ", ".join(parts)


def say(line: str) -> None:
    click.echo(line, err=True)
