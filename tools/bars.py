"""A bar of a benchmark as it stands in the JSON."""

from __future__ import annotations


def bar(name: str, value: float, unit: str, most: float | None = None, least: float | None = None, **figures: float) -> dict:
    """A value against its bound, `most` or `least`, with further figures beside it."""
    ok = value <= most if least is None else value >= least
    bound = f"<= {most:g}" if least is None else f">= {least:g}"
    rounded = {key: round(figure, 3) for key, figure in figures.items()}
    return {"name": name, "value": round(value, 3), "unit": unit, "bound": bound, "ok": ok, "figures": rounded}
