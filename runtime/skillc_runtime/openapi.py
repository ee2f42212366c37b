"""The OpenAPI description: what the server takes and gives, and every status it may answer."""

from __future__ import annotations

from skillc_runtime import __version__
from skillc_runtime.openapi_schemas import Schema, ref, schemas

_REASONS = {
    400: "The request is wrong; `param` names the field.",
    401: "An API key is needed.",
    403: "Not allowed: host name, origin, or what the server was started without.",
    404: "No such model, skill or adapter.",
    408: "The body took too long.",
    409: "The skill is off.",
    413: "The body is too large.",
    429: "Too many requests wait; `Retry-After` says when to come again.",
    503: "Not ready, stopping, or a skill that cannot be served as promised.",
}
_GUARDED = (401, 403)
_POSTED = (400, 408, 413, *_GUARDED)
_ANSWERED = (404, 409, 429, 503, *_POSTED)


def description(base: str) -> Schema:
    """The description, as OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "skillc",
            "version": __version__,
            "description": f"Serves the base {base} with compiled skills.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _paths() -> Schema:
    return {
        "/v1/chat/completions": _asks("ChatRequest", "ChatAnswer"),
        "/v1/completions": _asks("CompletionRequest", "Completion"),
        "/v1/responses": _asks("ResponsesRequest", "Response"),
        "/v1/messages": _asks("MessagesRequest", "Message", error="AnthropicError"),
        "/v1/messages/count_tokens": _post(
            "CountRequest", _json("TokenCount"), (*_POSTED, 404, 409, 503), "AnthropicError"
        ),
        "/v1/embeddings": _post("EmbeddingsRequest", None, (*_POSTED, 404, 409, 503)),
        "/v1/models": _get(_json("ModelList"), _GUARDED),
        "/v1/models/{model}": {
            **_get(_json("Model"), (404, *_GUARDED)),
            "parameters": [
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            ],
        },
        "/v1/skills": _get(_json("SkillList"), _GUARDED),
        "/lora-adapters": {
            **_get(_json("LoraList"), _GUARDED),
            **_post("LoraScales", _json("Success"), (*_POSTED, 404, 409, 503)),
        },
        "/v1/load_lora_adapter": _post("LoadRequest", _text(), (*_POSTED, 503)),
        "/v1/unload_lora_adapter": _post("UnloadRequest", _text(), (*_POSTED, 404)),
        "/health": {
            "get": {
                "responses": {
                    **_reply(200, "Requests can be answered.", _json("Health")),
                    **_reply(503, "They cannot, or not yet.", _json("Health")),
                    **_errors((403,), "Error"),
                }
            }
        },
        "/metrics": _get(_text(), _GUARDED),
        "/openapi.json": _get({"application/json": {"schema": {"type": "object"}}}, _GUARDED),
    }


def _asks(request: str, answer: str, error: str = "Error") -> Schema:
    """A path whose answer may be streamed."""
    return _post(request, {**_json(answer), "text/event-stream": {}}, _ANSWERED, error)


def _post(
    request: str, answer: Schema | None, statuses: tuple[int, ...], error: str = "Error"
) -> Schema:
    given = {} if answer is None else _reply(200, "The answer.", answer)
    return {
        "post": {
            "requestBody": {"required": True, "content": _json(request)},
            "responses": {**given, **_errors(statuses, error)},
        }
    }


def _get(answer: Schema, statuses: tuple[int, ...]) -> Schema:
    return {
        "get": {
            "responses": {**_reply(200, "What there is.", answer), **_errors(statuses, "Error")}
        }
    }


def _reply(status: int, reason: str, content: Schema) -> Schema:
    return {str(status): {"description": reason, "content": content}}


def _errors(statuses: tuple[int, ...], schema: str) -> Schema:
    found: Schema = {}
    for status in sorted(statuses):
        found |= _reply(status, _REASONS[status], _json(schema))
    if "429" in found:
        found["429"]["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
    return found


def _json(schema: str) -> Schema:
    return {"application/json": {"schema": ref(schema)}}


def _text() -> Schema:
    return {"text/plain": {"schema": {"type": "string"}}}
