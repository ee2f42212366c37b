"""Errors as clients of each API expect them."""

from __future__ import annotations

from typing import Any

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """An answer that is an error: HTTP status, one line, and OpenAI's `code` and `param`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.encode("utf-8", "replace").decode().split())
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else None)
        return {
            "error": {
                "message": self.message,
                "type": kind or "invalid_request_error",
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Headers that belong to the answer."""
        # Of a body that was not read the rest may still come: that connection has no next request.
        close = {"Connection": "close"} if self.status in (408, 413) else {}
        return close if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def invalid(param: str, message: str) -> ApiError:
    """A 400 about one field of the request."""
    return ApiError(400, f"{param}: {message}", code="invalid_value", param=param)


ANTHROPIC_PATHS = ("/v1/messages", "/v1/messages/count_tokens")
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


def error_body(path: str, error: ApiError) -> dict[str, Any]:
    """The JSON of an error as the API at `path` writes it."""
    return anthropic_body(error) if path in ANTHROPIC_PATHS else error.body()


def anthropic_body(error: ApiError) -> dict[str, Any]:
    """The JSON of an error in Anthropic's shape."""
    message = error.message
    if error.code == "context_length_exceeded":  # by these words its clients know to compact
        message = f"prompt is too long: {message}"
    kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}
