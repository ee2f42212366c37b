"""The teacher's side of distillation, and the loss of a batch of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from skillc_compiler.families.chat_prompt import ChatPrompt
from skillc_compiler.families.host import Host
from skillc_compiler.families.lessons import Lesson

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.skill import Skill

TEACHER_BATCH = 8


@dataclass(frozen=True)
class Item:
    """One answer as the student has to give it.

    ids: prompt without the skill, then the answer [S]; start: where the answer begins. tokens,
    probabilities [S - start, k]: the teacher's most likely tokens at each place of the answer.
    """

    ids: list[int]
    start: int
    tokens: Tensor
    probabilities: Tensor


class Teacher:
    """The base with the skill's text in its prompt."""

    def __init__(self, host: Host, tokenizer: Tokenizer, prompt: ChatPrompt, top_k: int) -> None:
        self.host, self.tokenizer, self.prompt = host, tokenizer, prompt
        self.top_k = top_k
        end = host.model.config.get_text_config().eos_token_id
        self.ends = [end] if isinstance(end, int) else list(end or [])

    @torch.no_grad()
    def items(self, skill: Skill, asked: Sequence[Lesson], *, longest: int) -> list[Item]:
        """Answer every lesson, at most `longest` tokens each, and keep the teacher's choices."""
        found = []
        for start in range(0, len(asked), TEACHER_BATCH):
            group = asked[start : start + TEACHER_BATCH]
            prompts = [self._prompt(skill, lesson) for lesson in group]
            answers = self._answers(prompts, group, longest)
            for lesson, prompt, answer in zip(group, prompts, answers, strict=True):
                if answer:
                    tokens, probabilities = self._choices(prompt, answer)
                    own = self.prompt.ids([("user", lesson.ask)])
                    found.append(Item([*own, *answer], len(own), tokens, probabilities))
        return found

    def _prompt(self, skill: Skill, lesson: Lesson) -> list[int]:
        messages = [("system", skill.text)] if lesson.covered else []
        return self.prompt.ids([*messages, ("user", lesson.ask)])

    def _answers(
        self, prompts: Sequence[list[int]], asked: Sequence[Lesson], longest: int
    ) -> list[list[int]]:
        """Each lesson's answer in tokens: the one it names, or the base's own greedy one."""
        open_ = [n for n, lesson in enumerate(asked) if lesson.answer is None]
        said = dict(zip(open_, self._generate([prompts[n] for n in open_], longest), strict=True))
        return [
            said[number]
            if lesson.answer is None
            else self.tokenizer.encode(lesson.answer, add_special_tokens=False).ids
            for number, lesson in enumerate(asked)
        ]

    def _generate(self, prompts: Sequence[list[int]], longest: int) -> list[list[int]]:
        if not prompts:
            return []
        size = max(map(len, prompts))
        pad = self.ends[0] if self.ends else 0
        rows = [[pad] * (size - len(ids)) + ids for ids in prompts]
        mask = [[0] * (size - len(ids)) + [1] * len(ids) for ids in prompts]
        device = self.host.ids([0]).device
        made = self.host.model.generate(
            torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            max_new_tokens=longest,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=self.ends or None,
        )
        return [self._until_end(row[size:].tolist()) for row in made]

    def _until_end(self, answer: list[int]) -> list[int]:
        """The answer with its end token, if it came to one."""
        for place, token in enumerate(answer):
            if token in self.ends:
                return answer[: place + 1]
        return answer

    def _choices(self, prompt: list[int], answer: list[int]) -> tuple[Tensor, Tensor]:
        logits = self.host.model(self.host.ids([*prompt, *answer])).logits[0]
        wanted = logits[len(prompt) - 1 : -1].float()
        probabilities, tokens = wanted.softmax(-1).topk(min(self.top_k, wanted.shape[-1]), dim=-1)
        return tokens, probabilities / probabilities.sum(-1, keepdim=True)


def batch_loss(host: Host, items: Sequence[Item], literal: float) -> Tensor:
    """KL(teacher's top k || student) + literal * CE(answer), mean over the answers' tokens."""
    device = host.ids([0]).device
    rows = pad_sequence([torch.tensor(item.ids) for item in items], batch_first=True).to(device)
    # Padding comes last, where a causal model's answers do not see it.
    logits = host.model(rows, use_cache=False).logits
    kept, tokens, probabilities, answers = [], [], [], []
    for row, item in enumerate(items):
        kept.append(logits[row, item.start - 1 : len(item.ids) - 1].float())
        tokens.append(item.tokens)
        probabilities.append(item.probabilities)
        answers.append(torch.tensor(item.ids[item.start :], device=device))
    log_student = torch.cat(kept).log_softmax(-1)
    teacher = torch.cat(probabilities)
    log_teacher = teacher.clamp_min(1e-12).log()
    kl = (teacher * (log_teacher - log_student.gather(-1, torch.cat(tokens)))).sum(-1)
    said = F.nll_loss(log_student, torch.cat(answers))
    return kl.mean() + literal * said
