"""The embedded base's tokenizer: byte-level BPE behind the Qwen2 pre-tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from skillc_compiler.chat import END_OF_TEXT, IM_END, IM_START
from skillc_compiler.data.generate import Generator, Shape
from skillc_compiler.data.tools import tool_box
from skillc_compiler.gguf_tokenizer import QWEN2_SPLIT

SPECIAL = (END_OF_TEXT, IM_START, IM_END)
MARKUP = (
    "<tool_call>", "</tool_call>", "<tools>", "</tools>", "<tool_response>", "</tool_response>",
)  # fmt: skip


def generated_text(seed: int, skills: int) -> Iterator[str]:
    """Texts and questions of generated training skills."""
    generator = Generator("train", seed, Shape())
    for number in range(skills):
        sample = generator.sample()
        yield sample.text
        if number % 20 == 0:
            yield json.dumps(tool_box(generator.rng, 4))
        for question in sample.questions:
            yield question.ask
            yield question.reply


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of exactly `vocab_size` ids, special and markup tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(MARKUP),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in MARKUP])
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"the texts gave {tokenizer.get_vocab_size()} tokens, not {vocab_size}: add text"
        )
    return tokenizer
