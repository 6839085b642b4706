"""Faces in pictures: detection, 478 landmarks, tracking through clips and person masks, in plain PyTorch."""

from .face_detector import Detections
from .landmarker import Landmarker, load_landmarker
from .track import FaceLandmarks

__all__ = ["Detections", "FaceLandmarks", "Landmarker", "load_landmarker"]
