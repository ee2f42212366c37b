"""The most seconds that a request may take."""

from __future__ import annotations

from collections.abc import Mapping

from skillc_runtime.api_error import invalid
from skillc_runtime.fields import Body, number

DEADLINE_HEADER = "x-skillc-deadline"
LONGEST = 86400
_FIELD = "deadline"


def read_deadline(body: Body, headers: Mapping[str, str], most: float | None) -> float | None:
    """Seconds from the body's `deadline` or the header, the body first; never more than `most`.

    None: there is no limit.  ApiError 400 for what is no number of seconds.
    """
    asked = number(body, _FIELD, 0, 0, LONGEST)
    if body.get(_FIELD) is None and (header := headers.get(DEADLINE_HEADER)) is not None:
        try:
            asked = number({"X-Skillc-Deadline": float(header)}, "X-Skillc-Deadline", 0, 0, LONGEST)
        except ValueError as error:
            raise invalid("X-Skillc-Deadline", "must be a number of seconds") from error
    elif body.get(_FIELD) is None:
        return most
    if asked <= 0:
        raise invalid(_FIELD, "must be above 0")
    return asked if most is None else min(asked, most)
