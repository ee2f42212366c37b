"""Characters that a reader cannot see and a model can: found, decoded, and told from honest use.

Tag characters, bidirectional controls, zero-width characters and runs of variation selectors carry
hidden instructions. Emoji sequences, flags, Arabic, Indic and CJK text need some of them, and pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_TAGS = "\U000e0000-\U000e007f"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_ZERO_WIDTH = "\u200b-\u200d\u2060-\u2065\ufeff"
_DIRECTION = "\u202a-\u202e\u2066-\u2069"
_FORMAT = "\u206a-\u206f\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
_FILLERS = "\u115f\u1160\u3164\uffa0"

_SUSPECT = re.compile(
    f"[{_TAGS}]+|[{_SELECTORS}]+|[{_ZERO_WIDTH}]+|[{_DIRECTION}]|[{_FORMAT}]+|[{_FILLERS}]{{2,}}"
)
# Most texts have none of these; one set is searched ten times faster than the alternatives.
_ANY = re.compile(f"[{_TAGS}{_SELECTORS}{_ZERO_WIDTH}{_DIRECTION}{_FORMAT}{_FILLERS}]")
_FLAGS = tuple(
    "".join(chr(0xE0000 + ord(c)) for c in region) + "\U000e007f"
    for region in ("gbeng", "gbsct", "gbwls")
)
_EMOJI = re.compile(
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf"
    "\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
# Arabic to N'Ko, Indic to Myanmar, Khmer, Mongolian, further Indic, Arabic forms, Brahmic planes.
_JOINING = re.compile(
    "[\u0600-\u08ff\u0900-\u109f\u1780-\u18af\u1900-\u1aff\u1b00-\u1c4f\ua840-\uaaff"
    "\uabc0-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)
# Scripts without spaces, where U+200B marks a place to break: Thai, Lao, Tibetan, Myanmar, Khmer.
_UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf]")
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_VARIED = re.compile(
    "[0\u1000-\u109f\u1800-\u18af\u2200-\u23ff\u2460-\u27ff\u2a00-\u2aff\u3000-\u9fff\ua840-\ua87f"
    "\uaa60-\uaa7f\uf900-\ufaff\uff00-\uffef\U00010ac0-\U00010aff\U00013000-\U0001345f"
    "\U0001f000-\U0001faff\U00020000-\U0003ffff]"
)


@dataclass(frozen=True, slots=True)
class Hidden:
    """One run of hidden characters: `at` is its index in the text, `payload` what it says."""

    at: int
    kind: str
    chars: str
    payload: str


def find_hidden(text: str) -> Iterator[Hidden]:
    """Yield every run of hidden characters of `text` that has no honest use where it stands."""
    if text.isascii() or not _ANY.search(text):
        return
    for match in _SUSPECT.finditer(text):
        run = match[0]
        for kind, members, honest, decode in _KINDS:
            if members.match(run):
                if not honest(text, match.start(), match.end()):
                    yield Hidden(match.start(), kind, run, decode(run))
                break


def visible(text: str, limit: int = 60) -> str:
    """`text` on one line, unprintable characters as escapes, cut to about `limit` characters."""
    cut = text[:limit]
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut
    )
    return shown + ("..." if len(text) > limit else "")


def _flag(text: str, start: int, end: int) -> bool:
    return text[start - 1 : start] == "\U0001f3f4" and text[start:end] in _FLAGS


def _selector(text: str, start: int, end: int) -> bool:
    """One selector after a character that has variants; U+FE0E and U+FE0F after any visible one."""
    base = text[start - 1 : start]
    if end - start > 1 or not base.strip():
        return False
    if text[start] in "\ufe0e\ufe0f":
        return True
    return bool((_IDEOGRAPH if text[start] > "\uffff" else _VARIED).match(base))


def _zero_width(text: str, start: int, end: int) -> bool:
    """One joiner within an emoji or a joining script, or a break in a script without spaces."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if end - start > 1 or text[start] not in "\u200b\u200c\u200d":
        return False
    if text[start] == "\u200b":
        return bool(_UNSPACED.match(before) and _UNSPACED.match(after))
    if _JOINING.match(before):
        return True
    emoji = before == "\ufe0f" or _EMOJI.match(before)
    return bool(text[start] == "\u200d" and emoji and _EMOJI.match(after))


def _never(text: str, start: int, end: int) -> bool:
    return False


def _tag_payload(run: str) -> str:
    return "".join(chr(ord(c) - 0xE0000) for c in run if 0xE0020 <= ord(c) < 0xE007F)


def _selector_payload(run: str) -> str:
    points = (ord(c) for c in run)
    data = bytes(p - 0xFE00 if p < 0xFE10 else p - 0xE0100 + 16 for p in points)
    return data.decode("utf-8", "replace")


def _bit_payload(run: str) -> str:
    """Eight of U+200B and U+200C a byte is the usual code; anything else is listed."""
    bits = "".join("01"["\u200b\u200c".index(c)] for c in run if c in "\u200b\u200c")
    if len(bits) >= 8 and len(bits) == len(run.strip("\u200d\u2060\ufeff")):
        data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8))
        return data.decode("utf-8", "replace")
    return _points(run)


def _points(run: str) -> str:
    more = " ..." if len(run) > 8 else ""
    return " ".join(f"U+{ord(c):04X}" for c in run[:8]) + more


_Honest = Callable[[str, int, int], bool]
_KINDS: tuple[tuple[str, re.Pattern[str], _Honest, Callable[[str], str]], ...] = (
    ("tag characters", re.compile(f"[{_TAGS}]"), _flag, _tag_payload),
    ("variation selectors", re.compile(f"[{_SELECTORS}]"), _selector, _selector_payload),
    ("zero-width characters", re.compile(f"[{_ZERO_WIDTH}]"), _zero_width, _bit_payload),
    ("bidirectional controls", re.compile(f"[{_DIRECTION}]"), _never, _points),
    ("format controls", re.compile(f"[{_FORMAT}]"), _never, _points),
    ("invisible letters", re.compile(f"[{_FILLERS}]"), _never, _points),
)
