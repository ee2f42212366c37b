"""The OpenAPI description against the server: nothing undescribed is answered, and no 500."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.runtime.conftest import Client, settings_for
from tests.runtime.stand_in import scripted
from tests.runtime.support import ProjectFolder

from skillc_compiler.bases import find_base
from skillc_compiler.gguf_base import BaseInfo
from skillc_runtime.app import routes_of
from skillc_runtime.server import running
from skillc_runtime.service import Service
from skillc_runtime.settings import ServeSettings

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 10
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MOST = 16


@pytest.fixture
def client(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a server whose engine answers at once."""
    with running(settings_for(project, lora_loading=True)) as server:
        scripted(server, monkeypatch).append('A <tool_call>{"name": "x"}</tool_call>')
        yield Client(server)


@pytest.fixture
def nano(tmp_path: Path) -> Iterator[Client]:
    """A client of a server whose engine, in a process of its own, answers with the shipped base."""
    options = ServeSettings(
        find_base().gguf,
        project=tmp_path,
        port=0,
        n_threads=1,
        max_tokens=MOST,
        stop_seconds=1.0,
        lora_loading=True,
    )
    with running(options) as server:
        yield Client(server)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("answers", ["client", "nano"])
def test_answers_are_described(
    answers: str, mode: GenerationMode, request: pytest.FixtureRequest
) -> None:
    client: Client = request.getfixturevalue(answers)
    schema = schemathesis.openapi.from_url(client.server.url + "/openapi.json")
    seen: dict[str, set[int]] = defaultdict(set)

    def check(case: Any) -> None:
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = client.server.registry.name  # else all would be a 404
            for key in ("skills", "lora", "deadline"):
                case.body.pop(key, None)
            for key in LIMITS:  # a base that says what it likes may go on for long
                if type(case.body.get(key)) is int:
                    case.body[key] = min(case.body[key], MOST)
        response = case.call(timeout=60)
        seen[f"{case.operation.method} {case.operation.path}"].add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method == "get":
            continue  # nothing is sent that could be wrong
        limits = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        limits(given(case=operation.as_strategy(generation_mode=mode))(check))()
    described = client.send("/openapi.json").json["paths"]
    del described["/openapi.json"]  # schemathesis has it already
    methods = {"post", "get"} if mode is GenerationMode.POSITIVE else {"post"}
    assert set(seen) == {
        f"{method} {path}" for path, item in described.items() for method in methods & set(item)
    }
    if mode is GenerationMode.POSITIVE:
        assert {200} == seen["get /health"] == seen["get /v1/models"]
        assert 200 in seen["post /v1/completions"]


def test_every_path_is_described(client: Client, base: BaseInfo) -> None:
    described = client.send("/openapi.json").json
    assert described["openapi"] == "3.1.0"
    server = client.server
    service = Service(server.worker, server.registry, ServeSettings(base.path))
    served = {
        (route.path.replace(":path", ""), method.lower())
        for route in routes_of(service)
        for method in (route.methods or set()) - {"HEAD"}
    }
    methods = {"get", "post"}
    assert served == {
        (path, method)
        for path, item in described["paths"].items()
        for method in methods & set(item)
    }


def test_what_the_description_promises_is_refused_or_taken(client: Client) -> None:
    """The limits that the description names are the server's own."""
    schemas = client.send("/openapi.json").json["components"]["schemas"]
    most = schemas["ChatRequest"]["properties"]["n"]["maximum"]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
    statuses = [
        client.send("/v1/chat/completions", {**body, "n": n}).status for n in (most, most + 1)
    ]
    assert statuses == [200, 400]
