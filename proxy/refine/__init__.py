"""Displacement refinement: what makes the head look like the person."""
