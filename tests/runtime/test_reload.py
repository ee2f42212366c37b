"""A project that changes, or breaks, while it is served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder, chat, wait_for
from tests.runtime.test_load import Held

from skillc_compiler.lock import LockedBase
from skillc_runtime.server import running
from skillc_runtime.skill_set import SkillSet


def test_changed_skill_is_served_from_the_next_request_on(
    client: Client, project: ProjectFolder
) -> None:
    seen = []
    for seed in (11, 12, 11):
        project.add("deploy", seed)
        entry = client.chat(chat("tiny:deploy")).json["skillc"]["attached"][0]
        assert entry["hash"] == project.store.open(project.locked["deploy"].key).sha256
        seen.append(client.text(chat("tiny:deploy")))
    assert seen[0] == seen[2] != seen[1]


def test_what_runs_goes_on_with_the_adapter_that_it_began_with(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both answers are bit for bit what a new server says; the lock changes between them."""
    body = chat("tiny:deploy", max_tokens=12, logprobs=True, top_logprobs=20)

    def cold() -> Any:
        with running(settings_for(project)) as server:
            return Client(server).chat(body).json

    old = cold()
    project.add("deploy", 12)
    new = cold()
    project.add("deploy", 1)
    with running(settings_for(project)) as server, ThreadPoolExecutor(2) as clients:
        client = Client(server)
        with monkeypatch.context() as patch:
            held = Held(server.worker, patch, at_once=2)
            first = clients.submit(client.chat, body)
            wait_for(lambda: held.started == 1)
            project.add("deploy", 12)
            second = clients.submit(client.chat, body)
            wait_for(lambda: held.started == 2)
            held.let_go.set()
            replies = [first.result().json, second.result().json]
    for reply, alone in zip(replies, (old, new), strict=True):
        assert reply["choices"] == alone["choices"]
        assert reply["skillc"]["attached"] == alone["skillc"]["attached"]
    assert old["choices"] != new["choices"]


def test_changed_lock_changes_what_there_is(client: Client, project: ProjectFolder) -> None:
    assert client.chat(chat("tiny:deploy")).status == 200
    project.remove("deploy")
    assert client.chat(chat("tiny:deploy")).status == 404
    project.add("fresh", 21)
    assert client.chat(chat("tiny:fresh")).status == 200
    project.lock_path.unlink()
    assert client.chat(chat("tiny:style")).status == 404
    assert client.chat(chat("tiny")).status == 200


def test_text_that_changed_since_the_build_is_refused(
    client: Client, project: ProjectFolder
) -> None:
    project.add("rules", 5, "text")
    path = project.root / ".skills" / "rules" / "SKILL.md"
    path.write_text(path.read_text("utf-8") + "\nmore\n", "utf-8")
    reply = client.chat(chat("tiny:rules"))
    assert reply.status == 503
    assert "changed since the build" in reply.error["message"]


@pytest.mark.parametrize("damage", ["bytes", "missing", "truncated"])
def test_damaged_adapter_is_refused_and_others_go_on(
    client: Client, project: ProjectFolder, damage: str
) -> None:
    path = project.gguf("deploy")
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data if damage == "bytes" else data[:-40])
    reply = client.chat(chat("tiny:deploy"))
    assert (reply.status, reply.error["code"]) == (503, "skill_unusable")
    assert client.chat(chat("tiny:deploy+style")).status == 503
    assert client.chat(chat("tiny:style")).status == 200
    health = client.send("/health")
    assert (health.status, health.json["status"]) == (200, "degraded")
    assert list(health.json["problems"]) == ["deploy"]
    project.add("deploy", 1)
    assert client.chat(chat("tiny:deploy")).status == 200
    assert client.send("/health").json["status"] == "ok"


def test_broken_lock_stops_skills_but_not_the_base(client: Client, project: ProjectFolder) -> None:
    project.lock_path.write_text("<<<<<<< ours\n", "utf-8")
    reply = client.chat(chat("tiny:deploy"))
    assert reply.status == 503
    assert "merge conflict" in reply.error["message"]
    assert client.chat(chat("tiny")).status == 200
    assert client.send("/health").json["status"] == "degraded"


def test_lock_of_another_base_is_refused(client: Client, project: ProjectFolder) -> None:
    project.write_lock(base=LockedBase("tiny", "d" * 64))
    reply = client.chat(chat("tiny:deploy"))
    assert reply.status == 503
    assert "built for another base" in reply.error["message"]


def test_adapter_that_goes_missing_after_it_was_checked_can_come_back(
    client: Client, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = client.server.registry.resolve

    def resolved_and_lost(*args: Any) -> SkillSet:
        found = resolve(*args)
        project.store.remove(project.locked["deploy"].key)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(client.server.registry, "resolve", resolved_and_lost)
        assert client.chat(chat("tiny:deploy")).error["code"] == "skill_unusable"
    project.add("deploy", 1)
    assert client.chat(chat("tiny:deploy")).status == 200


def test_adapter_that_gives_nan_is_refused_for_good(
    client: Client, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But asking for it at a scale that is too much does not take it from others."""
    context = client.server.worker.engine.context
    nan = np.full(client.server.worker.engine.model.vocab.size, np.nan, np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(context, "row", lambda index: nan)
        assert client.chat(chat("tiny:deploy@9")).error["code"] == "skill_unusable"
    assert client.chat(chat("tiny:deploy@9")).status == 503
    assert client.chat(chat("tiny:deploy")).status == 200
    with monkeypatch.context() as patch:
        patch.setattr(context, "row", lambda index: nan)
        assert client.chat(chat("tiny:style")).status == 503
    assert "computes NaN" in client.chat(chat("tiny:style")).error["message"]
    assert list(client.send("/health").json["problems"]) == ["style"]
    assert client.chat(chat("tiny:deploy")).status == 200
