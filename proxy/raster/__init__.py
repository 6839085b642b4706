"""Differentiable mesh rasteriser: triangle ids, interpolation, texture lookup and outlines with gradients."""

from .rasterizer import Raster, Rasterizer

__all__ = ["Raster", "Rasterizer"]
