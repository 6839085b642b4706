"""Bars of the fit: real clips, and clips rendered from another head whose rotation is known."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from synthetic_head import IctHead
from torch import Tensor

from expportrait.proxy.fit import fit_landmarks
from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmark_points import FACE_OVAL, LEFT_CORNER, RIGHT_CORNER
from expportrait.proxy.landmarks import FaceLandmarks, Landmarker, load_landmarker
from expportrait.proxy.rotation import mean, to_matrix, to_rotvec

MAX_ERROR = 0.9  # % of the distance of the outer eye corners
MAX_DEGREES = 2.0
MIN_RATE = 150.0
CLIPS = 4  # synthetic


def fit_bars(data: Path) -> list[dict]:
    """Bars as {name, value, unit, bound, ok}, from the shared data's folder. About two minutes on two cores."""
    model, landmarker = load_head_model(), load_landmarker()
    bars = []
    for path in sorted((Path(data) / "clips").glob("*.mp4")):
        landmarks = landmarker.track(Frames.open(path))
        seconds, track = _timed_fit(landmarks, model)
        bars += _clip_bars(path.stem, track, landmarks)
        bars.append(_least(f"{path.stem}: fit rate after landmarks", len(track) / seconds, "frames/s", MIN_RATE))
    degrees = rotation_errors(Path(data) / "heads" / "ict_facekit_light.npz", model, landmarker)
    bars.append(_most("synthetic head rotation, median error", float(degrees.median()), "degrees", MAX_DEGREES))
    return bars


def _most(name: str, value: float, unit: str, bound: float) -> dict:
    return {"name": name, "value": round(value, 3), "unit": unit, "bound": f"<= {bound:g}", "ok": value <= bound}


def _least(name: str, value: float, unit: str, bound: float) -> dict:
    return {"name": name, "value": round(value, 3), "unit": unit, "bound": f">= {bound:g}", "ok": value >= bound}


def _timed_fit(landmarks: FaceLandmarks, model: HeadModel) -> tuple[float, HeadTrack]:
    """The better of two runs: the first one also warms the libraries up."""
    seconds = math.inf
    for _ in range(2):
        start = time.perf_counter()
        track = fit_landmarks(landmarks, model)
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, track


def _clip_bars(name: str, track: HeadTrack, landmarks: FaceLandmarks) -> list[dict]:
    keep = torch.ones(track.landmarks.shape[1], dtype=torch.bool)
    keep[FACE_OVAL] = False
    span = (track.landmarks[:, LEFT_CORNER] - track.landmarks[:, RIGHT_CORNER]).norm(dim=-1)
    error = (track.landmarks_fit - track.landmarks).norm(dim=-1)[:, keep] / span[:, None]

    def acceleration(points: Tensor) -> float:
        return float((points[2:] - 2 * points[1:-1] + points[:-2])[:, keep].norm(dim=-1).mean())

    return [
        _most(f"{name}: landmark error", 100 * float(error[track.valid].mean()), "% of eye distance", MAX_ERROR),
        _most(f"{name}: identity RMS", float(track.identity[track.identity != 0].square().mean().sqrt()), "sigma", 1.0),
        _least(f"{name}: frames with a fit", float(track.valid.sum()), "frames", float(landmarks.valid.sum())),
        _most(f"{name}: acceleration of fitted points", acceleration(track.landmarks_fit), "px", acceleration(track.landmarks)),
    ]


def rotation_errors(path: Path, model: HeadModel, landmarker: Landmarker) -> Tensor:
    """Degrees [N] between true and fitted head rotation over all synthetic clips.

    Two head models have different neutral frames (what "facing straight ahead" means), and a face's shape shifts it a
    little for each person. So one constant rotation per clip, the mean of (true)^-1 (fitted), is taken out first.
    """
    generator = torch.Generator().manual_seed(11)
    head = IctHead(path)
    errors = []
    for _ in range(CLIPS):
        images, true = head.clip(generator)
        track = fit_landmarks(landmarker.track(Frames.from_images(images)), model)
        local = to_matrix(track.joints)
        fitted = local[:, 0] @ local[:, 1] @ local[:, 2]
        offset = to_rotvec(true.mT @ fitted)
        rest = to_matrix(mean(offset)).mT @ to_matrix(offset)
        errors.append(to_rotvec(rest).norm(dim=-1) * (180 / math.pi))
    return torch.cat(errors)
