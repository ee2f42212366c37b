"""The answers to requests that fail, in the shape of the API that was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from skillc_compiler.errors import SkillcError
from skillc_runtime.api_error import ApiError, error_body


async def gone(request: Request, error: Exception) -> Response:
    """The client went away."""
    return Response(status_code=499)  # nobody reads it


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error_body(request.url.path, error), error.status, error.headers())


async def _skillc_error(request: Request, error: Exception) -> Response:
    return await _api_error(request, ApiError(503, str(error), code="internal_error"))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    problem = ApiError(error.status_code, f"{where}: {error.detail}", code="no_such_endpoint")
    body = error_body(request.url.path, problem)
    return JSONResponse(body, error.status_code, dict(error.headers or {}))


async def _unexpected(request: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, and the server's log has the traceback.
    return await _api_error(request, ApiError(500, "internal error", code="internal_error"))


HANDLERS: Mapping[Any, ExceptionHandler] = {
    ApiError: _api_error,
    HTTPException: _http_error,
    SkillcError: _skillc_error,
    ClientDisconnect: gone,
    Exception: _unexpected,
}
"""What an application answers to each kind of exception."""
