"""The demonstration: build and serve a project, ask its questions in three arms, compare."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillc.ask import Answer, Message, ask
from skillc.project import STATE_FOLDER, Project
from skillc.server_process import serving
from skillc_compiler.errors import ProjectError, SkillcError

ARMS = ("none", "text", "adapter")
QUESTIONS_FILE = "questions.json"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "orchard"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one skill, and the string that an obedient answer contains."""

    skill: str
    ask: str
    expect: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What one arm answered to one question."""

    question: Question
    arm: str
    answer: Answer

    @property
    def served_as(self) -> str:
        """How the server served the skill: "adapter", "text", or "" when nothing was attached."""
        return self.answer.attached.get(self.question.skill, "")

    @property
    def obeyed(self) -> bool:
        """Whether the expected string is in the answer, runs of white space aside.

        In the arm "adapter" only what an adapter said counts: a skill whose verdict is "text" was
        answered from its text.
        """
        if self.arm == "adapter" and self.served_as != "adapter":
            return False
        return " ".join(self.question.expect.split()) in " ".join(self.answer.text.split())


@dataclass(frozen=True, slots=True)
class DemoReport:
    """All answers, with the seconds that the build and the whole demonstration took."""

    asked: tuple[Asked, ...]
    build_seconds: float
    seconds: float

    def of(self, arm: str) -> list[Asked]:
        return [one for one in self.asked if one.arm == arm]

    def obeyed(self, arm: str) -> int:
        return sum(one.obeyed for one in self.of(arm))

    def prompt_tokens(self, arm: str) -> float:
        """The mean number of prompt tokens."""
        return statistics.fmean(one.answer.prompt_tokens for one in self.of(arm))

    def first_token_s(self, arm: str) -> float:
        """The median number of seconds to the first token."""
        return statistics.median(one.answer.first_token_s for one in self.of(arm))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        arms = {
            arm: {
                "obeyed": self.obeyed(arm),
                "asked": len(self.of(arm)),
                "prompt_tokens_mean": round(self.prompt_tokens(arm), 1),
                "first_token_ms_median": round(self.first_token_s(arm) * 1000, 1),
            }
            for arm in ARMS
        }
        answers = [
            {
                "skill": one.question.skill,
                "ask": one.question.ask,
                "expect": one.question.expect,
                "arm": one.arm,
                "answer": one.answer.text,
                "served_as": one.served_as or None,
                "obeyed": one.obeyed,
                "prompt_tokens": one.answer.prompt_tokens,
                "first_token_ms": round(one.answer.first_token_s * 1000, 1),
            }
            for one in self.asked
        ]
        return {
            "arms": arms,
            "answers": answers,
            "build_seconds": round(self.build_seconds, 2),
            "seconds": round(self.seconds, 2),
        }


def run_demo(project: Path | None, *, every: bool, say: Say) -> DemoReport:
    """Build and serve `project` (a copy of the example when None) and ask its questions.

    One question a skill, or all of them with `every`. Raises SkillcError.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="skillc-demo-") as scratch:
        root = copy_example(Path(scratch)) if project is None else project.resolve()
        questions = read_questions(root / QUESTIONS_FILE, every=every)
        say("building the skills")
        build_seconds = run_build(root)
        say("starting the server")
        with serving(root, Path(scratch) / "serve.log") as url:
            say(f"asking {len(questions)} questions in {len(ARMS)} arms at {url}")
            # The first request of all pays for what every later one finds done.
            ask(url, Project.at(root).settings.base, [{"role": "user", "content": "Hello"}])
            asked = tuple(ask_all(url, Project.at(root), questions))
    return DemoReport(asked, build_seconds, time.perf_counter() - started)


def copy_example(scratch: Path) -> Path:
    if not EXAMPLE.is_dir():
        raise ProjectError(
            "the example project is not part of this installation: "
            "run this in a clone of the repository, or name one with --project"
        )
    ignore = shutil.ignore_patterns(STATE_FOLDER, "skillc.lock", "__pycache__")
    return Path(shutil.copytree(EXAMPLE, scratch / EXAMPLE.name, ignore=ignore))


def read_questions(path: Path, *, every: bool) -> list[Question]:
    """The questions in the JSON list at `path`: the first of each skill, or all with `every`."""
    try:
        records = json.loads(path.read_text("utf-8"))
        questions = [Question(r["skill"], r["ask"], r["expect"]) for r in records]
    except OSError as error:
        raise ProjectError(f"{path}: {error.strerror}: a demo needs questions") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectError(
            f'{path}: must be a list of {{"skill", "ask", "expect"}}: {error!r}'
        ) from error
    if not questions:
        raise ProjectError(f"{path}: holds no question")
    if every:
        return questions
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.skill, question)
    return list(first.values())


def run_build(root: Path) -> float:
    """Run `skillc build` as a user would; seconds it took, SkillcError when it failed."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "skillc", "-C", str(root), "build"]
    # Its output goes to our standard error: standard output is for the result.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False)
    if done.returncode not in (0, 1):
        raise SkillcError(f"skillc build ended with {done.returncode}")
    return time.perf_counter() - started


def ask_all(url: str, project: Project, questions: Sequence[Question]) -> Iterator[Asked]:
    """Ask every question in every arm, each prompt for the first time."""
    base = project.settings.base
    texts = skill_texts(project)
    for question in questions:
        if question.skill not in texts:
            raise ProjectError(f"{QUESTIONS_FILE}: no skill '{question.skill}' in {project.root}")
        user: Message = {"role": "user", "content": question.ask}
        system: Message = {"role": "system", "content": texts[question.skill]}
        prompts: dict[str, tuple[str, list[Message]]] = {
            "none": (base, [user]),
            "text": (base, [system, user]),
            "adapter": (f"{base}:{question.skill}", [user]),
        }
        for arm in ARMS:
            model, messages = prompts[arm]
            yield Asked(question, arm, ask(url, model, messages))


def skill_texts(project: Project) -> dict[str, str]:
    from skillc_compiler.skill import read_skill

    skills = [read_skill(found.path) for found in project.found(lambda problem: None)]
    return {skill.name: skill.text for skill in skills}
