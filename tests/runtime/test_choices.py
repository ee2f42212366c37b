"""Several answers to one request: `n`, lists of prompts, their log probabilities and usage."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import openai
import pytest
from tests.runtime.conftest import Client
from tests.runtime.support import chat, user


def completion(shared: Client, **body: Any) -> Any:
    reply = shared.send("/v1/completions", {"model": "tiny", "max_tokens": 5, **body})
    assert reply.status == 200, reply.text
    return reply.json


def test_choices_are_numbered(shared: Client) -> None:
    body = chat("tiny:deploy", n=3, temperature=1.5, seed=7)
    whole = shared.chat(body).json
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert all(choice["finish_reason"] in ("stop", "length") for choice in whole["choices"])
    texts = [choice["message"]["content"] for choice in whole["choices"]]
    assert len(set(texts)) == 3
    # Each is what its seed gives alone; the prompt counts once.
    alone = [shared.chat({**body, "n": 1, "seed": 7 + i}).json for i in range(3)]
    assert [one["choices"][0]["message"]["content"] for one in alone] == texts
    usage = whole["usage"]
    assert usage["prompt_tokens"] == alone[0]["usage"]["prompt_tokens"]
    assert usage["completion_tokens"] == sum(one["usage"]["completion_tokens"] for one in alone)


def test_streamed_choices_are_numbered(shared: Client) -> None:
    body = chat("tiny:deploy", n=3, temperature=1.5, seed=7)
    whole = shared.chat(body).json["choices"]
    texts: dict[int, str] = defaultdict(str)
    reasons: dict[int, str] = {}
    for chunk in shared.chat({**body, "stream": True}).events:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
    assert texts == {choice["index"]: choice["message"]["content"] for choice in whole}
    assert reasons == {choice["index"]: choice["finish_reason"] for choice in whole}


def test_tool_calls_of_each_choice(shared: Client, says: list[str]) -> None:
    call = '<tool_call>\n{"name": "run", "arguments": {"x": %d}}\n</tool_call>'
    says += [call % 1, "none needed", f"{call % 2}\n{call % 3}"]
    tool = {"type": "function", "function": {"name": "run"}}
    choices = shared.chat(chat("tiny", n=3, tools=[tool])).json["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["tool_calls", "stop", "tool_calls"]
    assert [len(choice["message"].get("tool_calls", [])) for choice in choices] == [1, 0, 2]
    found: dict[tuple[int, int], str] = defaultdict(str)
    for chunk in shared.chat(chat("tiny", n=3, tools=[tool], stream=True)).events:
        (choice,) = chunk["choices"]
        for part in choice["delta"].get("tool_calls", []):
            found[choice["index"], part["index"]] += part["function"]["arguments"]
    assert found == {(0, 0): '{"x": 1}', (2, 0): '{"x": 2}', (2, 1): '{"x": 3}'}


def test_official_client_gets_choices(shared: Client) -> None:
    with openai.OpenAI(base_url=shared.server.url + "/v1", api_key="none", timeout=60) as api:
        answer = api.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            n=2,
            max_tokens=3,
            logprobs=True,
            top_logprobs=1,
        )
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert all(choice.logprobs and choice.logprobs.content for choice in answer.choices)
        texts = api.completions.create(model="tiny", prompt=["a", "b"], max_tokens=2, logprobs=2)
        assert [choice.index for choice in texts.choices] == [0, 1]
        assert texts.choices[1].logprobs is not None


def test_lists_of_prompts(shared: Client) -> None:
    tokens = shared.server.worker.engine.tokenize("hello")
    alone = [completion(shared, prompt=prompt) for prompt in ("hello", "world")]
    both = completion(shared, prompt=["hello", "world"], n=2)
    texts = [choice["text"] for choice in both["choices"]]
    assert texts == [one["choices"][0]["text"] for one in alone for _ in range(2)]
    assert both["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in alone)
    for prompt in (tokens, [tokens]):
        assert completion(shared, prompt=prompt)["choices"][0]["text"] == texts[0]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_completions(shared: Client, stream: bool) -> None:
    body = {"model": "tiny", "prompt": "hello", "max_tokens": 5, "logprobs": 2, "stream": stream}
    reply = shared.send("/v1/completions", body)
    answers = reply.events if stream else [reply.json]
    found: dict[str, list[Any]] = defaultdict(list)
    for answer in answers:
        for key, values in answer["choices"][0]["logprobs"].items():
            found[key] += values
    assert set(found) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert len(found["tokens"]) == 5 or answers[-1]["choices"][0]["finish_reason"] == "stop"
    assert found["text_offset"][:2] == [0, len(found["tokens"][0])]
    for token, logprob, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert top[token] == logprob == max(top.values())


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": ["a"] * 9, "n": 2}, "n"),
    ],
)
def test_what_is_not_done_is_refused(shared: Client, more: dict[str, Any], param: str) -> None:
    reply = shared.send("/v1/completions", {"model": "tiny", "prompt": "hello", **more})
    assert (reply.status, reply.error["param"]) == (400, param)


def test_stop_strings_end_each_choice(shared: Client) -> None:
    free = shared.text(chat("tiny", max_tokens=20))
    stop = free[3:5]
    choices = shared.chat(chat("tiny", max_tokens=20, stop=[stop], n=2)).json["choices"]
    for choice in choices:
        assert choice["message"]["content"] == free[: free.find(stop)]
        assert choice["finish_reason"] == "stop"


def test_cached_tokens_are_reported(shared: Client) -> None:
    body = chat("tiny:style", messages=user("words that only this test says " * 20))
    first, second = (shared.chat(body).json["usage"] for _ in range(2))
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in (first, second)]
    assert cached[0] < 64 <= cached[1] < second["prompt_tokens"]
