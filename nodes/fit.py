"""The fit of the head model to pictures, and a look at it."""

from __future__ import annotations

import logging

from comfy_api.latest import Input, io
from torch import Tensor

from ..proxy.fit import fit_frames
from ..proxy.frames import DEFAULT_FPS
from ..proxy.head_model import HeadModel, load_head_model
from ..proxy.landmarks import load_landmarker
from ..proxy.look import fit_sheet
from ..proxy.overlay import render_overlay
from ..transfer.motion_strip import motion_strip
from .pictures import shown, to_frames
from .runtime import compute_device, gather, node_progress, result_device
from .types import CATEGORY, HEAD_MODEL, HEAD_TRACK, FittedTrack

log = logging.getLogger(__name__)

MISSING = ["interpolate", "previous", "empty"]


class FitHead(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitFit",
            display_name="SMPL-X Fit",
            category=CATEGORY,
            description="Fits the head model to a portrait or a clip: identity, and expression, gaze and head pose of every frame.",
            inputs=[
                io.MultiType.Input(
                    "images",
                    types=[io.Image, io.Video],
                    tooltip="One photo, the frames of a clip, or a video. A video brings its own frame rate and is read in "
                    "pieces, which saves memory on long clips.",
                ),
                HEAD_MODEL.Input("head_model", optional=True, tooltip="Left open: the embedded head."),
                io.Float.Input(
                    "fps",
                    default=DEFAULT_FPS,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    optional=True,
                    tooltip="Frames per second of an image batch. A video brings its own.",
                ),
                io.Int.Input(
                    "face_index",
                    default=0,
                    min=0,
                    max=63,
                    optional=True,
                    tooltip="Which face, where there are several: 0 is the largest.",
                ),
                io.Combo.Input(
                    "missing_faces",
                    options=MISSING,
                    default=MISSING[0],
                    optional=True,
                    advanced=True,
                    tooltip="What frames without a face get: the head between its neighbours, that of the previous frame, "
                    "or a head at rest without landmarks. They are marked as not valid.",
                ),
                io.Float.Input(
                    "focal",
                    default=0.0,
                    min=0.0,
                    max=100000.0,
                    step=1.0,
                    optional=True,
                    advanced=True,
                    tooltip="Focal length of the camera in pixels, if you know it. 0 estimates it.",
                ),
            ],
            outputs=[HEAD_TRACK.Output(display_name="head_track", tooltip="Identity, expression, pose and camera: kilobytes per frame.")],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor | Input.Video,
        head_model: HeadModel | None = None,
        fps: float = DEFAULT_FPS,
        face_index: int = 0,
        missing_faces: str = MISSING[0],
        focal: float = 0.0,
    ) -> io.NodeOutput:
        device = compute_device()
        model = head_model or load_head_model()
        frames = to_frames(images, fps)
        landmarker = load_landmarker(device)
        track = fit_frames(
            frames, model.to(device), landmarker, face_index, missing_faces, focal=focal or None, progress=node_progress()
        )
        lost = len(track) - int(track.valid.sum())
        if lost:
            log.warning("SMPL-X Fit: no face in %d of %d frames (missing_faces: %s)", lost, len(track), missing_faces)
        look = [fit_sheet(frames, track, model.to(device))] + ([motion_strip(track, model.to(device))] if len(track) > 1 else [])
        return io.NodeOutput(FittedTrack(model, track.to(result_device())), ui=shown(*look))


class FitOverlay(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitFitOverlay",
            display_name="Fit Overlay",
            category=CATEGORY,
            description="Draws the fitted head over the pictures, to judge a fit by eye.",
            inputs=[
                io.MultiType.Input("images", types=[io.Image, io.Video], tooltip="The same pictures that were fitted."),
                HEAD_TRACK.Input("head_track", tooltip="The fit to look at."),
            ],
            outputs=[io.Image.Output(display_name="overlay", tooltip="One image for each frame, at its size.")],
        )

    @classmethod
    def execute(cls, images: Tensor | Input.Video, head_track: FittedTrack) -> io.NodeOutput:
        device, track = compute_device(), head_track.track
        overlay = render_overlay(to_frames(images, track.fps), track.to(device), head_track.model.to(device))
        return io.NodeOutput(gather(overlay, len(track)))
