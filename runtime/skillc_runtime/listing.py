"""What a server lists: its models, and what each skill is served as."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from skillc_compiler.lock import LockedSkill
from skillc_runtime.elision import KnownSkill
from skillc_runtime.names import unknown_model
from skillc_runtime.registry import Registry


class Listing:
    """One method an endpoint.

    `started` is when the server was, in seconds since 1970, `context` the tokens that prompt and
    answer may have together.
    """

    def __init__(self, registry: Registry, started: int, context: int) -> None:
        self._registry = registry
        self._started = started
        self._context = context

    async def models(self, request: Request) -> Response:
        """GET /v1/models"""
        data = await run_in_threadpool(self._models)
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME"""
        wanted = request.path_params["model"]
        for model in await run_in_threadpool(self._models):
            if model["id"] == wanted:
                return JSONResponse(model)
        raise unknown_model(wanted, "see /v1/models")

    def _models(self) -> list[dict[str, Any]]:
        """The base, then it with each skill that can be asked for."""
        name = self._registry.name
        common = {"object": "model", "created": self._started, "owned_by": "skillc"}
        return [{"id": name, **common, "context_length": self._context}] + [
            {"id": f"{name}:{skill}", **common, "parent": name} for skill in self._registry.ids()
        ]

    async def skills(self, request: Request) -> Response:
        """GET /v1/skills"""
        data = await run_in_threadpool(skill_list, self._registry)
        return JSONResponse({"object": "list", "data": data})


def skill_list(registry: Registry) -> list[dict[str, Any]]:
    """Every skill of the lock, those that are off as well."""
    problems, known = registry.problems(), registry.known()
    return [
        _skill(registry, name, locked, problems.get(name), known.get(name))
        for name, locked in sorted(registry.skills().items())
    ]


def _skill(
    registry: Registry,
    name: str,
    locked: LockedSkill,
    problem: str | None,
    known: KnownSkill | None,
) -> dict[str, Any]:
    return {
        "name": name,
        "model": f"{registry.name}:{name}",
        "base": registry.name,
        "verdict": locked.verdict,
        "source": locked.source,
        # Of the file as it is now, for clients to compare with theirs: null when the
        # adapter does not stand for it.
        "file_sha256": known.file_sha256 if known else None,
        "description": known.description if known else None,
        "skill_hash": locked.hash,
        "adapter_hash": registry.adapter_hash(locked),
        "key": locked.key,
        "probe": dict(locked.probe),
        "problem": problem,
    }
