"""What an expression edit may name: ARKit's curves, head and gaze angles, and named expressions made of curves."""

from __future__ import annotations

import difflib
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path

from .arkit_bridge import ARKIT_NAMES

FILE = Path(__file__).parent / "named_expressions.json"
ANGLES = ("headPitch", "headYaw", "headRoll", "gazePitch", "gazeYaw")  # degrees
CONTROLS = ARKIT_NAMES + ANGLES
# A name without its side means both; jaw and mouth are left out, whose Left and Right are directions.
BOTH_SIDES = {
    name.removesuffix("Left"): (name, name.removesuffix("Left") + "Right")
    for name in ARKIT_NAMES
    if name.endswith("Left") and name not in ("jawLeft", "mouthLeft")
}
AMOUNTS = (-1.0, 2.0)  # of a curve or a named expression; 1 is all of it
MOST_DEGREES = 90.0


@functools.cache
def named_expressions() -> dict[str, dict[str, float]]:
    """The named expressions as amounts of curves or pairs of curves: neutral, six emotions and five visemes."""
    listed = json.loads(FILE.read_text(encoding="utf-8"))["expressions"]
    return {name: entry["curves"] for name, entry in listed.items()}


def find_name(word: str) -> str:
    """The named expression, curve, pair of curves or angle that a word means, whatever its case.

    Raises ValueError that tells similar names.
    """
    known = {name.lower(): name for name in (*named_expressions(), *CONTROLS, *BOTH_SIDES)}
    if word.lower() in known:
        return known[word.lower()]
    near = [known[name] for name in difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose {', '.join(named_expressions())} or a name of ARKit's 52"
    raise ValueError(f"there is no expression {word!r}; {hint}")


def curve_amounts(terms: Mapping[str, float]) -> dict[str, float]:
    """Amounts of CONTROLS (angles in degrees) that several terms give together: everything spelled out, sums taken.

    Raises ValueError for an unknown name, or an amount outside -1..2 (angles: -90..90 degrees).
    """
    total: dict[str, float] = {}
    for word, amount in terms.items():
        name = find_name(word)
        low, high, unit = (-MOST_DEGREES, MOST_DEGREES, " degrees") if name in ANGLES else (*AMOUNTS, "")
        if not (math.isfinite(amount) and low <= amount <= high):
            raise ValueError(f"{name} is {amount:g}; give a number from {low:g} to {high:g}{unit}")
        for part, share in named_expressions().get(name, {name: 1.0}).items():
            for control in BOTH_SIDES.get(part, (part,)):
                total[control] = total.get(control, 0.0) + share * amount
    return total
