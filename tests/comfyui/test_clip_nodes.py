"""Prepare Clip and Paste Back around core's nodes for video models."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from graphs import node, one_sentence, portrait  # noqa: E402
from tiny_wan import write_text, write_vae, write_wan  # noqa: E402

FRAMES = 6


@pytest.fixture
def clip(media) -> dict:
    """The first frames of the clip: `few`."""
    return {
        "video": node("LoadVideo", file=media.clip),
        "parts": node("GetVideoComponents", video=["video", 0]),
        "few": node("ImageFromBatch", image=["parts", 0], batch_index=0, length=FRAMES),
    }


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_clip_goes_through_fun_control_and_back(comfyui, media, clip):
    write_text(comfyui.base / "output/tiny_text")
    write_wan(comfyui.base / "models/diffusion_models/tiny_fun_control.safetensors", "fun_control")
    write_vae(comfyui.base / "models/vae/tiny_wan_vae.safetensors")
    graph = clip | {
        "prepare": node(
            "ExpPortraitPrepareClip", images=["few", 0], family="Wan Fun-Control", width=64, height=64, length_policy="ping-pong"
        ),
        "model": node("UNETLoader", unet_name="tiny_fun_control.safetensors", weight_dtype="default"),
        "vae": node("VAELoader", vae_name="tiny_wan_vae.safetensors"),
        "text": node("LoadTrainingDataset", folder_name="tiny_text"),
        "control": node(
            "WanFunControlToVideo", positive=["text", 1], negative=["text", 1], vae=["vae", 0], batch_size=1,
            width=["prepare", 3], height=["prepare", 4], length=["prepare", 5], control_video=["prepare", 0],
        ),
        "sample": node(
            "KSampler", model=["model", 0], positive=["control", 0], negative=["control", 1], latent_image=["control", 2],
            seed=1, steps=1, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "paste": node("ExpPortraitPasteBack", source_images=["few", 0], result_images=["decode", 0], framing=["prepare", 2]),
        "cut": node("SaveImage", images=["prepare", 0], filename_prefix="cut"),
        "full": node("SaveImage", images=["paste", 0], filename_prefix="full"),
    }  # fmt: skip
    outputs = comfyui.run(graph)
    cut, full = (comfyui.saved({name: outputs[name]}) for name in ("cut", "full"))
    assert len(cut) == 9 and len(full) == FRAMES
    assert Image.open(cut[0]).size == (64, 64) and Image.open(full[0]).size == media.size
    assert abs(pixels(cut[4]) - pixels(cut[6])).max() == 0 != abs(pixels(cut[4]) - pixels(cut[5])).max()


def test_maps_and_paste_back_follow_the_framing(comfyui, media):
    graph = portrait(media) | {
        "transfer": node("ExpPortraitTransfer", head_proxy=["build", 0], preset="speaking", pose_from="source"),
        "motion": node("ExpPortraitTrimMotion", head_motion=["transfer", 0], start=0, end=FRAMES - 1),
        "lines": node("ExpPortraitRender", head_proxy=["build", 0], head_motion=["motion", 0], map="landmarks"),
        "face": node("ImageToMask", image=["lines", 0], channel="red"),
        "prepare": node("ExpPortraitPrepareClip", images=["build", 1], mask=["face", 0], family="Wan VACE", width=160, height=192),
        "map": node("ExpPortraitRender", head_proxy=["build", 0], head_motion=["motion", 0], map="shaded", framing=["prepare", 2]),
        "again": node("ExpPortraitPrepareClip", images=["lines", 0], framing=["prepare", 2]),
        "paste": node(
            "ExpPortraitPasteBack", source_images=["build", 1], result_images=["map", 0], framing=["prepare", 2], mask=["map", 1]
        ),
        "drawn": node("SaveImage", images=["map", 0], filename_prefix="drawn"),
        "cut": node("SaveImage", images=["prepare", 0], filename_prefix="cut"),
        "follow": node("SaveImage", images=["again", 0], filename_prefix="follow"),
        "full": node("SaveImage", images=["paste", 0], filename_prefix="full"),
        "source": node("SaveImage", images=["build", 1], filename_prefix="source"),
    }
    outputs = comfyui.run(graph)
    drawn, cut, follow, full, source = (comfyui.saved({name: outputs[name]}) for name in ("drawn", "cut", "follow", "full", "source"))
    assert [len(found) for found in (drawn, cut, follow, full)] == [9, 1, 9, FRAMES]
    assert {Image.open(path).size for path in (drawn[0], cut[0], follow[0])} == {(160, 192)}
    before, after = pixels(source[0]), pixels(full[0])
    changed = abs(before - after).max(-1) > 0
    assert 0.02 < changed.mean() < 0.6 and not changed[0].any()


def test_a_framing_of_another_clip_is_one_sentence(comfyui, media, clip):
    graph = portrait(media) | clip
    graph |= {
        "transfer": node("ExpPortraitTransfer", head_proxy=["build", 0], preset="speaking"),
        "prepare": node("ExpPortraitPrepareClip", images=["few", 0]),
        "map": node("ExpPortraitRender", head_proxy=["build", 0], head_motion=["transfer", 0], map="depth", framing=["prepare", 2]),
        "show": node("PreviewImage", images=["map", 0]),
    }
    one_sentence(comfyui.failure(graph), "frames, but the framing was made for 6", "same clip")


@pytest.mark.parametrize(
    ("mask", "options", "words"),
    [
        ((64, 16, 1.0), {}, ("64 x 16", "connect a mask of the same pictures")),
        (None, {"width": 208, "family": "Wan 2.2 TI2V-5B"}, ("multiple of 32", "choose")),
    ],
)
def test_bad_input_to_prepare_clip_is_one_sentence(comfyui, clip, mask, options, words):
    graph = clip | {
        "prepare": node("ExpPortraitPrepareClip", images=["few", 0], **options),
        "show": node("PreviewImage", images=["prepare", 0]),
    }
    if mask:
        graph["mask"] = node("SolidMask", width=mask[0], height=mask[1], value=mask[2])
        graph["prepare"]["inputs"]["mask"] = ["mask", 0]
    one_sentence(comfyui.failure(graph), *words)


def test_an_empty_mask_is_one_sentence(comfyui, media, clip):
    graph = clip | {
        "mask": node("SolidMask", width=media.size[0], height=media.size[1], value=0.0),
        "prepare": node("ExpPortraitPrepareClip", images=["few", 0], mask=["mask", 0]),
        "show": node("PreviewImage", images=["prepare", 0]),
    }
    one_sentence(comfyui.failure(graph), "the mask is empty")


def test_results_of_another_framing_are_one_sentence(comfyui, clip):
    graph = clip | {
        "prepare": node("ExpPortraitPrepareClip", images=["few", 0], width=64, height=64),
        "other": node("ExpPortraitPrepareClip", images=["few", 0], width=64, height=128),
        "paste": node("ExpPortraitPasteBack", source_images=["few", 0], result_images=["other", 0], framing=["prepare", 2]),
        "show": node("PreviewImage", images=["paste", 0]),
    }
    one_sentence(comfyui.failure(graph), "9 pictures of 64 x 128", "64 x 64")
