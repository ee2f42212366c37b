"""Shell commands of many shapes; the shapes of the test split never occur in training."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from skillc_compiler.data.words import Words

Shape = Callable[[Words, random.Random, str, str], str]

_KUBE = ("rollout restart", "logs", "apply -f", "delete job")

# name is a script, target or task; flags is "" or begins with a space.
_TRAIN: dict[str, Shape] = {
    "make": lambda w, r, name, flags: f"make {name}{_assign(w, r)}",
    "just": lambda w, r, name, flags: f"just {name}{flags}",
    "npm": lambda w, r, name, flags: f"npm run {name}{' --' + flags if flags else ''}",
    "pnpm": lambda w, r, name, flags: f"pnpm {name}{flags}",
    "pnpm-filter": lambda w, r, name, flags: f"pnpm --filter @{w.word()}/{w.word()} {name}",
    "yarn": lambda w, r, name, flags: f"yarn {name}{flags}",
    "bin": lambda w, r, name, flags: f"./bin/{name}{flags}",
    "tools": lambda w, r, name, flags: f"./{w.word()}/{w.tool()} {name}{flags}",
    "scripts": lambda w, r, name, flags: f"./scripts/{name}.sh{flags}",
    "python": lambda w, r, name, flags: f"python {w.word()}/{name}.py{flags}",
    "python-m": lambda w, r, name, flags: f"python -m {w.word()}.{name.replace('-', '_')}{flags}",
    "manage": lambda w, r, name, flags: f"python manage.py {name.replace('-', '_')}{flags}",
    "uv": lambda w, r, name, flags: f"uv run {w.tool()} {name}{flags}",
    "nox": lambda w, r, name, flags: f"nox -s {name.replace('-', '_')}{flags}",
    "tool": lambda w, r, name, flags: f"{w.tool()} {name}{flags}",
    "tool-two": lambda w, r, name, flags: f"{w.tool()} {w.word()} {name}{flags}",
    "cargo": lambda w, r, name, flags: f"cargo xtask {name}{flags}",
    "go": lambda w, r, name, flags: f"go run ./cmd/{name}{flags}",
    "compose": lambda w, r, name, flags: f"docker compose -f {w.file()} run {name}",
    "kubectl": lambda w, r, name, flags: f"kubectl --context {w.word()} {r.choice(_KUBE)} {name}",
    "terraform": lambda w, r, name, flags: (
        f"terraform -chdir={w.directory()} {r.choice(('plan', 'apply'))} -var {name}={w.word()}"
    ),
    "pytest": lambda w, r, name, flags: (
        f"pytest {w.directory()} -m {name.replace('-', '_')}{flags}"
    ),
    "mix": lambda w, r, name, flags: f"mix {w.word()}.{name.replace('-', '_')}{flags}",
    "gradle": lambda w, r, name, flags: f"./gradlew :{w.word()}:{name}{flags}",
    "rake": lambda w, r, name, flags: f"bundle exec rake {w.word()}:{name}",
    "env": lambda w, r, name, flags: f"{w.joined('_', 1, 2).upper()}={w.word()} {w.tool()} {name}",
    "psql": lambda w, r, name, flags: f"psql -h {w.host()} -f {w.word()}/{name}.sql",
    "cargo-run": lambda w, r, name, flags: f"cargo run -p {w.word()}-{name} --release{flags}",
    "cargo-test": lambda w, r, name, flags: f"cargo test --test {name} -p {w.word()}{flags}",
    "nox-args": lambda w, r, name, flags: f"uv run nox -s {name}{' --' + flags if flags else ''}",
    "npx": lambda w, r, name, flags: f"npx {w.tool()} {name} {w.file()}{flags}",
    "turbo": lambda w, r, name, flags: f"pnpm turbo run {name} --filter={w.word()}{flags}",
    "exec": lambda w, r, name, flags: f"docker compose exec {w.word()} {w.tool()} {name}{flags}",
    "helm": lambda w, r, name, flags: (
        f"helm upgrade {w.word()} {w.directory()} -f {w.file()} --set {name}={w.word()}"
    ),
    "ssh": lambda w, r, name, flags: f"ssh {w.host()} {w.tool()} {name}{flags}",
    "pipe": lambda w, r, name, flags: f"{w.tool()} {name}{flags} | {w.tool()} --{w.word()}",
    "and": lambda w, r, name, flags: f"cd {w.directory()} && {w.tool()} {name}{flags}",
    "two": lambda w, r, name, flags: f"{w.tool()} {w.word()} && {w.tool()} {name}{flags}",
    "file": lambda w, r, name, flags: f"{w.tool()} {name} --config {w.file()}{flags}",
    "path": lambda w, r, name, flags: f"{w.tool()} {w.directory()}{name}{flags}",
    "git": lambda w, r, name, flags: f"git {w.tool()} {name}{flags}",
    "dotnet": lambda w, r, name, flags: f"dotnet run --project {w.word()}/{name}{flags}",
    "mvn": lambda w, r, name, flags: f"./mvnw -pl {w.word()} {name}:{w.word()}{flags}",
    "bazel": lambda w, r, name, flags: f"bazel run //{w.word()}/{w.word()}:{name}{flags}",
    "ruby": lambda w, r, name, flags: f"ruby {w.word()}/{name}.rb{flags}",
    "aws": lambda w, r, name, flags: f"aws s3 sync {w.directory()} s3://{w.word()}-{name}{flags}",
    "short": lambda w, r, name, flags: f"{w.tool()} -{r.choice('abcdefnprtvx')} {name}{flags}",
}  # fmt: skip
_TEST: dict[str, Shape] = {
    "task": lambda w, r, name, flags: f"task {w.word()}:{name}{flags}",
    "bash": lambda w, r, name, flags: f"bash {w.word()}/{name}.bash{flags}",
    "poetry": lambda w, r, name, flags: f"poetry run {name}{flags}",
    "node": lambda w, r, name, flags: f"node {w.word()}/{name}.mjs{flags}",
    "invoke": lambda w, r, name, flags: f"inv {w.word()}.{name}{flags}",
    "cmake": lambda w, r, name, flags: f"cmake --build {w.directory()} --target {name}",
    "dot": lambda w, r, name, flags: f"./{name}{flags}",
}


def _assign(words: Words, rng: random.Random) -> str:
    if rng.random() < 0.6:
        return ""
    return f" {words.word().upper()}={words.word() if rng.random() < 0.6 else words.number()}"


def shapes(split: str) -> list[Shape]:
    """The command shapes of a split: `train` and `val` share theirs, `test` has its own."""
    return list((_TEST if split == "test" else _TRAIN).values())


def house_shape(words: Words, rng: random.Random) -> Shape:
    """A project's own script, in front of each of its commands: `./tools/graft db up`."""
    name = words.invented()
    script = rng.choice((name, name, f"./{name}", f"./tools/{name}", f"bin/{name}", f"./{name}.sh"))
    topics = [words.word() for _ in range(3)]

    def shape(words: Words, rng: random.Random, name: str, flags: str) -> str:
        topic = f"{rng.choice(topics)} " if rng.random() < 0.4 else ""
        return f"{script} {topic}{name}{flags}"

    return shape


_PROGRAMS = (
    "make just npm pnpm yarn go cargo git docker kubectl helm python pytest uv nox ruff mypy ruby"
    " bundle rails mix dotnet mvn gradle bazel terraform ansible aws gcloud psql redis-cli curl jq"
    " rsync ssh sudo npx deno bun tox hatch pip php composer swift xcodebuild sbt clj opam cabal"
).split()
_AGAIN = 0.6  # share of projects whose names have the program's word in them
_FOLDERS = 0.3  # share of those whose names are paths
_JOINTS = ("-", "-", "_", ".", ":", "/", "::", "@", "+", "=", ",")


def wild_shape(words: Words, rng: random.Random) -> Shape:
    """Commands of no fixed shape that begin alike: any parts that a shell would take."""
    begins = [_program(words, rng)]
    begins += [_part(words, rng) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    again = _again(begins[0], rng)

    def shape(words: Words, rng: random.Random, name: str, flags: str) -> str:
        name = again(name)
        parts = [_part(words, rng) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4)))]
        parts.insert(rng.randint(0, len(parts)), name if rng.random() < 0.7 else _part(words, rng))
        head = begins[: rng.randint(1, len(begins))]
        return " ".join((*head, *parts)) + (flags if rng.random() < 0.3 else "")

    return shape


def alike_shape(words: Words, rng: random.Random) -> Shape:
    """Commands that share all that stands before their name, which may be several words."""
    program = _program(words, rng)
    begin = " ".join([program, *(_part(words, rng) for _ in range(rng.randint(0, 2)))])
    again = _again(program, rng)
    joint = rng.choice((" ", " ", " ", " ", "/", ":", ".", "-", " --"))

    folders = rng.random() < _FOLDERS

    def shape(words: Words, rng: random.Random, name: str, flags: str) -> str:
        folder = f"{words.word()}/" if folders else ""
        return f"{begin}{joint}{folder}{again(name)}{flags}"

    return shape


def _again(program: str, rng: random.Random) -> Callable[[str], str]:
    """What some projects make of their names: the program's own word stands in them once more.

    What follows that word is then not the same where the command begins and further on.
    """
    word = program.rpartition("/")[2].partition(".")[0]
    form = rng.choice(
        ("{name}.{word}", "{name}.{word}", "{word}/{name}", "{word}:{name}", "{name}-{word}")
    )
    said = form if rng.random() < _AGAIN else "{name}"
    return lambda name: said.format(name=name, word=word)


def _program(words: Words, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.35:
        return rng.choice(_PROGRAMS)
    if draw < 0.7:
        return words.tool()
    name = words.joined(rng.choice("-_"), 1, 2)
    return f"{words.directory()}/{name}" + rng.choice(("", "", ".sh", ".py", ".rb", ".ts"))


def _part(words: Words, rng: random.Random) -> str:
    """One argument: a word, a flag, a setting, a path, a number, something quoted."""
    word, joint = words.word, rng.choice(_JOINTS)
    make: tuple[Callable[[], str], ...] = (
        word,
        word,
        lambda: words.joined(joint),
        lambda: f"--{words.joined('-', 1, 3)}",
        lambda: f"--{words.joined('-', 1, 2)}",
        lambda: f"--{word()}={_plain(words, rng)}",
        lambda: f"--{words.joined('-', 1, 2)} {_plain(words, rng)}",
        lambda: f"-{rng.choice('abcdefghijklmnopqrstuvwxyzABDEFGILMNPRSTVX')}",
        lambda: f"-{rng.choice('cdfinoptCDP')} {_plain(words, rng)}",
        lambda: f"-{rng.choice('DPX')}{word()}={_plain(words, rng)}",
        lambda: f"{words.joined('_', 1, 2).upper()}={_plain(words, rng)}",
        words.file,
        words.directory,
        lambda: f"{words.directory()}/{rng.choice(('...', '*', '**', word()))}",
        lambda: "".join(word().capitalize() for _ in range(rng.choice((1, 2, 2, 3)))),
        lambda: f"{rng.choice(('@', ':', '//', '+', '.'))}{word()}{joint}{word()}",
        lambda: _plain(words, rng),
        lambda: f"{rng.choice(chr(34) + chr(39))}{word()} {word()}{joint}{word()}".replace(
            "=", " "
        ),
        lambda: rng.choice(("&&", "|", "--", "||", ">")) + f" {words.tool()}",
        lambda: f"{word()}[{word()}]" if rng.random() < 0.5 else f"{{{word()}: {words.number()}}}",
    )
    part = rng.choice(make)()
    return part + part[0] if part[0] in "\"'" else part


def _plain(words: Words, rng: random.Random) -> str:
    """The value of a flag."""
    draw = rng.random()
    if draw < 0.3:
        return words.number()
    if draw < 0.4:
        return words.version()
    if draw < 0.45:
        return words.date()
    if draw < 0.55:
        return words.number(1, 99) + rng.choice(("s", "m", "h", "%", "M", "GiB", "d", "x"))
    if draw < 0.65:
        return words.file()
    return words.joined(rng.choice("-_.,:/"), 1, 2)


def command(
    words: Words,
    rng: random.Random,
    shape: Shape,
    stems: Sequence[str],
    flags: Sequence[str],
) -> str:
    """One command; half the time its name hints at the purpose (`stems`), else it does not."""
    name = _name(words, rng, stems)
    return shape(words, rng, name, _flags(words, rng, flags))


def _name(words: Words, rng: random.Random, stems: Sequence[str]) -> str:
    if rng.random() < 0.5:
        return words.joined(rng.choice("-_"), 1, 2)
    stem = rng.choice(list(stems))
    if rng.random() < 0.35:
        return stem
    return rng.choice(
        (f"{stem}-{words.word()}", f"{words.word()}-{stem}", f"{stem}_{words.word()}")
    )


def _flags(words: Words, rng: random.Random, flags: Sequence[str]) -> str:
    picked: list[str] = []
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        if flags and rng.random() < 0.4:
            flag = rng.choice(list(flags))
        else:
            flag = "--" + words.joined("-", 1, 2)
            if rng.random() < 0.5:
                flag += rng.choice((" ", " ", "=")) + (
                    words.number() if rng.random() < 0.3 else words.joined("-", 1, 2)
                )
        if flag not in picked:
            picked.append(flag)
    return "".join(f" {flag}" for flag in picked)
