"""The endpoints by which clients of llama-server and vLLM manage adapters."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from skillc_runtime.api_error import ApiError
from skillc_runtime.fields import Body, flag, parse_body, parse_json, text
from skillc_runtime.names import from_body
from skillc_runtime.service import Service


class LoraEndpoints:
    """One method an endpoint."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._registry = service.registry

    async def listed(self, request: Request) -> Response:
        """GET /lora-adapters: the numbers that `lora` in a body takes, and the default scales."""
        return JSONResponse(await run_in_threadpool(self._listed))

    async def set_scales(self, request: Request) -> Response:
        """POST /lora-adapters: the scales of requests that name no skills; 0 for what is not in."""
        body = parse_json(await request.body())
        await run_in_threadpool(self._set_scales, body)
        return JSONResponse({"success": True})

    async def load(self, request: Request) -> Response:
        """POST /v1/load_lora_adapter"""
        body = self._allowed(await request.body())
        name, path = text(body, "lora_name"), text(body, "lora_path")
        in_place = flag(body, "load_inplace")
        await run_in_threadpool(self._registry.load, name, path, in_place=in_place)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        """POST /v1/unload_lora_adapter"""
        name = text(self._allowed(await request.body()), "lora_name")
        await run_in_threadpool(self._registry.unload, name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    def _allowed(self, data: bytes) -> Body:
        if not self._service.settings.lora_loading:
            line = "loading adapters is off: start the server with --lora-loading"
            raise ApiError(403, line, code="lora_loading_off")
        return parse_body(data)

    def _listed(self) -> list[dict[str, object]]:
        scales = self._registry.defaults()
        return [
            {"id": i, "path": name, "scale": scales.get(name, 0.0)}
            for i, name in enumerate(self._registry.ids())
        ]

    def _set_scales(self, body: object) -> None:
        self._registry.set_defaults(from_body(body, "lora", self._registry.ids()))
