"""Text to token ids, in the pieces that the chat template and the server cut it into."""

from __future__ import annotations

import json

from tokenizers import Tokenizer

from skillc_compiler.chat import IM_END, IM_START
from skillc_compiler.data.generate import Question


class Encoder:
    """Text to token ids; template pieces and contents apart."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.start = self._special(IM_START)
        self.end = self._special(IM_END)
        self.newline = self.plain("\n")
        self._replies: dict[str, list[int]] = {}
        self.open_system = [self.start, *self.plain("system\n")]
        self.open_user = [self.start, *self.plain("user\n")]
        self.open_assistant = [self.start, *self.plain("assistant\n")]
        self.close = [self.end, *self.newline]
        self._calls = {
            tag: self._special(tag)
            for tag in ("<tool_call>", "</tool_call>", "<tools>", "</tools>")
        }

    def _special(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token}")
        return int(found)

    @property
    def everything(self) -> range:
        """All tokens but the first three, which are the chat template's."""
        return range(3, self.tokenizer.get_vocab_size())

    def plain(self, text: str) -> list[int]:
        """Ids of ordinary text; special tokens in it are recognised only where they are added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def skill(self, text: str) -> list[int]:
        """The system turn up to and including the skill's text."""
        return self.open_system + self.plain(text)

    def tools(self, question: Question) -> list[int]:
        """The template's tool block without what stands around it."""
        if not question.tools:
            return []
        lines = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in question.tools)
        return self.plain(f"<tools>\n{lines}</tools>")

    def after_skill(self, question: Question) -> list[int]:
        """From the end of the skill's text to the start of the answer."""
        return self.tools(question) + self.close + self.user(question)

    def without_skill(self, question: Question, system: str = "") -> list[int]:
        """The whole prompt when no skill's text is given; `system` is the client's own prompt."""
        return self.head(question, system) + self.user(question)

    def head(self, question: Question, system: str = "") -> list[int]:
        """What stands before the user's turn when no skill's text is given."""
        tools = self.tools(question)
        if not system and not tools:
            return []
        own = self.plain(system + "\n" if system and tools else system)
        return self.open_system + own + tools + self.close

    def user(self, question: Question) -> list[int]:
        """User turn and the opening of the assistant's."""
        return self.turns(question.ask)

    def turns(self, ask: str) -> list[int]:
        """The user's whole turn and the opening of the assistant's."""
        return self.open_user + self.plain(ask) + self.close + self.open_assistant

    def reply(self, text: str) -> list[int]:
        """The assistant's text and the end of its turn."""
        if (found := self._replies.get(text)) is None:
            if len(self._replies) > 256:  # a skill's answers come again and again, then never
                self._replies.clear()
            found = self._replies[text] = [*self.plain(text), self.end]
        return list(found)

    def sequel(self, result: str) -> list[int]:
        """From behind the assistant's tool call to where it speaks again."""
        shown = self.plain(f"<tool_response>\n{result}\n</tool_response>")
        return self.newline + self.open_user + shown + self.close + self.open_assistant
