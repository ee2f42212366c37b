"""Whether a base's two sides, transformers and llama.cpp, tokenize and compute the same."""

from __future__ import annotations

import gc
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillc_compiler.base_match import TOLERANCES, coarsest
from skillc_compiler.errors import BaseModelError
from skillc_compiler.gguf_header import read_header

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    Logits = npt.NDArray[np.float32]

PROMPTS = (
    "Deploy the service with `kubectl apply -f deploy.yaml` and wait for it.",
    "def add(a: int, b: int) -> int:\n    return a + b\n",
    "Il était une fois, 3.14159 and 1,000 apples: how many are left?",
    "The capital of France is",
)
SAMPLES = (
    *PROMPTS,
    "Hello, world! It's 9 o'clock; DON'T PANIC, we'll see.",
    "  leading and   inner spaces \t\ttabs\n\n\nlines\r\n",
    "naïve café Übung größer 日本語 中文 한국어 русский العربية हिन्दी",
    '{"name": "run", "arguments": {"command": "ls -la /tmp | wc -l"}}',
    "emoji 😀 👨‍👩‍👧 ½ ² ﬁ 1234567890",
    "camelCase snake_case kebab-case SCREAMING x=1;y+=2 // comment",
)
# What bfloat16 adds on the side of transformers.
_HALF = 0.04


@dataclass(frozen=True, slots=True)
class LogitCheck:
    """How the two sides' logits compare over all positions of the prompts.

    `difference` is relative (root mean square, logits centred) and must not pass `tolerance`;
    `divergence` is the mean Kullback-Leibler divergence in nats, `same_first` the part of positions
    with the same most likely token.
    """

    positions: int
    difference: float
    tolerance: float
    divergence: float
    same_first: float

    def to_dict(self) -> dict[str, Any]:
        """The check as plain JSON values, rounded."""
        return {key: round(value, 5) for key, value in asdict(self).items()}


def check_tokens(gguf: Path, tokenizer: Tokenizer) -> int:
    """Compare the ids of samples, and of every added token; returns how many texts agreed.

    `tokenizer` is the model's own. Raises BaseModelError with the first text that does not.
    """
    from skillc_runtime.llama import Model

    model = Model(gguf, vocabulary_only=True)
    try:
        added = [str(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
        for text in [*SAMPLES, *added]:
            plain = unicodedata.normalize("NFC", text)
            ours = model.vocab.tokenize(plain, special=True)
            theirs = list(tokenizer.encode(plain, add_special_tokens=False).ids)
            if ours != theirs and not (text in added and ours == [tokenizer.token_to_id(text)]):
                raise BaseModelError(
                    f"not the same tokenizer: {text[:40]!r} is {theirs[:8]} in the folder and "
                    f"{ours[:8]} in the GGUF"
                )
    finally:
        model.close()
    return len(SAMPLES) + len(added)


def check_logits(
    gguf: Path, tokenizer: Tokenizer, load: Callable[[], Any], *, dtype: str
) -> LogitCheck:
    """Run the prompts through both sides. Raises BaseModelError when they are not the same model.

    `load` gives the transformers model, called once llama.cpp's side is done and freed.
    """
    bos = _bos(gguf)
    prompts = [[*bos, *tokenizer.encode(p, add_special_tokens=False).ids] for p in PROMPTS]
    ours = llama_logits(gguf, prompts)
    model = load()
    theirs = torch_logits(model, prompts)
    del model
    gc.collect()
    tolerance = TOLERANCES[coarsest(read_header(gguf))][1] + (0.0 if dtype == "float32" else _HALF)
    found = compare(ours, theirs, tolerance)
    if not found.difference <= found.tolerance:
        raise BaseModelError(
            f"not the same model: logits differ by {found.difference:.2g} of their size, "
            f"where {found.tolerance:g} is what the GGUF's types explain"
        )
    return found


def compare(ours: Sequence[Logits], theirs: Sequence[Logits], tolerance: float) -> LogitCheck:
    """Compare logits [tokens, vocabulary] of each prompt; the larger vocabulary is cut."""
    import numpy as np

    size = min(ours[0].shape[1], theirs[0].shape[1])
    a = np.concatenate([rows[:, :size] for rows in ours]).astype(np.float64)
    b = np.concatenate([rows[:, :size] for rows in theirs]).astype(np.float64)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    log_a = a - np.log(np.exp(a).sum(axis=1, keepdims=True))
    log_b = b - np.log(np.exp(b).sum(axis=1, keepdims=True))
    return LogitCheck(
        positions=len(a),
        difference=float(np.sqrt(np.square(a - b).sum() / max(np.square(b).sum(), 1e-30))),
        tolerance=tolerance,
        divergence=float((np.exp(log_b) * (log_b - log_a)).sum(axis=1).mean()),
        same_first=float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
    )


def llama_logits(gguf: Path, prompts: Sequence[Sequence[int]]) -> list[Logits]:
    """Logits [tokens, vocabulary] of each prompt by llama.cpp, as exact as the weights are."""
    import numpy as np

    from skillc_runtime.context import Context, Entry
    from skillc_runtime.llama import Model

    model = Model(gguf)
    try:
        longest = max(map(len, prompts))
        context = Context(model, cells=longest + 8, n_threads=1, sequences=1, exact=True)
        try:
            found = []
            for prompt in prompts:
                context.clear(data=True)
                rows = []
                for start in range(0, len(prompt), context.outputs):
                    part = prompt[start : start + context.outputs]
                    context.decode([Entry(t, start + i, output=True) for i, t in enumerate(part)])
                    rows += [context.row(i) for i in range(len(part))]
                found.append(np.stack(rows))
            return found
        finally:
            context.close()
    finally:
        model.close()


def torch_logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[Logits]:
    """Logits [tokens, vocabulary] of each prompt by a transformers model."""
    import torch

    with torch.inference_mode():
        return [
            model(torch.tensor([list(prompt)], device=model.device)).logits[0].float().cpu().numpy()
            for prompt in prompts
        ]


def _bos(gguf: Path) -> list[int]:
    fields = read_header(gguf).fields
    adds = fields.get("tokenizer.ggml.add_bos_token")
    bos = fields.get("tokenizer.ggml.bos_token_id")
    return [int(bos.value)] if adds is not None and adds.value and bos is not None else []
