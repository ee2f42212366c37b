"""Requests for skills whose adapters need to act from the last user's turn on only."""

from __future__ import annotations

from typing import Any

from tests.runtime.conftest import Client
from tests.runtime.support import ProjectFolder, user

from skillc_runtime.engine import Engine
from skillc_runtime.events import Piece
from skillc_runtime.sampling import Sampling
from skillc_runtime.template import ChatTemplate

HISTORY = [
    {"role": "system", "content": "You are a careful agent of the orchard. " * 8},
    *user("What did we do?"),
    {"role": "assistant", "content": "We picked apples."},
]


def ask(client: Client, model: str) -> tuple[int, list[float]]:
    """How much was cached, and the log probability of every token of the answer."""
    body: dict[str, Any] = {"messages": [*HISTORY, *user("And now?")], "max_tokens": 8}
    reply = client.chat({"model": model, "temperature": 0, "logprobs": True, **body})
    assert reply.status == 200, reply.text
    tokens = reply.json["choices"][0]["logprobs"]["content"]
    return reply.json["skillc"]["cached_tokens"], [token["logprob"] for token in tokens]


def test_tail_skills_share_the_history(project: ProjectFolder, client: Client) -> None:
    project.add("prune", 6, activation="tail")
    project.add("graft", 7, activation="tail")
    _, bare = ask(client, "tiny")
    cached, pruned = ask(client, "tiny:prune")
    assert cached > 100 and pruned != bare
    assert ask(client, "tiny:graft")[0] == cached
    assert ask(client, "tiny:prune+graft")[0] == cached
    assert ask(client, "tiny:deploy")[0] == 0
    assert ask(client, "tiny:prune+deploy")[0] == 0  # one of them must act on everything


def test_tail_acts_from_the_last_users_turn(
    project: ProjectFolder, client: Client, engine: Engine
) -> None:
    project.add("prune", 6, activation="tail")
    _, answer = ask(client, "tiny:prune")
    template = ChatTemplate(project.base.chat_template or "", engine.model.vocab)
    tokens, turn = template.render_turn([*HISTORY, *user("And now?")])
    assert turn is not None
    adapters = client.server.registry.resolve("tiny:prune").adapters
    sampling = Sampling(max_tokens=8, logprobs=1)
    events = engine.generate(tokens, adapters, sampling, tail_from=turn)
    assert [event.choice.logprob for event in events if isinstance(event, Piece)] == answer
