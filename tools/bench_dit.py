"""Bars of the DiT stage."""

from __future__ import annotations

from bench_pocket import pocket_real_bars, pocket_synthetic_bars

__all__ = ["pocket_real_bars", "pocket_synthetic_bars"]
