"""Displacement refinement: what makes the head look like the person."""

from .outside_maps import OutsideMaps
from .refine import Fields, Refined, refine_head, solve_dynamic
from .settings import QUALITIES, RefineSettings, ShadingPrior

__all__ = ["QUALITIES", "Fields", "OutsideMaps", "Refined", "RefineSettings", "ShadingPrior", "refine_head", "solve_dynamic"]
