"""`serve --upstream`: naming, verdicts and elision in front of a stub of vLLM's API."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.runtime.conftest import Client, Reply, fill, settings_for
from tests.runtime.support import ProjectFolder, random_adapter
from tests.runtime.vllm_stub import BASE, Vllm, vllm

from skillc_compiler.adapter import LoraPair, load_peft
from skillc_compiler.errors import ServeError
from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.lock import Lock
from skillc_compiler.skill import read_skill
from skillc_compiler.store import Store
from skillc_runtime.registry import Registry
from skillc_runtime.server import running
from skillc_runtime.upstream_adapters import joined
from skillc_runtime.upstream_server import UpstreamServer, running_upstream, serve_upstream
from skillc_runtime.upstream_settings import UpstreamSettings

USER = [{"role": "user", "content": "How do I do it?"}]
LONG = "Say it word for word, every single time, and never leave out the part that follows here: "


@pytest.fixture
def project(base: BaseInfo, tmp_path: Path) -> ProjectFolder:
    return fill(ProjectFolder(tmp_path, base))


def settings(project: ProjectFolder, stub: Vllm, **changes: Any) -> UpstreamSettings:
    values = {
        "base": project.base.path,
        "name": "tiny",
        "project": project.root,
        "url": stub.url,
        "folder": project.root / "loras",
        "port": 0,
    }
    return UpstreamSettings(**{**values, **changes})


@contextmanager
def front(project: ProjectFolder, stub: Vllm, **changes: Any) -> Iterator[Client]:
    with running_upstream(settings(project, stub, **changes)) as server:
        yield Client(server)  # type: ignore[arg-type]


def ask(client: Client, model: str, **more: Any) -> Reply:
    return client.chat({"model": model, "messages": USER, **more})


def stored(project: ProjectFolder, name: str) -> Any:
    lock = Lock.load(project.root / "skillc.lock")
    return Store(project.root / ".skillc" / "store").open(lock.skills[name].key)


def test_a_skill_is_loaded_once_and_answers(project: ProjectFolder) -> None:
    with vllm() as stub, front(project, stub) as client:
        reply = ask(client, "tiny:deploy", temperature=0, tools=[])
        assert reply.status == 200
        (name,) = stub.loaded
        assert reply.json["choices"][0]["message"]["content"] == f"answered by {name}"
        assert reply.json["model"] == "tiny:deploy"
        (attached,) = reply.json["skillc"]["attached"]
        assert (attached["name"], attached["as"]) == ("deploy", "adapter")
        assert attached["hash"] == stored(project, "deploy").sha256
        assert reply.headers["X-Skillc-Attached"].startswith("deploy@1;as=adapter;hash=")
        assert stub.asked == [{"model": name, "messages": USER, "temperature": 0, "tools": []}]
        made, wanted = load_peft(stub.loaded[name]), stored(project, "deploy").adapter()
        for module in wanted.pairs:
            assert np.allclose(made.delta(module), wanted.delta(module), atol=1e-5)
        ask(client, "deploy")
        assert [path for path, _ in stub.calls].count("/v1/load_lora_adapter") == 1
        folder = stub.loaded[name]
    # What was loaded is taken back at the end.
    assert stub.loaded == {} and not folder.exists()


def test_the_base_and_what_is_not_there(project: ProjectFolder) -> None:
    with vllm() as stub, front(project, stub) as client:
        reply = ask(client, "tiny")
        assert reply.json["choices"][0]["message"]["content"] == f"answered by {BASE}"
        assert reply.json["skillc"] == {"attached": [], "tokens_elided": 0}
        assert reply.headers["X-Skillc-Attached"] == "none"
        assert ask(client, "tiny:nothing").error["code"] == "model_not_found"
        assert ask(client, "tiny:broken-idea").status == 409
        assert ask(client, BASE).status == 404
        assert len(stub.calls) == 1


def test_a_skill_served_as_text_goes_into_the_system_message(project: ProjectFolder) -> None:
    text = read_skill(project.root / ".skills" / "notes").text
    with vllm() as stub, front(project, stub) as client:
        reply = ask(client, "tiny:notes")
        assert reply.json["skillc"]["attached"][0]["as"] == "text"
        assert stub.asked[0]["model"] == BASE
        assert stub.asked[0]["messages"] == [{"role": "system", "content": text}, *USER]
        own = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *USER]
        client.chat({"model": "tiny:notes", "messages": own})
        assert stub.asked[1]["messages"] == [{"role": "system", "content": text}, *own]
        plain = client.send("/v1/completions", {"model": "tiny:notes", "prompt": "a"})
        assert plain.error["code"] == "skill_needs_chat"


def test_a_set_is_one_adapter_at_its_scales(project: ProjectFolder) -> None:
    with vllm() as stub, front(project, stub) as client:
        reply = ask(client, "tiny:deploy@0.5+style@-2")
        assert [one["scale"] for one in reply.json["skillc"]["attached"]] == [0.5, -2.0]
        (path,) = stub.loaded.values()
        made = load_peft(path)
        parts = [
            (stored(project, "deploy").adapter(), 0.5),
            (stored(project, "style").adapter(), -2),
        ]
        for module in made.pairs:
            wanted = sum(scale * part.delta(module) for part, scale in parts)
            assert np.allclose(made.delta(module), wanted, atol=1e-4)
        ask(client, "tiny:style@-2+deploy@0.5")
        assert len(stub.loaded) == 2


def test_parts_of_other_modules_and_ranks_are_padded(base: BaseInfo) -> None:
    one, two = random_adapter(base, 1), random_adapter(base, 2)
    module, other = sorted(two.pairs)[:2]
    small = LoraPair(two.pairs[module].a[:2], two.pairs[module].b[:, :2])
    odd = type(two)({module: small}, 6.0, two.manifest)
    made = joined([(one, 1.0), (odd, 0.5)])
    assert {pair.rank for pair in made.pairs.values()} == {6} and made.alpha == 6.0
    assert np.allclose(made.delta(other), one.delta(other), atol=1e-5)
    wanted = one.delta(module) + 0.5 * odd.delta(module)
    assert np.allclose(made.delta(module), wanted, atol=1e-5)


def test_texts_in_the_messages_become_adapters(project: ProjectFolder) -> None:
    folder = project.root / ".skills" / "deploy"
    body = read_skill(folder).body
    block = f'<skill_content name="deploy">\n# Skill: deploy\n\n{body}\n</skill_content>'
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    messages = [*USER, image, call, {"role": "tool", "tool_call_id": "1", "content": block}]
    with vllm() as stub, front(project, stub) as client:
        reply = client.chat({"model": "tiny", "messages": messages})
        assert [one["name"] for one in reply.json["skillc"]["attached"]] == ["deploy"]
        assert reply.json["skillc"]["tokens_elided"] > 0
        sent = stub.asked[0]["messages"]
        assert sent[:3] == messages[:3]
        assert sent[3]["tool_call_id"] == "1" and "[skill deploy is active]" in sent[3]["content"]
        assert body not in sent[3]["content"]
        off = client.send(
            "/v1/chat/completions",
            {"model": "tiny", "messages": messages},
            {"X-Skillc-Elide": "off", "Content-Type": "application/json"},
        )
        assert off.json["skillc"]["attached"] == [] and stub.asked[1]["messages"] == messages


def test_streams_keep_their_form(project: ProjectFolder) -> None:
    with vllm() as stub, front(project, stub) as client:
        reply = ask(client, "tiny:deploy", stream=True)
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        events = reply.events
        (name,) = stub.loaded
        words = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
        assert "".join(words).strip() == f"answered by {name}"
        assert {event["model"] for event in events} == {"tiny:deploy"}
        told = [event["skillc"]["attached"][0]["name"] for event in events if "skillc" in event]
        assert told == ["deploy", "deploy"]


def test_an_adapter_that_the_upstream_lost_is_loaded_again(project: ProjectFolder) -> None:
    with vllm() as stub, front(project, stub) as client:
        ask(client, "tiny:deploy")
        (name,) = stub.loaded
        stub.loaded.clear()
        assert ask(client, "tiny:deploy").status == 200
        assert list(stub.loaded) == [name]


def test_only_so_many_stay_loaded(project: ProjectFolder) -> None:
    with vllm() as stub, front(project, stub, max_adapters=2) as client:
        for model in ("tiny:deploy", "tiny:style", "tiny:deploy", "tiny:deploy@0.5"):
            assert ask(client, model).status == 200
        first, last = stub.asked[0]["model"], stub.asked[3]["model"]
        assert set(stub.loaded) == {first, last}
        assert {path.name for path in (project.root / "loras").iterdir()} == {first, last}


def test_what_the_upstream_says_is_passed_on(project: ProjectFolder) -> None:
    with vllm(most_rank=2) as stub, front(project, stub) as client:
        refused = ask(client, "tiny:deploy")
        assert (refused.status, refused.error["code"]) == (502, "upstream_refused")
        assert "greater than max_lora_rank" in refused.error["message"]
        wrong = ask(client, "tiny", temperature=9)
        assert (wrong.status, wrong.error["message"]) == (400, "temperature must be at most 2")
        stub.updating = False
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in ask(client, "tiny:deploy").error["message"]


def test_an_upstream_that_is_gone(project: ProjectFolder) -> None:
    with vllm() as stub, front(project, stub) as client:
        assert client.send("/health").json["status"] == "ok"
        url = stub.url
        stub_settings = settings(project, stub)
    with (
        pytest.raises(ServeError, match=f"{url} cannot be reached"),
        running_upstream(stub_settings),
    ):
        pass


def test_a_broken_connection_is_a_502(project: ProjectFolder) -> None:
    with vllm() as stub:
        context = front(project, stub)
        client = context.__enter__()
    try:
        assert ask(client, "tiny").error["code"] == "upstream_unreachable"
        health = client.send("/health")
        assert (health.status, health.json["status"]) == (503, "failed")
    finally:
        context.__exit__(None, None, None)


def test_the_base_is_found_by_its_name(project: ProjectFolder) -> None:
    with vllm(key="secret") as stub:
        with pytest.raises(ServeError, match=r"lists no models \(401\)"), front(project, stub):
            pass
        with (
            pytest.raises(ServeError, match="serves no 'other'"),
            front(project, stub, key="secret", model="other"),
        ):
            pass
        with front(project, stub, key="secret", model=BASE, token="mine") as client:
            assert ask(client, "tiny").status == 401
            headers = {"Authorization": "Bearer mine"}
            models = client.send("/v1/models", headers=headers).json["data"]
            names = ["tiny", "tiny:deploy", "tiny:notes", "tiny:style"]
            assert [model["id"] for model in models] == names
            one = client.send("/v1/models/tiny:deploy", headers=headers).json
            assert one["parent"] == "tiny"
            skills = client.send("/v1/skills", headers=headers).json["data"]
            assert {s["name"]: s["verdict"] for s in skills}["broken-idea"] == "off"
            assert client.send("/v1/none", headers=headers).status == 404


def test_models_and_skills_are_listed_as_by_the_other_server(project: ProjectFolder) -> None:
    found = []
    with vllm() as stub, front(project, stub) as client, running(settings_for(project)) as own:
        for name in ("deploy", "style"):  # an adapter's hash is known once it has been opened
            ask(client, name)
        for asked in (client, Client(own)):
            skills = asked.send("/v1/skills").json["data"]
            models = asked.send("/v1/models").json["data"]
            found.append((skills, [{**model, "created": 0} for model in models]))
    assert found[0] == found[1]
    (deploy,) = (skill for skill in found[0][0] if skill["name"] == "deploy")
    path = project.root / ".skills" / "deploy" / "SKILL.md"
    assert deploy["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_failures_are_answered_as_by_the_other_server(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(registry: Registry) -> None:
        raise ZeroDivisionError("secret")

    with vllm() as stub, front(project, stub) as client, running(settings_for(project)) as own:
        monkeypatch.setattr(Registry, "problems", broken)
        for asked in (client, Client(own)):
            bug = asked.send("/v1/skills")
            assert (bug.status, bug.error["message"]) == (500, "internal error")
            other = asked.send("/v1/messages/count_tokens/more", {})
            assert (other.status, other.error["code"]) == (404, "no_such_endpoint")
            method = asked.send("/v1/models", {})
            assert method.status == 405
            assert set(method.headers["Allow"].split(", ")) == {"GET", "HEAD"}
        lost = client.send("/v1/messages", {})
        assert (lost.status, lost.json["error"]["type"]) == (404, "not_found_error")
        assert lost.json["type"] == "error"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(project: ProjectFolder, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    statuses: list[int] = []

    def ask_and_end(url: str) -> None:
        with urllib.request.urlopen(url + "/health", timeout=60) as answer:
            statuses.append(answer.status)
        os.kill(os.getpid(), number)

    def ready(url: str) -> None:
        threads.append(threading.Thread(target=ask_and_end, args=(url,)))
        threads[0].start()

    threads: list[threading.Thread] = []
    with vllm() as stub:
        serve_upstream(settings(project, stub), ready)
    threads[0].join()
    assert statuses == [200] and signal.getsignal(number) == before


def test_without_a_key_it_is_not_open_to_others(project: ProjectFolder) -> None:
    with vllm() as stub, pytest.raises(ServeError, match=r"0\.0\.0\.0 is open to others"):
        UpstreamServer(settings(project, stub, host="0.0.0.0"))


def test_answers_are_json_lines_of_one_object(project: ProjectFolder) -> None:
    with vllm() as stub, front(project, stub) as client:
        reply = client.send("/v1/completions", {"model": "tiny:deploy", "prompt": "a"})
        assert json.loads(reply.text)["choices"][0]["text"].startswith("answered by skillc-")
        assert client.send("/v1/chat/completions", b"[]").error["code"] == "invalid_json"
