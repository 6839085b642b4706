"""Differentiable rasteriser."""
