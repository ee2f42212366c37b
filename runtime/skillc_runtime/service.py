"""From a request's JSON to a job for the engine: skills resolved, prompt rendered, limits kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from skillc_compiler.errors import ServeError
from skillc_runtime.api_error import ApiError, invalid
from skillc_runtime.constraint import read_constraint
from skillc_runtime.deadline import read_deadline
from skillc_runtime.dialects import Dialect, dialect_of
from skillc_runtime.elision import ELIDE_HEADER, elide, find_mentions
from skillc_runtime.engine import Engine
from skillc_runtime.fields import Body, flag, text
from skillc_runtime.grammar import Grammar
from skillc_runtime.messages import (
    Message,
    read_messages,
    read_tool_choice,
    read_tools,
    with_skill_texts,
)
from skillc_runtime.metrics import Metrics
from skillc_runtime.names import SKILLS_HEADER, Wanted, from_body, from_header, from_model
from skillc_runtime.prompts import MAX_ANSWERS, read_count, read_prompts
from skillc_runtime.registry import Registry
from skillc_runtime.reply import Reply
from skillc_runtime.sampling import Sampling
from skillc_runtime.sampling_fields import SEEDS, read_sampling
from skillc_runtime.settings import ServeSettings
from skillc_runtime.skill_set import SkillSet
from skillc_runtime.template import ChatTemplate, MessagesError
from skillc_runtime.worker import Worker


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be answered."""

    model: str
    prompts: tuple[tuple[int, ...], ...]
    skills: SkillSet
    sampling: Sampling
    stream: bool
    include_usage: bool
    tail_from: int | None = None  # the token from which on the adapters act; None: all
    n: int = 1  # answers to each prompt
    tools: tuple[str, ...] = ()
    prefix: str = ""
    tokens_elided: int = 0
    deadline: float | None = None  # seconds from arrival

    def jobs(self) -> Iterator[tuple[tuple[int, ...], Sampling]]:
        """Prompt and sampling of each choice, in the order of their indices."""
        seed = self.sampling.seed
        for prompt in self.prompts:
            for number in range(self.n):
                own = None if seed is None else (seed + number) % SEEDS
                yield prompt, replace(self.sampling, seed=own)


class Service:
    """What the endpoints share."""

    def __init__(self, worker: Worker, registry: Registry, settings: ServeSettings) -> None:
        self.worker = worker
        self.registry = registry
        self.settings = settings
        self.metrics = Metrics()
        self.verified = False
        self.started = int(time.time())
        self._text_tokens: dict[str, int] = {}

    @property
    def engine(self) -> Engine:
        """The engine; ApiError 503 while it is not there."""
        if self.worker.failure is not None:
            raise ApiError(503, str(self.worker.failure), code="not_loaded")
        if not self.worker.loaded.is_set():
            raise ApiError(503, "the base is still loading", code="loading", retry_after=1)
        return self.worker.engine

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The base's chat template, if it has one."""
        source = self.registry.base.chat_template
        return ChatTemplate(source, self.engine.model.vocab) if source else None

    @cached_property
    def dialect(self) -> Dialect:
        """How the base writes tool calls."""
        return dialect_of(self.registry.base.chat_template)

    def reply(self, prepared: Prepared) -> Reply:
        """What an answer's events are collected in."""
        parser = self.dialect.parser(prepared.tools) if prepared.tools else None
        return Reply(self.engine.model.vocab, parser=parser, prefix=prepared.prefix)

    def text_tokens(self, skills: SkillSet) -> dict[str, int]:
        """The tokens that each adapter's skill would be as text; nothing unless there is a log."""
        if self.settings.log is None or not skills.adapters:
            return {}
        known = self.registry.known()
        for member in skills.members:
            if member.hash not in self._text_tokens and member.name in known:
                size = len(self.engine.tokenize(known[member.name].body))
                self._text_tokens[member.hash] = size
        served = [member for member in skills.members if member.ref is not None]
        return {m.name: self._text_tokens[m.hash] for m in served if m.hash in self._text_tokens}

    def prepare_chat(self, body: Body, headers: Mapping[str, str]) -> Prepared:
        """Read a chat request; ApiError with the status that fits."""
        engine, template = self.engine, self.template
        if template is None:
            raise ApiError(400, "this base has no chat template; use /v1/completions")
        messages = read_messages(body)
        tools, forced = read_tool_choice(body, read_tools(body))
        grammar = self._checked(read_constraint(body, tools, forced, self.dialect))
        common = self._common(body, headers, chat=True)
        messages, common = self._elide(body, headers, messages, common)
        messages = self.dialect.fit(with_skill_texts(messages, common.skills.texts))
        prefix = self.dialect.prefix(forced)
        try:
            prompt, turn = template.render_turn(messages, tools, continuation=prefix)
            if len(prompt) >= engine.n_ctx:
                raise self._too_long(template, messages, tools, len(prompt))
        except MessagesError as error:
            raise ApiError(400, str(error), code="invalid_messages", param="messages") from error
        sampling = replace(common.sampling, grammar=grammar)
        return replace(
            common,
            prompts=(tuple(prompt),),
            tail_from=turn if common.skills.tail else None,
            sampling=sampling,
            tools=tuple(tool["function"]["name"] for tool in tools),
            prefix=prefix,
        )

    def _checked(self, grammar: str | None) -> str | None:
        """`grammar`; ApiError 400 when llama.cpp does not take it."""
        if grammar is not None:
            try:
                Grammar(self.engine.model.vocab, grammar).free()
            except ServeError as error:
                raise ApiError(400, str(error), code="invalid_schema") from error
        return grammar

    def prepare_completion(self, body: Body, headers: Mapping[str, str]) -> Prepared:
        """Read a plain completion request: the prompt is used as it is, control tokens included."""
        engine = self.engine
        prompts = read_prompts(body, engine)
        common = self._common(body, headers, chat=False)
        if common.skills.texts:
            raise ApiError(
                400,
                "a skill of this set is served as text: use /v1/chat/completions",
                code="skill_needs_chat",
            )
        if len(prompts) * common.n > MAX_ANSWERS:
            raise invalid("n", f"at most {MAX_ANSWERS} answers a request")
        longest = max(map(len, prompts))
        if longest >= engine.n_ctx:
            raise too_long(longest, engine.n_ctx, history=False)
        return replace(common, prompts=tuple(prompts))

    def _elide(
        self,
        body: Body,
        headers: Mapping[str, str],
        messages: list[Message],
        common: Prepared,
    ) -> tuple[list[Message], Prepared]:
        """Skill texts in the messages become adapters of the set, where they can be served."""
        if not wants_elision(headers) or not (known := self.registry.known()):
            return messages, common
        asked = asked_skills(body, headers, self.registry.ids)
        named = from_model(common.model, self.registry.name) if asked is None else asked
        # A skill that the request itself switches off or turns round is not meant to be attached.
        refused = {skill.name for skill in named if skill.scale <= 0}
        mentions = find_mentions(messages, known)
        # A listing says what there is; a request that names its skills has made the choice.
        mentioned = mentions.used if asked is not None or named else mentions.used + mentions.listed
        wanted = [name for name in mentioned if name not in refused]
        skills = self.registry.with_mentioned(common.skills, wanted)
        active = {m.name: known[m.name] for m in skills.members if m.name in known and m.scale > 0}
        found = elide(messages, active)
        if not found.gone:
            return messages, common
        count = self.engine.tokenize
        tokens = sum(map(len, map(count, found.gone))) - sum(map(len, map(count, found.left)))
        return found.messages, replace(common, skills=skills, tokens_elided=max(0, tokens))

    def _common(self, body: Body, headers: Mapping[str, str], *, chat: bool) -> Prepared:
        model = text(body, "model")
        stream = flag(body, "stream")
        options = body.get("stream_options") or {}
        if not isinstance(options, dict):
            raise invalid("stream_options", "must be an object")
        return Prepared(
            model=model,
            prompts=(),
            skills=self.registry.resolve(model, asked_skills(body, headers, self.registry.ids)),
            sampling=read_sampling(
                body, self.engine, chat=chat, max_tokens=self.settings.max_tokens
            ),
            n=read_count(body),
            deadline=read_deadline(body, headers, self.settings.deadline),
            stream=stream,
            include_usage=flag(options, "include_usage"),
        )

    def _too_long(
        self,
        template: ChatTemplate,
        messages: Sequence[Message],
        tools: Sequence[Message],
        size: int,
    ) -> ApiError:
        """Agents answer context_length_exceeded by shortening the history and trying again, for
        ever when it is not the history: say so only when system and tools alone would fit."""
        n_ctx = self.engine.n_ctx
        fixed = [message for message in messages if message["role"] == "system"]
        history = len(messages) - len(fixed) > 1
        if history:
            alone = template.render([*fixed, {"role": "user", "content": ""}], tools)
            history = len(alone) < n_ctx
        return too_long(size, n_ctx, history=history)


def too_long(size: int, n_ctx: int, *, history: bool) -> ApiError:
    """The 400 for a prompt that does not fit."""
    line = f"the prompt has {size} tokens; the context has {n_ctx}, and an answer needs room too"
    code = "context_length_exceeded" if history else "prompt_too_long"
    return ApiError(400, line, code=code, param="messages" if history else None)


def wants_elision(headers: Mapping[str, str]) -> bool:
    """Whether skill texts may leave the prompt; ApiError 400 for a header that says neither."""
    value = headers.get(ELIDE_HEADER, "on").strip().lower()
    if value not in ("on", "off"):
        raise invalid("X-Skillc-Elide", "must be on or off")
    return value == "on"


def asked_skills(
    body: Body, headers: Mapping[str, str], ids: Callable[[], Sequence[str]]
) -> list[Wanted] | None:
    """The skills that body or header name, the body first; None: the model name decides."""
    for field in ("skills", "lora"):
        if body.get(field) is not None:
            return from_body(body[field], field, ids() if field == "lora" else ())
    header = headers.get(SKILLS_HEADER)
    return None if header is None else from_header(header)
