"""The schemas of the OpenAPI description: what requests may hold and what answers do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillc_runtime.deadline import LONGEST
from skillc_runtime.messages import ROLES
from skillc_runtime.names import MAX_SCALE, MAX_SKILLS
from skillc_runtime.prompts import MAX_ANSWERS
from skillc_runtime.sampling_fields import MAX_STOPS

Schema = dict[str, Any]


def ref(schema: str) -> Schema:
    """A reference to one of `schemas`."""
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _closed(schema: Schema) -> Schema:
    return {**schema, "additionalProperties": False}


def _list(of: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": of, **limits}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _number(low: float, high: float) -> Schema:
    return _or_null({"type": "number", "minimum": low, "maximum": high})


_STRING: Schema = {"type": "string"}
_TEXT: Schema = {"type": "string", "minLength": 1}
_FLAG: Schema = {"type": ["boolean", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SOME: Schema = {"type": ["integer", "null"], "minimum": 1}
_OBJECT: Schema = {"type": "object"}
_OBJECTS: Schema = {"type": "array", "items": _OBJECT}
_STOPS: Schema = _or_null({"anyOf": [_STRING, _list(_STRING, maxItems=MAX_STOPS)]})


def schemas() -> dict[str, Schema]:
    """The schemas by name."""
    return {**_requests(), **_answers()}


def _requests() -> dict[str, Schema]:
    scale = {"type": "number", "minimum": -MAX_SCALE, "maximum": MAX_SCALE}
    name = _object(("name",), name=_TEXT, scale=scale)
    number = _object(("id",), id={"type": ["integer", "string"]}, scale=scale)
    named = {
        "model": {**_TEXT, "description": "BASE, BASE:SKILL or BASE:SKILL+OTHER@0.5"},
        "skills": _or_null(_list({"anyOf": [_TEXT, name]}, maxItems=MAX_SKILLS)),
        "lora": _or_null(_list(number, maxItems=MAX_SKILLS)),
        "stream": _FLAG,
        "deadline": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": LONGEST},
    }
    chosen = {
        "temperature": _number(0, 100),
        "top_p": _number(0, 1),
    }
    common = {
        **named,
        **chosen,
        "n": {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_ANSWERS},
        "stop": _STOPS,
        "seed": {"type": ["integer", "null"]},
        "max_tokens": _SOME,
        "top_k": {"type": ["integer", "null"], "minimum": 0},
        "min_p": _number(0, 1),
        "frequency_penalty": _number(-2, 2),
        "presence_penalty": _number(-2, 2),
        "logit_bias": {"type": ["object", "null"]},
        "stream_options": _or_null(_object(include_usage=_FLAG)),
    }
    tokens = _list(_COUNT, minItems=1)
    return {
        "ChatRequest": _object(
            ("model", "messages"),
            **common,
            messages=_list(_object(("role",), role={"enum": list(ROLES)}), minItems=1),
            tools=_or_null(_OBJECTS),
            tool_choice={"type": ["string", "object", "null"]},
            parallel_tool_calls=_FLAG,
            response_format={"type": ["object", "null"]},
            max_completion_tokens=_SOME,
            logprobs=_FLAG,
            top_logprobs={"type": ["integer", "null"], "minimum": 0},
        ),
        "CompletionRequest": _object(
            ("model", "prompt"),
            **common,
            prompt={
                "anyOf": [
                    _TEXT,
                    tokens,
                    _list({"anyOf": [_TEXT, tokens]}, minItems=1, maxItems=MAX_ANSWERS),
                ]
            },
            logprobs={"type": ["integer", "null"], "minimum": 0},
        ),
        "ResponsesRequest": _object(
            ("model", "input"),
            **named,
            **chosen,
            input={"anyOf": [_TEXT, _list(_OBJECT, minItems=1)]},
            instructions={"type": ["string", "null"]},
            max_output_tokens=_SOME,
            tools=_or_null(_OBJECTS),
            tool_choice={"type": ["string", "object", "null"]},
            parallel_tool_calls=_FLAG,
            text={"type": ["object", "null"]},
        ),
        "MessagesRequest": _object(
            ("model", "messages", "max_tokens"), **{**_messages(named), **chosen}
        ),
        "CountRequest": _object(("model", "messages"), **_messages(named)),
        "EmbeddingsRequest": _object(("model", "input"), model=_TEXT, input={}),
        "LoraScales": _list(number, maxItems=MAX_SKILLS),
        "LoadRequest": _object(
            ("lora_name", "lora_path"), lora_name=_TEXT, lora_path=_TEXT, load_inplace=_FLAG
        ),
        "UnloadRequest": _object(("lora_name",), lora_name=_TEXT),
    }


def _messages(named: Mapping[str, Schema]) -> Schema:
    turn = _object(
        ("role", "content"),
        role={"enum": ["user", "assistant"]},
        content={"anyOf": [_STRING, _OBJECTS]},
    )
    return {
        **named,
        "messages": _list(turn, minItems=1),
        "max_tokens": {"type": "integer", "minimum": 1},
        "system": _or_null({"anyOf": [_STRING, _OBJECTS]}),
        "tools": _or_null(_OBJECTS),
        "tool_choice": {"type": ["object", "null"]},
        "stop_sequences": _or_null(_list(_STRING, maxItems=MAX_STOPS)),
        "top_k": {"type": ["integer", "null"], "minimum": 0},
    }


def _answers() -> dict[str, Schema]:
    reason = {"enum": ["stop", "length", "tool_calls"]}
    usage = _object(
        ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"),
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details=_object(("cached_tokens",), cached_tokens=_COUNT),
    )
    head = {"id": _STRING, "created": {"type": "integer"}, "model": _STRING}
    said = {"index": _COUNT, "finish_reason": reason, "logprobs": {"type": ["object", "null"]}}
    parts = {"usage": usage, "skillc": ref("Report")}
    whole = ("id", "object", "created", "model", "choices", "usage", "skillc")
    return {
        "ChatAnswer": _object(
            whole,
            **head,
            **parts,
            object={"const": "chat.completion"},
            choices=_list(_object((*said, "message"), **said, message=ref("Turn")), minItems=1),
        ),
        "Turn": _object(
            ("role", "content"),
            role={"const": "assistant"},
            content={"type": ["string", "null"]},
            tool_calls=_OBJECTS,
        ),
        "Completion": _object(
            whole,
            **head,
            **parts,
            object={"const": "text_completion"},
            choices=_list(_object((*said, "text"), **said, text=_STRING), minItems=1),
        ),
        "Response": _object(
            ("id", "object", "status", "output", "usage", "skillc"),
            id=_STRING,
            object={"const": "response"},
            status={"enum": ["completed", "incomplete"]},
            output=_OBJECTS,
            usage=_OBJECT,
            skillc=ref("Report"),
        ),
        "Message": _object(
            ("id", "type", "role", "content", "stop_reason", "usage", "skillc"),
            id=_STRING,
            type={"const": "message"},
            role={"const": "assistant"},
            content=_OBJECTS,
            stop_reason={"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use"]},
            usage=_OBJECT,
            skillc=ref("Report"),
        ),
        **_listings(),
        **_problems(),
    }


def _listings() -> dict[str, Schema]:
    attached = _object(
        ("name", "hash", "scale", "as"),
        name=_STRING,
        hash=_STRING,
        scale={"type": "number"},
        **{"as": {"enum": ["adapter", "text"]}},
    )
    return {
        "Report": _object(
            ("attached", "base", "prompt_tokens", "cached_tokens", "tokens_elided", "ttft_ms"),
            attached=_list(attached),
            base=_object(("name", "hash"), name=_STRING, hash=_STRING),
            prompt_tokens=_COUNT,
            cached_tokens=_COUNT,
            tokens_elided=_COUNT,
            ttft_ms={"type": ["number", "null"]},
        ),
        "TokenCount": _object(("input_tokens",), input_tokens=_COUNT),
        "Model": _object(("id", "object"), id=_STRING, object={"const": "model"}, parent=_STRING),
        "ModelList": _object(("data",), data=_list(ref("Model"))),
        "SkillList": _object(("data",), data=_list(_object(("name", "verdict"), name=_STRING))),
        "LoraList": _list(
            _object(("id", "path", "scale"), id=_COUNT, path=_STRING, scale={"type": "number"})
        ),
        "Success": _object(("success",), success={"const": True}),
        "Health": _object(
            ("status",), status={"enum": ["ok", "degraded", "loading", "failed"]}, base=_STRING
        ),
    }


def _problems() -> dict[str, Schema]:
    error = _object(
        ("message", "type", "param", "code"),
        message=_STRING,
        type=_STRING,
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    )
    theirs = _object(("type", "message"), type=_STRING, message=_STRING)
    return {
        "Error": _closed(_object(("error",), error=_closed(error))),
        "AnthropicError": _object(("type", "error"), type={"const": "error"}, error=theirs),
    }
