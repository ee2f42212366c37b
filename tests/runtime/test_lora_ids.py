"""Skills by number, as clients of llama-server name them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.runtime.conftest import Client
from tests.runtime.support import chat, names


def test_numbers_are_listed_and_taken(shared: Client) -> None:
    listed = shared.send("/lora-adapters").json
    assert [entry["path"] for entry in listed] == ["deploy", "notes", "style"]
    assert {entry["scale"] for entry in listed} == {0.0}  # nothing is attached unasked
    for entry in listed:
        lora = [{"id": entry["id"], "scale": 0.5}]
        (attached,) = shared.chat(chat("tiny", lora=lora)).json["skillc"]["attached"]
        assert (attached["name"], attached["scale"]) == (entry["path"], 0.5)


def test_a_number_is_its_name(shared: Client) -> None:
    by_name = shared.text(chat("tiny:deploy"))
    assert shared.text(chat("tiny", lora=[{"id": 0, "scale": 1.0}])) == by_name
    assert by_name != shared.text(chat("tiny"))
    both = shared.chat(chat("tiny", lora=[{"id": 2, "scale": 1}, {"id": "deploy"}])).json
    assert names(both["skillc"]["attached"]) == ["style", "deploy"]


@pytest.mark.parametrize(
    ("lora", "status"),
    [([{"id": 3}], 404), ([{"id": -1}], 404), ([{"id": True}], 400), ([{"id": 1.0}], 400)],
)
def test_other_numbers_are_refused(shared: Client, lora: Any, status: int) -> None:
    reply = shared.chat(chat("tiny", lora=lora))
    assert (reply.status, reply.error["param"]) == (status, "lora")
