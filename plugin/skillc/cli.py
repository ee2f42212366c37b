"""The command line: knows the verbs' names and how errors look, imports a verb when asked."""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from skillc import __version__
from skillc_compiler.errors import SkillcError

# verb -> one line for `skillc --help`; the module is skillc.verbs.<verb>_verb.
VERBS = {
    "init": "Make this folder a skillc project.",
    "build": "Compile the skills that changed.",
    "list": "List the skills and what was built of them.",
    "show": "Show one skill: its text, adapter and verdict.",
    "watch": "Build whenever a skill changes.",
    "dev": "Watch and serve: save a skill and the running model knows it.",
    "prune": "Delete adapters that no skill uses any more.",
    "serve": "Serve the base with the built skills over the OpenAI API.",
    "top": "Show what a running server does: requests, tokens, waiting times, skills.",
    "stats": "Say what a server's log shows: tokens that skills as text would have cost.",
    "eval": "Measure how well adapters obey, against their controls.",
    "add": "Serve a skill by an adapter that was trained elsewhere.",
    "export": "Write a built skill's adapter for another program, and print the commands it needs.",
    "base": "Add, list and check bases.",
    "compiler": "Give a base a compiler: a published one, or none but gradient steps.",
    "train": "Train a base or a compiler.",
    "demo": "Build and serve the example project and ask it questions.",
    "doctor": "Check what skillc finds on this machine.",
}
ALIASES = {"ls": "list"}
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Start:
    """Where the user started: the folder whose project is meant."""

    folder: Path


class Verbs(click.Group):
    """A group whose commands are imported only when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = ALIASES.get(cmd_name, cmd_name)
        if verb not in VERBS:
            return None
        command = import_module(f"skillc.verbs.{verb}_verb").command
        assert isinstance(command, click.Command)
        name_variables(command, f"SKILLC_{verb.upper()}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        asked = args[0]
        if asked not in VERBS and asked not in ALIASES and not asked.startswith("-"):
            near = difflib.get_close_matches(asked, [*VERBS, *ALIASES], n=1)
            hint = f"did you mean '{near[0]}'?" if near else "see 'skillc --help'"
            raise click.UsageError(f"no such verb '{asked}': {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def name_variables(command: click.Command, prefix: str) -> None:
    """Let each option be set by PREFIX_OPTION, whatever its parameter is called in the code."""
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None:
            longest = max(option.opts, key=len).lstrip("-")
            option.envvar = f"{prefix}_{longest.upper().replace('-', '_')}"
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            name_variables(inner, f"{prefix}_{name.upper().replace('-', '_')}")


@click.group(
    cls=Verbs,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "SKILLC",
        "max_content_width": 100,
    },
    subcommand_metavar="VERB [ARGS]...",
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, "-V", "--version", message="skillc %(version)s")
@click.option(
    "-C",
    "--directory",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Work as if started in DIR.",
)
@click.pass_context
def skillc(ctx: click.Context, directory: Path | None) -> None:
    """Compile agent skills (SKILL.md) into LoRA adapters and serve them with llama.cpp."""
    ctx.obj = Start(directory or Path.cwd())
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 good, 1 findings, 2 could not run, 130 interrupted."""
    debug = os.environ.get("SKILLC_DEBUG", "") not in ("", "0")
    try:
        code = run(argv)
    except (KeyboardInterrupt, click.Abort):
        click.echo("skillc: interrupted", err=True)
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        code = report(error)
    sys.exit(code)


def run(argv: list[str] | None = None) -> int:
    """Run the command line; returns the verb's exit code and lets its errors out."""
    result = skillc.main(argv, prog_name="skillc", standalone_mode=False)
    return result if isinstance(result, int) else 0


def report(error: Exception) -> int:
    """Print `error` as one line on standard error; returns the exit code."""
    if isinstance(error, click.ClickException):
        message, code = error.format_message(), 2
        if isinstance(error, click.UsageError) and error.ctx is not None and "see '" not in message:
            message = f"{message.rstrip('.')} (see '{error.ctx.command_path} --help')"
    elif isinstance(error, SkillcError):
        message, code = str(error), error.exit_code
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        message, code = f"{where}{error.strerror or error}", 2
    else:
        message = f"unexpected {type(error).__name__}: {error} (SKILLC_DEBUG=1 shows where)"
        code = 2
    click.echo(f"skillc: error: {' '.join(message.split())}", err=True)
    return code
