"""Adapters managed as llama-server's and vLLM's clients do it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Client, Reply, settings_for
from tests.runtime.support import ProjectFolder, chat, names

from skillc_runtime.server import running


@pytest.fixture
def client(project: ProjectFolder) -> Iterator[Client]:
    with running(settings_for(project, lora_loading=True)) as server:
        yield Client(server)


def attached(client: Client, **body: Any) -> dict[str, float]:
    reply = client.chat(chat("tiny", max_tokens=1, **body))
    assert reply.status == 200, reply.text
    return {entry["name"]: entry["scale"] for entry in reply.json["skillc"]["attached"]}


def load(client: Client, name: str, path: str, **more: Any) -> Reply:
    body = {"lora_name": name, "lora_path": path, **more}
    return client.send("/v1/load_lora_adapter", body)


def test_default_scales(client: Client, project: ProjectFolder) -> None:
    assert attached(client) == {}
    changed = client.send("/lora-adapters", [{"id": 2, "scale": 0.5}, {"id": 0, "scale": 1}])
    assert (changed.status, changed.json) == (200, {"success": True})
    scales = {entry["path"]: entry["scale"] for entry in client.send("/lora-adapters").json}
    assert scales == {"deploy": 1.0, "notes": 0.0, "style": 0.5}
    assert attached(client) == {"style": 0.5, "deploy": 1.0}
    # What a request says itself goes before the default.
    assert attached(client, skills=[]) == attached(client, lora=[]) == {}
    assert names(client.chat(chat("tiny:deploy")).json["skillc"]["attached"]) == ["deploy"]
    project.remove("style")
    assert attached(client) == {"deploy": 1.0}
    client.send("/lora-adapters", [])
    assert attached(client) == {}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([{"id": 9, "scale": 1}], 404),
        ([{"id": "unknown"}], 404),
        ([{"id": 0, "scale": "high"}], 400),
        ([{"id": 0}, {"id": 0}], 400),
        ({"id": 0}, 400),
        (b"nothing", 400),
    ],
)
def test_wrong_default_scales_change_nothing(client: Client, body: Any, status: int) -> None:
    client.send("/lora-adapters", [{"id": 0, "scale": 0.5}])
    assert client.send("/lora-adapters", body).status == status
    assert attached(client) == {"deploy": 0.5}


def test_load_and_unload(client: Client, project: ProjectFolder) -> None:
    key = project.locked["deploy"].key
    expected = client.text(chat("tiny:deploy"))
    loaded = load(client, "again", key)
    assert (loaded.status, loaded.text) == (
        200,
        "Success: LoRA adapter 'again' added successfully.",
    )
    assert client.text(chat("tiny:again")) == client.text(chat("again")) == expected
    model = client.send("/v1/models/tiny:again").json
    assert (model["id"], model["parent"]) == ("tiny:again", "tiny")
    assert load(client, "again", key).status == 400
    other = project.locked["style"].key
    assert load(client, "again", other, load_inplace=True).status == 200
    assert client.text(chat("tiny:again")) == client.text(chat("tiny:style"))
    gone = client.send("/v1/unload_lora_adapter", {"lora_name": "again"})
    assert (gone.status, "removed" in gone.text) == (200, True)
    assert client.chat(chat("tiny:again")).error["code"] == "model_not_found"
    again = client.send("/v1/unload_lora_adapter", {"lora_name": "again"})
    assert (again.status, again.error["param"]) == (404, "lora_name")


def test_paths_of_the_store(client: Client, project: ProjectFolder) -> None:
    key = project.locked["deploy"].key
    folder = project.store.folder(key)
    paths = [key, f".skillc/store/{key}", f"./{key}/", str(folder)]
    for number, path in enumerate(paths):
        assert load(client, f"ok-{number}", path).status == 200


def test_paths_out_of_the_store_are_refused(
    client: Client, project: ProjectFolder, tmp_path: Path
) -> None:
    key = project.locked["deploy"].key
    folder = project.store.folder(key)
    outside = tmp_path / "outside" / key
    outside.parent.mkdir()
    outside.mkdir()
    for file in folder.iterdir():
        (outside / file.name).write_bytes(file.read_bytes())
    link = project.store.root / ("a" * 64)
    link.symlink_to(outside)
    paths = [
        "..",
        ".",
        "/",
        "../store",
        f"../../outside/{key}",
        f"{key}/../../../outside/{key}",
        f"{key}/adapter.gguf",
        str(outside),
        link.name,
        str(link),
        "/etc/passwd",
        "~",
        "\x00",
        f"{key}\x00",
        "a" * 5000,
        "b" * 64,
        key.upper(),
    ]
    replies = [load(client, "x", path) for path in paths]
    assert {(reply.status, reply.error["param"]) for reply in replies} == {(400, "lora_path")}
    assert len({reply.error["message"] for reply in replies}) == 1
    assert "tiny:x" not in client.send("/v1/models").text


@pytest.mark.parametrize(
    "name", ["tiny", "base", "deploy", "a b", "a@1", "a+b", "a:b", "../a", "", "a\n", "x" * 200]
)
def test_names_that_cannot_be_asked_for(client: Client, project: ProjectFolder, name: str) -> None:
    reply = load(client, name, project.locked["style"].key)
    assert (reply.status, reply.error["param"]) == (400, "lora_name")


def test_skills_of_the_lock_cannot_be_unloaded(client: Client) -> None:
    reply = client.send("/v1/unload_lora_adapter", {"lora_name": "deploy"})
    assert (reply.status, reply.error["param"]) == (400, "lora_name")
    assert client.chat(chat("tiny:deploy")).status == 200


def test_loading_must_be_allowed(shared: Client) -> None:
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
        reply = shared.send(path, {"lora_name": "x", "lora_path": "y"})
        assert (reply.status, reply.error["code"]) == (403, "lora_loading_off")


def test_embeddings_are_a_clear_no(shared: Client) -> None:
    for model, status, code in (
        ("tiny", 400, "embeddings_not_supported"),
        ("tiny:unknown", 404, "model_not_found"),
    ):
        reply = shared.send("/v1/embeddings", {"model": model, "input": "x"})
        assert (reply.status, reply.error["code"]) == (status, code)
