"""The demonstration: its client, its questions, and what it counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.plugin.chat_stub import chat_stub
from tests.plugin.project import Run, write_skill

from skillc import demo
from skillc.ask import Answer, ask, is_healthy
from skillc.demo import EXAMPLE, Asked, Question, read_questions
from skillc_compiler.errors import ProjectError, ServeError
from skillc_compiler.skill import read_skill

USER = [{"role": "user", "content": "How?"}]


def test_ask_streams_and_counts() -> None:
    with chat_stub(lambda body: "use ./tools/graft now") as (url, bodies):
        assert is_healthy(url)
        answer = ask(url, "nano:testing", USER)
    assert answer.text == "use ./tools/graft now "
    assert answer.prompt_tokens == 17
    assert 0 < answer.first_token_s < 5
    (body,) = bodies
    assert (body["model"], body["temperature"], body["stream"]) == ("nano:testing", 0, True)
    assert body["messages"] == USER
    assert answer.attached == {"testing": "adapter"}


@pytest.mark.parametrize(
    ("reply", "options", "problem"),
    [
        ((404, '{"error": {"message": "no such model"}}'), {}, "404: no such model"),
        ((500, "oops"), {}, "500: oops"),
        ("hello", {"usage": False}, "carries no usage"),
        ("hello", {"finish": False}, "broke off"),
    ],
)
def test_ask_says_what_went_wrong(reply: Any, options: dict[str, bool], problem: str) -> None:
    stub = chat_stub(lambda body: reply, **options)
    with stub as (url, _), pytest.raises(ServeError, match=problem):
        ask(url, "nano", USER)
    with pytest.raises(ServeError, match="refused"):
        ask(url, "nano", USER)
    assert not is_healthy(url)


@pytest.mark.parametrize(
    ("text", "obeyed"),
    [
        ("Run `./tools/graft test --fast`.", True),
        ("./tools/graft  test\n--fast", True),
        ("./tools/graft test", False),
        ("", False),
    ],
)
def test_obeyed(text: str, obeyed: bool) -> None:
    question = Question("testing", "How?", "./tools/graft test --fast")
    assert Asked(question, "text", Answer(text, 1, 0.1)).obeyed is obeyed
    by_adapter = Answer(text, 1, 0.1, {"testing": "adapter"})
    assert Asked(question, "adapter", by_adapter).obeyed is obeyed
    for attached in ({}, {"testing": "text"}, {"other": "adapter"}):
        assert not Asked(question, "adapter", Answer(text, 1, 0.1, attached)).obeyed


def test_the_example_is_complete() -> None:
    """At least five skills; each question's answer stands in its own skill and in no other."""
    texts = {path.parent.name: read_skill(path).text for path in EXAMPLE.glob(".skills/*/SKILL.md")}
    assert len(texts) >= 5
    questions = read_questions(EXAMPLE / "questions.json", every=True)
    assert {question.skill for question in questions} == set(texts)
    for question in questions:
        assert len(question.expect) < 60
        holders = [name for name, text in texts.items() if question.expect in text]
        assert holders == [question.skill], question
    first = read_questions(EXAMPLE / "questions.json", every=False)
    assert [question.skill for question in first] == list(dict.fromkeys(q.skill for q in questions))
    for text in texts.values():
        assert 60 <= len(text.split()) <= 250


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "holds no question"),
        ("{}", "holds no question"),
        ("[1]", "must be a list"),
        ('[{"skill": "a"}]', "must be a list"),
        ("[", "must be a list"),
        (None, "a demo needs questions"),
    ],
)
def test_wrong_questions(text: str | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    if text is not None:
        path.write_text(text, "utf-8")
    with pytest.raises(ProjectError, match=problem):
        read_questions(path, every=True)


@pytest.fixture
def served(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The demo with a stub for the server and no build; maps a model to its answer."""
    answers: dict[str, str] = {}

    @contextmanager
    def serving(project: Path, log: Path, options: Sequence[str] = ()) -> Iterator[str]:
        assert project == root
        with chat_stub(lambda body: answers.get(body["model"], "I do not know")) as (url, _):
            yield url

    monkeypatch.setattr(demo, "serving", serving)
    monkeypatch.setattr(demo, "run_build", lambda folder: 0.5)
    write_skill(root, "testing")
    write_skill(root, "deploy")
    records = [
        {"skill": "testing", "ask": "How do I test?", "expect": "./tools/testing --fast"},
        {"skill": "deploy", "ask": "How do I deploy?", "expect": "./tools/deploy --fast"},
        {"skill": "deploy", "ask": "When not?", "expect": "Friday"},
    ]
    (root / "questions.json").write_text(json.dumps(records), "utf-8")
    yield answers


def test_demo_counts_what_obeyed(root: Path, served: dict[str, str], run: Run) -> None:
    served["tiny:testing"] = "run ./tools/testing --fast"
    done = run("demo", "--project", root, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["arms"]["adapter"]["obeyed"] == 1
    assert record["arms"]["none"] == record["arms"]["none"] | {"obeyed": 0, "asked": 2}
    assert [answer["arm"] for answer in record["answers"]] == ["none", "text", "adapter"] * 2
    assert len(json.loads(run("demo", "--project", root, "--all", "--json").out)["answers"]) == 9


def test_demo_prints_a_table(root: Path, served: dict[str, str], run: Run) -> None:
    served["tiny:testing"] = "run ./tools/testing --fast"
    done = run("demo", "--project", root)
    assert "How do I test?" in done.out
    assert "adapter  1 of 2 obeyed, 17 prompt tokens on average" in done.out


def test_demo_fails_when_no_adapter_obeys(root: Path, served: dict[str, str], run: Run) -> None:
    served["tiny"] = "./tools/testing --fast ./tools/deploy --fast"
    done = run("demo", "--project", root)
    assert done.code == 1


def test_demo_with_a_question_about_no_skill(root: Path, served: dict[str, str], run: Run) -> None:
    shutil.rmtree(root / ".skills" / "deploy")
    done = run("demo", "--project", root)
    assert done.code == 2
    assert "questions.json: no skill 'deploy'" in done.err


def test_demo_when_the_build_fails(root: Path, run: Run) -> None:
    (root / "questions.json").write_text('[{"skill": "a", "ask": "b", "expect": "c"}]', "utf-8")
    done = run("demo", "--project", root)
    assert done.code == 2
    assert done.err.splitlines()[-1] == "skillc: error: skillc build ended with 2"
