"""`skillc init opencode`: make OpenCode use the compiled skills, or no longer."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from skillc import opencode
from skillc.cli import Start
from skillc.jsonc import JsoncError
from skillc.opencode import Place, Record
from skillc.project import Project
from skillc_compiler.bases import DEFAULT_BASE, Base, find_base
from skillc_compiler.errors import ProjectError
from skillc_runtime.settings import DEFAULT_HOST, DEFAULT_PORT, served_context

URL = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}/v1"


@click.command("opencode")
@click.option("--global", "for_user", is_flag=True, help="For all projects: ~/.config/opencode.")
@click.option("--print", "only_print", is_flag=True, help="Print the configuration, write nothing.")
@click.option("--remove", is_flag=True, help="Take out what this command wrote.")
@click.option("--offline", is_flag=True, help="Keep OpenCode from waiting for npm at each start.")
@click.option(
    "--ctx",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens of context that 'skillc serve --ctx N' gives.  [default: what it gives without]",
)
@click.option("--url", default=URL, show_default=True, help="Where the server listens.")
@click.pass_obj
def command(
    start: Start,
    *,
    for_user: bool,
    only_print: bool,
    remove: bool,
    offline: bool,
    ctx: int | None,
    url: str,
) -> int:
    """Make OpenCode use the compiled skills.

    Adds the provider, the slim agent and the plugin to opencode.json and shows the difference.
    Comments and other keys stay; nothing that was not written by this command is changed.
    """
    from skillc_compiler.gguf_base import read_base_info

    project = None if for_user else Project.find(start.folder)
    place = Place.of_user() if project is None else project_place(project, only_print)
    shown = Project.at(project.root).shorten if project else str
    if remove:
        lines = take_out(place, only_print=only_print)
    else:
        base = find_base(project.settings.base if project else DEFAULT_BASE)
        context = served_context(read_base_info(base.gguf).context_length, ctx)
        lines = put_in(place, base, context, url, fresh=project is not None, only_print=only_print)
    for line in lines:
        click.echo(shown(line))
    if offline and not only_print:
        click.echo(stay_offline(opencode.user_folder(), remove=remove))
    return 0


def project_place(project: Project, only_print: bool) -> Place:
    state = project.state if only_print else project.make_state()
    return Place.of_project(project.root, state)


def put_in(
    place: Place, base: Base, context: int, url: str, *, fresh: bool, only_print: bool
) -> Iterator[str]:
    """Write configuration and plugin; the lines that say so."""
    record = opencode.load_record(place.record)
    before = read(place.config)
    try:
        # What the user has written since the last time is not to be lost by --remove.
        original = opencode.without(before, record)[0] if before and record.entries else before
        fresh = fresh and original is None
        wanted = list(opencode.entries(place, base.name, context, url, fresh=fresh))
        merged = opencode.merge("{}\n" if before is None else before, wanted, record)
    except JsoncError as error:
        raise ProjectError(f"{place.config}: {error}: mend it, then run this again") from error
    if only_print:
        yield merged.text.rstrip("\n")
        return
    put_plugin(place)
    place.config.parent.mkdir(parents=True, exist_ok=True)
    opencode.dump_record(place.record, Record(original, merged.text, list(merged.entries)))
    if merged.text == before:
        yield f"{place.config} is up to date"
    else:
        yield from diff(place.config, before or "", merged.text)
        place.config.write_text(merged.text, "utf-8")
    for name in merged.kept:
        yield f"{place.config}: {name} is there already and is not skillc's: left as it is"
    yield "next: 'skillc build', 'skillc serve', then 'opencode' (agent slim)"


def put_plugin(place: Place) -> None:
    """Copy the plugin's files; ProjectError for one that is there and was not written by skillc."""
    copies = {
        opencode.plugin_source() / name: place.plugin / name for name in opencode.PLUGIN_FILES
    }
    if not place.record.is_file():
        for source, target in copies.items():
            if target.exists() and target.read_bytes() != source.read_bytes():
                raise ProjectError(f"{target}: is not skillc's: move it away, then run this again")
    place.plugin.mkdir(parents=True, exist_ok=True)
    for source, target in copies.items():
        shutil.copyfile(source, target)


def take_out(place: Place, *, only_print: bool) -> Iterator[str]:
    """Undo `put_in`; the lines that say so, or the configuration that would be left."""
    record, before = opencode.load_record(place.record), read(place.config)
    if not record.entries:
        yield f"{place.config}: nothing in it was written by skillc"
    elif before is not None:
        try:
            text, kept = opencode.without(before, record)
        except JsoncError as error:
            raise ProjectError(f"{place.config}: {error}: mend it, then run this again") from error
        if only_print:
            yield (text or "").rstrip("\n")
        else:
            yield from write_back(place.config, before, text, kept)
    if place.record.is_file() and not only_print:
        for name in (*opencode.PLUGIN_FILES, opencode.RECORD):
            (place.plugin / name).unlink(missing_ok=True)
        if not any(place.plugin.iterdir()):
            place.plugin.rmdir()


def write_back(path: Path, before: str, text: str | None, kept: Sequence[str]) -> Iterator[str]:
    """Leave `text` at `path`, nothing for None; the lines that say so."""
    yield from diff(path, before, text or "")
    if text is None:
        path.unlink()
    else:
        path.write_text(text, "utf-8")
    for name in kept:
        yield f"{path}: {name} was changed since: left as it is"


def stay_offline(folder: Path, *, remove: bool) -> str:
    """Tell OpenCode that what it installs into `folder` is there, or no longer.

    With any plugin it waits at each start until npm has installed `@opencode-ai/plugin`, without a
    network over a minute.
    """
    lock, modules = folder / "package-lock.json", folder / "node_modules"
    ours = lock.is_file() and lock.read_text("utf-8", errors="replace") == opencode.STUB
    if remove:
        if ours:
            lock.unlink()
            if modules.is_dir() and not any(modules.iterdir()):
                modules.rmdir()
        return f"{lock}: {'deleted' if ours else 'not written by skillc: left as it is'}"
    if not ours and any(path.exists() for path in (lock, modules, folder / "package.json")):
        return f"{folder}: has packages of its own: left as it is"
    modules.mkdir(parents=True, exist_ok=True)
    lock.write_text(opencode.STUB, "utf-8")
    return f"wrote {lock}: OpenCode starts without asking npm"


def read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path}: is not UTF-8: mend it, then run this again") from error


def diff(path: Path, before: str, after: str) -> Iterator[str]:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(path), str(path), lineterm="", n=1
    )
    yield from lines
