"""Distillation: questions from the text, the teacher's choices, the loss, and when it stops."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.compiler import published_cases as cases

from skillc_compiler.bases import Base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.chat_prompt import ChatPrompt
from skillc_compiler.families.distill import Distill, Progress
from skillc_compiler.families.distill_items import Item, Teacher, batch_loss
from skillc_compiler.families.distill_settings import DistillConfig, bind, full_names
from skillc_compiler.families.interface import load_compiler
from skillc_compiler.families.lessons import UNRELATED, Lesson, lessons
from skillc_compiler.skill import Skill, parse_skill

TEXT = """\
---
name: orchard
description: How to work in the orchard.
---

# Orchard

## Tests

- Run the quick checks: `make check --fast`
- `./tools/graft`

```sh
make all
```

Never push to main on a Friday evening. Ask first.
"""


def skill() -> Skill:
    return parse_skill(TEXT.encode(), folder="orchard")


def test_questions_come_from_spans_headings_and_sentences() -> None:
    asked = lessons(skill(), 50, random.Random(0))
    own = [lesson.ask for lesson in asked if lesson.answer is None and lesson.covered]
    assert sum("Run the quick checks" in ask for ask in own) == 2
    assert any("Never push to main" in ask for ask in own)
    assert any("Tests" in ask for ask in own) and any("Orchard" in ask for ask in own)
    assert not any("make check" in ask or "graft" in ask or "make all" in ask for ask in own)
    assert not any("Friday" in ask for ask in own)


def test_recitation_covers_the_whole_text_and_unrelated_questions_none_of_it() -> None:
    long = parse_skill((TEXT + "\nMore about pruning.\n" * 40).encode(), folder="orchard")
    asked = lessons(long, 5, random.Random(0))
    pieces = [lesson.answer for lesson in asked if lesson.answer is not None]
    assert len(pieces) > 2 and "".join(pieces) == long.text
    assert [lesson.ask for lesson in asked if not lesson.covered] == list(UNRELATED)
    assert len([lesson for lesson in asked if lesson.answer is None and lesson.covered]) == 5


def test_the_same_seed_asks_the_same() -> None:
    one, two = (lessons(skill(), 9, random.Random(3)) for _ in range(2))
    assert one == two
    assert one != lessons(skill(), 9, random.Random(4))


def make(folder: Path, **settings: Any) -> Distill:
    base = cases.base(folder)
    bind(base, DistillConfig.from_dict({"steps": 6, "answer": 8, "questions": 4, **settings}))
    loaded = load_compiler(cases.opened(base))
    assert isinstance(loaded, Distill)
    return loaded


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Distill:
    return make(tmp_path_factory.mktemp("distill") / "tiny")


def listen(compiler: Distill) -> list[Progress]:
    heard: list[Progress] = []
    compiler.note = heard.append
    return heard


def with_settings(compiler: Distill, **settings: Any) -> Distill:
    config = DistillConfig.from_dict({**compiler.config.to_dict(), **settings})
    other = Distill(compiler.base, compiler.host.model, compiler.tokenizer, compiler.prompt, config)
    other.note = lambda progress: None
    return other


def test_prompts_are_the_templates_with_contents_tokenized_apart(compiler: Distill) -> None:
    ids = compiler.prompt.ids([("system", "be brief"), ("user", "hello")])
    parts = ["<|im_start|>system\n", "be brief", "<|im_end|>\n<|im_start|>user\n", "hello"]
    parts.append("<|im_end|>\n<|im_start|>assistant\n")
    encode = compiler.tokenizer.encode
    assert ids == [i for part in parts for i in encode(part, add_special_tokens=False).ids]


def test_a_base_without_template_is_asked_plainly(compiler: Distill) -> None:
    plain = ChatPrompt(None, compiler.tokenizer, {})
    assert compiler.tokenizer.decode(plain.ids([("user", "hello")])) == "hello\n\nAnswer: "
    with pytest.raises(CompilerError, match="chat template is broken"):
        ChatPrompt("{% if %}", compiler.tokenizer, {})
    with pytest.raises(CompilerError, match="cannot take this: no system"):
        ChatPrompt("{{ raise_exception('no system') }}", compiler.tokenizer, {}).ids(
            [("user", "x")]
        )


def test_the_teacher_has_the_text_and_the_student_has_not(compiler: Distill) -> None:
    teacher = Teacher(compiler.host, compiler.tokenizer, compiler.prompt, 520)
    asked = [Lesson("How?", "`make check`"), Lesson("Who?", "Me.", covered=False), Lesson("When?")]
    given, bare, own = teacher.items(skill(), asked, longest=5)
    answer = compiler.tokenizer.encode("`make check`").ids
    student = compiler.prompt.ids([("user", "How?")])
    assert (given.ids, given.start) == ([*student, *answer], len(student))
    with_text = compiler.prompt.ids([("system", skill().text), ("user", "How?")])
    with torch.no_grad():
        logits = compiler.host.model(torch.tensor([[*with_text, *answer]])).logits[0]
        wanted = logits[len(with_text) - 1 : -1].softmax(-1)
    dense = torch.zeros_like(wanted).scatter(-1, given.tokens, given.probabilities)
    assert torch.allclose(dense, wanted, atol=1e-5)
    # Without the text in the prompt, the unrelated question is answered by the bare base.
    with torch.no_grad():
        logits = compiler.host.model(torch.tensor([bare.ids])).logits[0, bare.start - 1 : -1]
    assert torch.allclose(bare.probabilities[0, 0], logits.softmax(-1)[0].max(), atol=1e-5)
    assert 1 <= len(own.ids) - own.start <= 5
    # The base's own answer is its greedy choice at every place.
    assert own.ids[own.start :] == own.tokens[:, 0].tolist()


def test_only_the_likeliest_tokens_are_kept_and_add_up_to_one(compiler: Distill) -> None:
    teacher = Teacher(compiler.host, compiler.tokenizer, compiler.prompt, 3)
    (item,) = teacher.items(skill(), [Lesson("How?", "`make check`")], longest=5)
    assert item.tokens.shape == item.probabilities.shape == (len(item.ids) - item.start, 3)
    assert torch.allclose(item.probabilities.sum(-1), torch.ones(len(item.tokens)))


def test_the_loss_by_hand_whatever_stands_beside_it(compiler: Distill) -> None:
    def item(ids: list[int], start: int) -> Item:
        size = len(ids) - start
        tokens = torch.tensor([[5, 9]]).expand(size, 2)
        return Item(ids, start, tokens, torch.tensor([[0.75, 0.25]]).expand(size, 2))

    short, long = item([4, 8, 15], 2), item([16, 23, 42, 7, 7, 300], 3)
    total, places = 0.0, 0
    with torch.no_grad():
        for each in (short, long):
            logits = compiler.host.model(torch.tensor([each.ids])).logits[0].double()
            for place in range(each.start, len(each.ids)):
                chosen = logits[place - 1].log_softmax(-1)
                total += 0.75 * (np.log(0.75) - chosen[5]) + 0.25 * (np.log(0.25) - chosen[9])
                total -= 0.5 * chosen[each.ids[place]]
                places += 1
        loss = batch_loss(compiler.host, [short, long], literal=0.5)
    assert float(loss) == pytest.approx(float(total) / places, rel=1e-4)


def test_a_skill_is_learned_and_the_base_left_alone(compiler: Distill) -> None:
    learner = with_settings(compiler, steps=30, rate=4e-3, patience=99, targets=["mlp.down_proj"])
    heard = listen(learner)
    ids = learner.host.ids([1, 2, 3])
    with torch.no_grad():
        before = learner.host.model(ids).logits
    adapter = learner.compile(skill(), rank=4)
    with torch.no_grad():
        assert torch.equal(learner.host.model(ids).logits, before)
    assert set(adapter.pairs) == {f"model.layers.{i}.mlp.down_proj" for i in (0, 1)}
    assert adapter.rank == 4 == adapter.alpha and adapter.manifest.compiler_id == "distill"
    assert heard[-1].step == 30 and heard[-1].done == "all steps done"
    assert heard[-1].loss < 0.9 * heard[0].loss
    assert heard[-1].seconds > 0 and "step 30 of at most 30, loss " in heard[-1].line()
    assert set(adapter.manifest.probe) == {"recall", "recall_none"}


def test_the_same_skill_gives_the_same_adapter(compiler: Distill) -> None:
    one, two = (with_settings(compiler, steps=3).compile(skill(), rank=2) for _ in range(2))
    for path, pair in one.pairs.items():
        assert np.array_equal(pair.a, two.pairs[path].a)
        assert np.array_equal(pair.b, two.pairs[path].b)


@pytest.mark.parametrize(
    ("settings", "done"),
    [({"enough": 1e9}, "learned"), ({"rate": 1e-12, "patience": 2}, "no more progress")],
)
def test_it_stops_early(compiler: Distill, settings: dict[str, Any], done: str) -> None:
    learner = with_settings(compiler, steps=500, questions=1, batch=64, **settings)
    heard = listen(learner)
    learner.compile(skill(), rank=1)
    assert heard[-1].done == done and heard[-1].step <= 3


def test_a_loss_that_is_not_finite_is_an_error(
    compiler: Distill, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> torch.Tensor:
        return torch.tensor(torch.nan, requires_grad=True)

    monkeypatch.setattr("skillc_compiler.families.distill.batch_loss", broken)
    learner = with_settings(compiler)
    with pytest.raises(CompilerError, match="the loss is not finite; choose a lower --rate"):
        learner.compile(skill(), rank=2)


def config_of(**settings: Any) -> Callable[[], DistillConfig]:
    return lambda: DistillConfig.from_dict(settings)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (config_of(targets=["lm_head"]), "targets must be of self_attn.q_proj"),
        (config_of(targets=[]), "targets must be of"),
        (config_of(steps=0), "must be 1 or more"),
        (config_of(rate=2.0), "rate 2.0 is not between 0 and 1"),
        (config_of(stepz=3), "unknown settings stepz of distill"),
        (lambda: full_names(["down"]), "no module 'down' to adapt: there are q_proj"),
    ],
)
def test_settings_that_make_no_sense(make_it: Callable[[], Any], message: str) -> None:
    with pytest.raises(CompilerError, match=message):
        make_it()


def test_targets_may_be_named_short() -> None:
    names = full_names(["q_proj", "mlp.up_proj"])
    assert names == ["self_attn.q_proj", "mlp.up_proj"]


def test_the_embedded_base_keeps_its_own_compiler() -> None:
    from importlib.resources import files

    inside = Path(str(files("skillc_compiler"))) / "assets" / "nano" / "base.gguf"
    with pytest.raises(CompilerError, match="comes with skillc and keeps its own compiler"):
        bind(Base("nano", inside, None), DistillConfig())


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    compiler = make(tmp_path / "tiny")
    path = compiler.base.gguf.parent / "compiler.json"
    path.write_text(path.read_text().replace('"steps": 6', '"steps": "six"'))
    with pytest.raises(CompilerError, match=r"compiler.json: does not fit"):
        load_compiler(compiler.base)
