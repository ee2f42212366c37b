"""What is asked of an upstream server: an OpenAI API with vLLM's calls for adapters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from skillc_compiler.errors import ServeError
from skillc_runtime.api_error import ApiError

_CONNECT_SECONDS = 10.0
_LOAD_SECONDS = 120.0
_ALREADY = "already"


class UpstreamClient:
    """One upstream; `url` is without /v1. Use it on one event loop, and close it."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """ServeError when httpx is not installed."""
        try:
            import httpx
        except ImportError as error:
            raise ServeError("httpx is not installed: pip install 'skillc[upstream]'") from error
        self.url = url.rstrip("/").removesuffix("/v1")
        self._errors: type[Exception] = httpx.HTTPError
        # An answer may take as long as it likes; only the way there is timed.
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        )

    async def models(self) -> list[dict[str, Any]]:
        """The upstream's models. Raises ApiError."""
        status, body = await self.json("GET", "/v1/models", timeout=_CONNECT_SECONDS)
        found = body.get("data")
        if status != 200 or not isinstance(found, list):
            raise ApiError(502, f"{self.url}: lists no models ({status})", code="upstream_error")
        return [model for model in found if isinstance(model, dict)]

    async def load(self, name: str, path: Path) -> None:
        """Have an adapter loaded; ApiError 502 with the upstream's reason when it refuses."""
        body = {"lora_name": name, "lora_path": str(path)}
        status, said = await self.json("POST", "/v1/load_lora_adapter", body, _LOAD_SECONDS)
        reason = said_by(said)
        if status == 200 or (status == 400 and _ALREADY in reason):
            return
        if status in (404, 405):
            reason = "it takes no adapters while it runs: start it with" + (
                " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora"
            )
        raise ApiError(
            502, f"{self.url} does not load the adapter: {reason}", code="upstream_refused"
        )

    async def unload(self, name: str) -> None:
        """Have an adapter unloaded; whatever comes of it, it is not asked for again."""
        try:
            await self.json("POST", "/v1/unload_lora_adapter", {"lora_name": name}, _LOAD_SECONDS)
        except ApiError:
            return

    async def json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer; text that is no object comes as {"text": ...}."""
        more = {} if timeout is None else {"timeout": timeout}
        try:
            answer = await self._http.request(method, path, json=body, **more)  # type: ignore[arg-type]
        except self._errors as error:
            raise self.unreachable(error) from error
        try:
            found = answer.json()
        except ValueError:
            found = None
        return answer.status_code, found if isinstance(found, dict) else {"text": answer.text}

    async def stream(self, path: str, body: Mapping[str, Any]) -> UpstreamStream:
        """An answer as it comes. Raises ApiError when it does not begin."""
        request = self._http.build_request("POST", path, json=dict(body))
        try:
            return UpstreamStream(self, await self._http.send(request, stream=True))
        except self._errors as error:
            raise self.unreachable(error) from error

    def unreachable(self, error: Exception) -> ApiError:
        """The 502 for a connection that failed."""
        reason = str(error) or type(error).__name__
        return ApiError(502, f"{self.url} cannot be reached: {reason}", code="upstream_unreachable")

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()


class UpstreamStream:
    """An answer that has begun; close it whatever happens."""

    def __init__(self, client: UpstreamClient, answer: Any) -> None:
        self._client, self._answer = client, answer
        self.status: int = answer.status_code

    async def whole(self) -> str:
        """All of it, for an answer that is an error."""
        try:
            await self._answer.aread()
        except self._client._errors as error:
            raise self._client.unreachable(error) from error
        text: str = self._answer.text
        return text

    async def lines(self) -> AsyncIterator[str]:
        """Its lines. Raises ApiError when the connection breaks."""
        try:
            async for line in self._answer.aiter_lines():
                yield line
        except self._client._errors as error:
            raise self._client.unreachable(error) from error

    async def close(self) -> None:
        """Let the upstream know that nobody reads on."""
        await self._answer.aclose()


def said_by(body: Mapping[str, Any]) -> str:
    """The message of an error, in OpenAI's form or in vLLM's own, as one line."""
    error = body.get("error")
    found = error.get("message") if isinstance(error, dict) else None
    found = found or body.get("message") or body.get("detail") or body.get("text") or "no reason"
    return " ".join(str(found).split())[:300]
