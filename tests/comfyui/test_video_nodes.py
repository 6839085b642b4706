"""Render Video: long clips straight to a file, with their sound."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.frames import Frames, VideoWriter, read_audio

sys.path.insert(0, str(Path(__file__).parent))
from graphs import node, one_sentence, portrait  # noqa: E402

FRAMES, FPS = 6, 25.0  # the preset has 25


@pytest.fixture
def person(media) -> dict:
    """A portrait and a short motion, 96 pixels wide: `build`, `motion`."""
    moving = {
        "transfer": node("ExpPortraitTransfer", head_proxy=["build", 0], preset="speaking"),
        "motion": node("ExpPortraitTrimMotion", head_motion=["transfer", 0], start=20, end=19 + FRAMES),
    }
    return portrait(media) | moving


@pytest.fixture
def sounding(comfyui, media) -> str:
    """A clip of two seconds with a tone."""
    tone = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(32000) / 16000)[None]
    with VideoWriter(comfyui.base / "input/sounding.mp4", 10, (tone, 16000)) as writer:
        writer.write(torch.rand(20, 64, 64, 3))
    return "sounding.mp4"


def render(**inputs) -> dict:
    return node("ExpPortraitRenderVideo", head_proxy=["build", 0], head_motion=["motion", 0], width=96, **inputs)


def save(name: str) -> dict:
    return node("SaveVideo", video=[name, 0], filename_prefix=f"rendered/{name}", format="auto", codec="auto")


def test_preview_and_map_are_those_of_the_image_nodes(comfyui, person):
    shared = {"head_proxy": ["build", 0], "head_motion": ["motion", 0], "width": 96}
    graph = person | {
        "preview": render(map="preview", source_image=["build", 1]),
        "depth": render(map="depth"),
        "save_preview": save("preview"),
        "save_depth": save("depth"),
        "images": node("ExpPortraitPreview", source_image=["build", 1], **shared),
        "maps": node("ExpPortraitRender", map="depth", **shared),
        "save_images": node("SaveImage", images=["images", 0], filename_prefix="rendered/images"),
        "save_maps": node("SaveImage", images=["maps", 0], filename_prefix="rendered/maps"),
    }
    outputs = comfyui.run(graph)
    for video, images in (("save_preview", "save_images"), ("save_depth", "save_maps")):
        (path,) = comfyui.saved({video: outputs[video]})
        clip, stills = Frames.open(path), [Frames.open(still) for still in comfyui.saved({images: outputs[images]})]
        assert len(clip) == len(stills) == FRAMES and clip.fps == pytest.approx(FPS) and read_audio(path) is None
        for k, still in enumerate(stills):
            picture = clip.frame(k)[:, : still.height, : still.width]  # video has even sides
            assert (picture - still.frame(0)).abs().mean() < 0.02


def test_sound_comes_from_a_clip_or_from_audio(comfyui, person, sounding):
    graph = person | {
        "video": node("LoadVideo", file=sounding),
        "parts": node("GetVideoComponents", video=["video", 0]),
        "of_clip": render(map="mask", audio=["video", 0]),
        "of_audio": render(map="mask", audio=["parts", 1]),
        "save_clip": save("of_clip"),
        "save_audio": save("of_audio"),
    }
    outputs = comfyui.run(graph)
    for name in ("save_clip", "save_audio"):
        waveform, rate = read_audio(*comfyui.saved({name: outputs[name]}))
        assert rate == 16000 and abs(waveform.shape[1] / rate - FRAMES / FPS) < 0.1 and waveform.std() > 0.1


def test_a_silent_clip_gives_no_sound(comfyui, person, media):
    graph = person | {"video": node("LoadVideo", file=media.clip), "mask": render(map="mask", audio=["video", 0]), "save": save("mask")}
    (path,) = comfyui.saved({"save": comfyui.run(graph)["save"]})
    assert read_audio(path) is None and len(Frames.open(path)) == FRAMES


def test_a_preview_without_its_picture_is_told(comfyui, person):
    error = comfyui.failure(person | {"video": render(map="preview"), "save": save("video")})
    assert error["node_id"] == "video"
    one_sentence(error, "connect source_image")
