"""A head model that is ready to be fitted: a user's own file is calibrated once, and the table is kept beside it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

from .calibrate import calibrate_landmarks, landmarks_path, save_landmarks
from .head_model import HeadModel, load_head_model
from .landmarks import Landmarker


def load_calibrated_head(
    path: str | None, landmarker: Landmarker, renders: int = 400, progress: Callable[[int, int], None] | None = None
) -> HeadModel:
    """Like `load_head_model`, but never without a landmark table.

    The first use of a user's file takes minutes; the table is then written to `<file>.landmarks.npz`, where later loads
    find it. Where that folder cannot be written to, a warning says so. Raises what `load_head_model` and
    `calibrate_landmarks` raise.
    """
    model = load_head_model(path)
    if model.landmarks is not None:
        return model
    table = calibrate_landmarks(model, landmarker, renders=renders, progress=progress)
    try:
        save_landmarks(landmarks_path(path), table, model.model_id)
    except OSError as error:
        warnings.warn(f"the landmark table of {path} cannot be kept beside it ({error}); it will be made anew", stacklevel=2)
    load_head_model.cache_clear()  # the next load finds the table
    return dataclasses.replace(model, landmarks=table)
