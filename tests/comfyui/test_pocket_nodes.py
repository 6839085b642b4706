"""The pocket model's nodes in a real graph: from portrait to frames through core's KSampler, and what is told when they do not fit."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from graphs import node, one_sentence, portrait  # noqa: E402
from tiny_pocket import write_pocket  # noqa: E402

SIDE, LENGTH = 64, 3


@pytest.fixture
def graph(comfyui, media) -> dict:
    """A portrait in motion, drawn by a tiny pocket model and saved."""
    return portrait(media) | {
        "transfer": node("ExpPortraitTransfer", head_proxy=["build", 0], preset="speaking"),
        "trim": node("ExpPortraitTrimMotion", head_motion=["transfer", 0], start=8, end=7 + LENGTH),
        "model": node("ExpPortraitLoadPocket", file=write_pocket(comfyui.base)),
        "told": node(
            "ExpPortraitPocketConditioning", model=["model", 0], source_image=["build", 1], head_proxy=["build", 0],
            head_motion=["trim", 0], side=SIDE, width=128,
        ),
        "sample": node(
            "KSampler", model=["model", 0], positive=["told", 0], negative=["told", 1], latent_image=["told", 2],
            seed=1, steps=4, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0,
        ),
        "paste": node("ExpPortraitPocketPaste", samples=["sample", 0], heads=["told", 3]),
        "save": node("SaveImage", images=["paste", 0], filename_prefix="pocket"),
    }  # fmt: skip


def changed(graph: dict, name: str, **inputs) -> dict:
    return graph | {name: node(graph[name]["class_type"], **(graph[name]["inputs"] | inputs))}


def pictures(comfyui, graph: dict) -> np.ndarray:
    paths = comfyui.saved({"save": comfyui.run(graph)["save"]})
    return np.stack([np.asarray(Image.open(path).convert("RGB")).astype(int) for path in paths])


def test_a_pocket_model_draws_the_head_through_stock_nodes(comfyui, graph):
    drawn = pictures(comfyui, graph)
    preview = node("ExpPortraitPreview", source_image=["build", 1], head_proxy=["build", 0], head_motion=["trim", 0], width=128)
    shown = pictures(comfyui, graph | {"paste": preview})
    assert drawn.shape == shown.shape and len(drawn) == LENGTH and drawn.shape[2] == 128
    # An untrained model answers with the warp: only the head, drawn at fewer pixels, differs a little.
    difference = abs(drawn - shown)
    assert 0 < difference.mean() < 3 and (difference[:, :, :4] == 0).all() and difference[:, 40:80, 44:84].max() > 2
    assert (pictures(comfyui, changed(graph, "sample", cfg=2.0)) == pictures(comfyui, changed(graph, "sample", cfg=2.0))).all()


def test_raw_heads_are_decoded_by_the_pixel_space_vae(comfyui, graph):
    vae = {"vae": node("VAELoader", vae_name="pixel_space"), "paste": node("VAEDecode", samples=["sample", 0], vae=["vae", 0])}
    assert pictures(comfyui, graph | vae).shape == (LENGTH, SIDE, SIDE, 3)


def test_what_does_not_belong_together_is_one_sentence(comfyui, graph):
    empty = {"empty": node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=LENGTH + 1)}
    one_sentence(comfyui.failure(changed(graph | empty, "sample", latent_image=["empty", 0])), "latent of Pocket Conditioning")
    one_sentence(comfyui.failure(changed(graph | empty, "paste", samples=["empty", 0])), "connect what KSampler made")
    other = write_pocket(comfyui.base, "other_pocket.safetensors", "another")
    error = comfyui.failure(changed(graph, "model", file=other))
    assert error["node_id"] == "told"
    one_sentence(error, "trained for head model another")
    save_file({"weight": torch.zeros(1)}, str(comfyui.base / "models/diffusion_models/foreign.safetensors"))
    one_sentence(comfyui.failure(changed(graph, "model", file="foreign.safetensors")), "expected expportrait.pocket_model")


def test_cancel_stops_the_sampling_soon(comfyui, graph):
    comfyui.run(graph)  # all but the sampling is known then
    prompt = comfyui.queue(changed(graph, "sample", steps=10_000))
    time.sleep(3)
    asked = time.monotonic()
    comfyui.fetch("/interrupt", {"prompt_id": prompt})
    status = comfyui.wait(prompt, 20)["status"]
    assert time.monotonic() - asked < 10
    interrupted = [data for kind, data in status["messages"] if kind == "execution_interrupted"]
    assert interrupted and interrupted[0]["node_id"] == "sample"
