"""Keyframes of expressions as plain text: `0: smile 0.4; 24: surprise 1, jawOpen 0.2`."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from .expression_controls import curve_amounts, find_name

_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(s?)", re.IGNORECASE)
_TERM = re.compile(r"([A-Za-z]\w*)(?:\s+(\S+))?")


@dataclasses.dataclass(frozen=True)
class Keyframe:
    """Amounts of `expression_controls.CONTROLS` at a time in seconds; what is not named is 0."""

    seconds: float
    amounts: Mapping[str, float]


def parse_keyframes(text: str, fps: float) -> tuple[Keyframe, ...]:
    """Keyframes in order of time, from lines or `;` separated keys `time: name amount, name amount`.

    The time is a frame number, or seconds with an s (`1.5s`). Names are those of `expression_controls`: named expressions,
    ARKit's 52, such a name without its side for both, and head or gaze angles in degrees. `,` or `+` separates them, an amount
    left out is 1, and a key without a name is the face at rest. Raises ValueError with the line and what was wrong there.
    """
    keys: dict[float, Keyframe] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for part in filter(None, map(str.strip, line.split(";"))):
            try:
                key = _parse_key(part, fps)
                if key.seconds in keys:
                    raise ValueError("there is already a key at this time; write both into one")
            except ValueError as error:
                raise ValueError(f"line {number} of the keyframes, {part!r}: {error}") from None
            keys[key.seconds] = key
    return tuple(keys[seconds] for seconds in sorted(keys))


def _parse_key(text: str, fps: float) -> Keyframe:
    time, colon, terms = text.partition(":")
    if not colon:
        raise ValueError("a key needs a time and a colon first, as in 24: smile 0.4")
    found = _TIME.fullmatch(time.strip())
    if not found:
        raise ValueError(f"{time.strip()!r} is no time; write a frame number (24) or seconds (1.5s)")
    seconds = float(found[1]) if found[2] else float(found[1]) / fps
    amounts: dict[str, float] = {}
    for term in filter(None, map(str.strip, re.split(r",|\+", terms))):
        name, amount = _parse_term(term)
        if name in amounts:
            raise ValueError(f"{name} stands there twice; keep one")
        amounts[name] = amount
    return Keyframe(seconds, curve_amounts(amounts))


def _parse_term(term: str) -> tuple[str, float]:
    found = _TERM.fullmatch(term)
    if not found:
        raise ValueError(f"{term!r} is no name with an amount, as in smile 0.4")
    name = find_name(found[1])
    try:
        amount = 1.0 if found[2] is None else float(found[2])
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount):
        raise ValueError(f"{found[2]!r} is no amount of {name}; write a number, as in {name} 0.4")
    return name, amount
