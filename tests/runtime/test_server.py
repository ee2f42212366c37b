"""A running server, asked over HTTP: shapes of answers, skills, reloads."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder, chat, names, user

from skillc_compiler.gguf_base import BaseInfo
from skillc_compiler.skill import read_skill
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.sampling import Sampling
from skillc_runtime.server import running
from skillc_runtime.settings import served_context
from skillc_runtime.template import ChatTemplate


def test_whole_answer(client: Client, project: ProjectFolder, base: BaseInfo) -> None:
    reply = client.chat(chat("tiny:deploy"))
    assert reply.status == 200
    body = reply.json
    assert body["object"] == "chat.completion"
    assert body["model"] == "tiny:deploy"
    choice = body["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] in ("stop", "length")
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
    sha256 = project.store.open(project.locked["deploy"].key).sha256
    skillc = body["skillc"]
    assert skillc["attached"] == [{"name": "deploy", "hash": sha256, "scale": 1.0, "as": "adapter"}]
    assert skillc["base"] == {"name": "tiny", "hash": base.hash}
    assert skillc["prompt_tokens"] == usage["prompt_tokens"]
    assert skillc["cached_tokens"] == 0
    assert skillc["ttft_ms"] > 0
    assert reply.headers["X-Skillc-Attached"] == f"deploy@1;as=adapter;hash={sha256}"


def test_streamed_answer(shared: Client) -> None:
    body = chat("tiny:deploy", stream=True, stream_options={"include_usage": True})
    reply = shared.chat(body)
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    assert reply.headers["X-Skillc-Attached"].startswith("deploy@1;as=adapter;hash=")
    first, *middle, end, usage = reply.events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {chunk["object"] for chunk in reply.events} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in reply.events}) == 1
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in (first, *middle))
    assert all(chunk["usage"] is None for chunk in (first, *middle, end))
    assert end["choices"][0]["finish_reason"] in ("stop", "length")
    assert end["choices"][0]["delta"] == {}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] > 0
    assert names(usage["skillc"]["attached"]) == names(end["skillc"]["attached"]) == ["deploy"]
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in middle)
    assert streamed == shared.text(chat("tiny:deploy"))


def test_stream_without_usage_ends_with_the_finish_reason(shared: Client) -> None:
    *_, end = shared.chat(chat("tiny", stream=True)).events
    assert end["choices"][0]["finish_reason"] in ("stop", "length")
    assert end["skillc"]["attached"] == []
    assert "usage" not in end


@pytest.mark.parametrize(
    ("model", "more", "header", "expected"),
    [
        ("tiny", {}, None, {}),
        ("base", {}, None, {}),
        ("tiny:deploy", {}, None, {"deploy": 1}),
        ("tiny+deploy", {}, None, {"deploy": 1}),
        ("base+deploy", {}, None, {"deploy": 1}),
        ("deploy", {}, None, {"deploy": 1}),
        ("tiny:deploy+style@0.5", {}, None, {"deploy": 1, "style": 0.5}),
        ("base+style:0.25,deploy", {}, None, {"style": 0.25, "deploy": 1}),
        ("tiny", {"skills": ["style"]}, None, {"style": 1}),
        ("tiny", {"skills": [{"name": "style", "scale": -0.5}]}, None, {"style": -0.5}),
        ("tiny", {"lora": [{"id": "style", "scale": 2}]}, None, {"style": 2}),
        ("tiny", {}, "deploy@0.5, style", {"deploy": 0.5, "style": 1}),
        ("tiny:deploy", {"skills": ["style"]}, "deploy", {"style": 1}),
        ("tiny:deploy", {}, "style", {"style": 1}),
        ("tiny:deploy", {"skills": []}, None, {}),
        ("tiny:deploy", {"skills": None}, "", {}),
        ("tiny:deploy+style@0", {}, None, {"deploy": 1}),
    ],
)
def test_ways_to_name_skills(
    shared: Client,
    model: str,
    more: dict[str, Any],
    header: str | None,
    expected: dict[str, float],
) -> None:
    headers = {} if header is None else {"X-Skillc-Skills": header}
    reply = shared.chat(chat(model, **more), headers)
    assert reply.status == 200, reply.text
    attached = reply.json["skillc"]["attached"]
    assert {entry["name"]: entry["scale"] for entry in attached} == expected
    assert list(expected) == names(attached)
    assert (reply.headers["X-Skillc-Attached"] == "none") == (not expected)


@pytest.mark.parametrize(
    ("model", "more", "header"),
    [
        ("tiny:unknown", {}, None),
        ("unknown", {}, None),
        ("tiny:deploy+unknown@0.5", {}, None),
        ("tiny:", {}, None),
        ("tiny:deploy@strong", {}, None),
        ("tiny:deploy@1e9", {}, None),
        ("gpt-4o", {}, None),
        ("Tiny", {}, None),
        ("unknown", {"skills": []}, None),
        ("tiny:unknown", {"skills": ["deploy"]}, None),
        ("tiny", {"skills": ["deploy", "unknown"]}, None),
        ("tiny", {"skills": [{"name": "unknown", "scale": 0}]}, None),
        ("tiny", {}, "unknown"),
        ("tiny\ud800", {}, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_unknown_skill_is_never_the_base(
    shared: Client, model: str, more: dict[str, Any], header: str | None, stream: bool
) -> None:
    headers = {} if header is None else {"X-Skillc-Skills": header}
    reply = shared.chat(chat(model, stream=stream, **more), headers)
    assert reply.status == 404
    assert reply.error["code"] == "model_not_found"


@pytest.mark.parametrize(
    "skills",
    [
        "deploy",
        [1],
        [{"scale": 1}],
        [{"name": "deploy", "scale": "high"}],
        [{"name": "deploy", "scale": 11}],
        [{"name": "deploy", "scale": True}],
        [{"id": 0}],
        ["deploy", "deploy"],
        ["deploy"] * 9,
    ],
)
def test_malformed_skills_are_refused(shared: Client, skills: Any) -> None:
    reply = shared.chat(chat("tiny", skills=skills))
    assert reply.status == 400
    assert reply.error["param"] == "skills"


def test_adapter_acts_and_base_stays(
    client: Client, project: ProjectFolder, base: BaseInfo
) -> None:
    engine = client.server.worker.engine
    assert base.chat_template is not None
    prompt = ChatTemplate(base.chat_template, engine.model.vocab).render(user("hello"))
    stored = project.store.open(project.locked["deploy"].key)
    ref = AdapterRef(stored.gguf_path, stored.sha256)
    expected = {
        "tiny": engine.answer(prompt, (), Sampling(max_tokens=8)).text,
        "tiny:deploy": engine.answer(prompt, [ref], Sampling(max_tokens=8)).text,
    }
    assert expected["tiny"] != expected["tiny:deploy"]
    for model in ("tiny", "tiny:deploy", "tiny", "tiny:deploy"):
        assert client.text(chat(model)) == expected[model]


def test_text_verdict_goes_into_the_system_message(client: Client, project: ProjectFolder) -> None:
    skill = read_skill(project.root / ".skills" / "notes")
    by_name = client.chat(chat("tiny:notes")).json
    assert by_name["skillc"]["attached"] == [
        {"name": "notes", "hash": skill.hash, "scale": 1.0, "as": "text"}
    ]
    system = {"role": "system", "content": skill.text}
    by_hand = client.chat(chat("tiny", messages=[system, *user("hello")])).json
    assert by_name["usage"]["prompt_tokens"] == by_hand["usage"]["prompt_tokens"]
    assert by_name["choices"] == by_hand["choices"]
    short = {"role": "system", "content": "Be brief."}
    after = client.chat(chat("tiny:notes+style", messages=[short, *user("hello")])).json
    assert [entry["as"] for entry in after["skillc"]["attached"]] == ["text", "adapter"]
    assert after["usage"]["prompt_tokens"] > by_name["usage"]["prompt_tokens"]


def test_skill_that_is_off_is_refused(shared: Client) -> None:
    reply = shared.chat(chat("tiny:broken-idea"))
    assert (reply.status, reply.error["code"]) == (409, "skill_off")


def test_prefix_of_the_same_set_is_reused(shared: Client) -> None:
    long = "a question nobody else asks " * 30
    first = shared.chat(chat("tiny:deploy", long)).json
    again = shared.chat(chat("tiny:deploy", long)).json
    other = shared.chat(chat("tiny:style", long)).json
    # Other tests' requests of the same set share the first words of the template, and no more.
    assert max(one["skillc"]["cached_tokens"] for one in (first, other)) < 16
    assert again["skillc"]["cached_tokens"] > 200
    assert again["choices"] == first["choices"]


def test_models_and_skills_are_listed(client: Client, project: ProjectFolder) -> None:
    models = client.send("/v1/models").json["data"]
    assert [model["id"] for model in models] == [
        "tiny",
        "tiny:deploy",
        "tiny:notes",
        "tiny:style",
    ]
    assert [model.get("parent") for model in models] == [None, "tiny", "tiny", "tiny"]
    assert client.send("/v1/models/tiny:deploy").json == models[1]
    assert client.send("/v1/models/tiny:unknown").error["code"] == "model_not_found"
    skills = {skill["name"]: skill for skill in client.send("/v1/skills").json["data"]}
    assert skills["deploy"]["key"] == project.locked["deploy"].key
    assert skills["deploy"]["adapter_hash"] == project.store.open(skills["deploy"]["key"]).sha256
    deploy = (project.root / skills["deploy"]["source"]).read_bytes()
    assert skills["deploy"]["file_sha256"] == hashlib.sha256(deploy).hexdigest()
    assert skills["deploy"]["description"] == "How to deploy."
    assert skills["notes"]["file_sha256"] is None
    assert [skills[name]["verdict"] for name in sorted(skills)] == [
        "off",
        "adapter",
        "text",
        "adapter",
    ]


def test_the_context_that_is_listed_is_the_one_that_is_served(project: ProjectFolder) -> None:
    with running(settings_for(project, n_ctx=256)) as server:
        client = Client(server)
        (base, *_) = client.send("/v1/models").json["data"]
        assert base["context_length"] == 256
        assert client.send(f"/v1/models/{base['id']}").json == base
        body = {"model": base["id"], "prompt": [1] * 256}
        assert client.send("/v1/completions", body).status == 400
    assert served_context(40_960) == served_context(8192) == 8192
    assert served_context(4096) == 4096 and served_context(40_960, 16_384) == 16_384


def test_metrics_count_what_happened(client: Client) -> None:
    client.chat(chat("tiny:deploy"))
    client.chat(chat("tiny:unknown"))
    client.send("/made/up/path")
    lines = client.send("/metrics").text.splitlines()
    assert 'skillc_skill_requests_total{as="adapter",skill="deploy"} 1' in lines
    assert 'skillc_requests_total{path="/v1/chat/completions",status="404"} 1' in lines
    assert 'skillc_requests_total{path="other",status="404"} 1' in lines
    assert "skillc_time_to_first_token_seconds_count 1" in lines
    assert "skillc_adapters_loaded 1" in lines
    assert "skillc_set_switches_total 1" in lines
    assert "skillc_requests_running 0" in lines
    assert "skillc_prompt_copies_bytes 0" in lines
    figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    batches, decoded = (figures[f"skillc_{key}_total"] for key in ("decodes", "decoded_tokens"))
    assert 0 < int(batches) < int(decoded)
    counted = [line for line in lines if line.startswith("skillc_generated_tokens_total")]
    assert float(counted[0].split()[1]) > 0
    for line in lines:
        assert line.startswith(("# HELP skillc_", "# TYPE skillc_", "skillc_"))


@pytest.mark.parametrize("stream", [False, True])
def test_plain_completion(shared: Client, stream: bool) -> None:
    body = {"model": "tiny:deploy", "prompt": "hello", "max_tokens": 6, "stream": stream}
    reply = shared.send("/v1/completions", body)
    engine = shared.server.worker.engine
    ref = shared.server.registry.resolve("deploy").adapters
    expected = engine.answer(engine.tokenize("hello"), ref, Sampling(max_tokens=6)).text
    if stream:
        assert "".join(chunk["choices"][0]["text"] for chunk in reply.events) == expected
        assert reply.events[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    else:
        assert reply.json["object"] == "text_completion"
        assert reply.json["choices"][0]["text"] == expected
        assert names(reply.json["skillc"]["attached"]) == ["deploy"]


def test_plain_completion_takes_no_text_skill(shared: Client) -> None:
    reply = shared.send("/v1/completions", {"model": "tiny:notes", "prompt": "hello"})
    assert (reply.status, reply.error["code"]) == (400, "skill_needs_chat")
