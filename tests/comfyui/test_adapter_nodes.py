"""The portrait adapter's nodes in a real graph: tiny Wan, tiny adapters, from portrait to frames."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from graphs import node, one_sentence, portrait  # noqa: E402
from tiny_adapter import write_adapter  # noqa: E402
from tiny_wan import write_text, write_vae, write_wan  # noqa: E402

SIDE, LENGTH = 64, 5
STRENGTHS = {"control_strength": 1.0, "reference_strength": 1.0, "expression_strength": 1.0, "start": 0.0, "end": 1.0}
FADE = {"hold": 0.3, "fade": 0.3}


@pytest.fixture
def graph(comfyui, media) -> dict:
    """A portrait in motion, a tiny image-to-video Wan with an adapter, sampled and saved."""
    base = comfyui.base
    write_text(base / "output/tiny_text")
    write_wan(base / "models/diffusion_models/tiny_i2v.safetensors", "i2v_a14b")
    write_vae(base / "models/vae/tiny_wan_vae.safetensors")
    write_adapter(base / "models/model_patches/tiny_adapter.safetensors")
    return portrait(media) | {
        "transfer": node("ExpPortraitTransfer", head_proxy=["build", 0], preset="speaking"),
        "model": node("UNETLoader", unet_name="tiny_i2v.safetensors", weight_dtype="default"),
        "vae": node("VAELoader", vae_name="tiny_wan_vae.safetensors"),
        "text": node("LoadTrainingDataset", folder_name="tiny_text"),
        "adapter": node("ExpPortraitLoadAdapter", file="tiny_adapter.safetensors"),
        "attached": node("ExpPortraitApplyAdapter", model=["model", 0], adapter=["adapter", 0], lora_strength=1.0),
        "video": node(
            "WanImageToVideo", positive=["text", 1], negative=["text", 1], vae=["vae", 0], width=SIDE, height=SIDE, length=LENGTH,
            batch_size=1, start_image=["build", 1],
        ),
        "head": node(
            "ExpPortraitConditioning", positive=["video", 0], negative=["video", 1], adapter=["adapter", 0], latent=["video", 2],
            head_proxy=["build", 0], head_motion=["transfer", 0], source_image=["build", 1], **STRENGTHS,
        ),
        "fade": node("ExpPortraitHybridGuidance", positive=["head", 0], negative=["head", 1], steps=3, **FADE),
        "sample": sampler(["attached", 0], ["fade", 0], ["fade", 1]),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="adapter"),
    }  # fmt: skip


def sampler(model, positive, negative) -> dict:
    return node(
        "KSampler", model=model, positive=positive, negative=negative, latent_image=["video", 2],
        seed=1, steps=3, cfg=2.5, sampler_name="euler", scheduler="simple", denoise=1.0,
    )  # fmt: skip


def saved(comfyui, graph) -> list[bytes]:
    outputs = comfyui.run(graph)
    return [Image.open(path).convert("RGB").tobytes() for path in comfyui.saved({"save": outputs["save"]})]


def test_a_portrait_drives_wan_through_stock_nodes(comfyui, graph):
    driven = saved(comfyui, graph)
    assert len(driven) == LENGTH and len(driven[0]) == 3 * SIDE * SIDE
    plain = graph | {"sample": sampler(["attached", 0], ["video", 0], ["video", 1])}
    bare = graph | {"sample": sampler(["model", 0], ["video", 0], ["video", 1])}
    still = saved(comfyui, plain)
    assert still == saved(comfyui, bare) and still != driven
    other = graph | {"transfer": node("ExpPortraitTransfer", head_proxy=["build", 0], preset="speaking", pose_from="source")}
    assert saved(comfyui, other) != driven


def test_the_guider_and_a_framing_go_to_the_end(comfyui, graph):
    guided = graph | {
        "prepare": node("ExpPortraitPrepareClip", images=["build", 1], width=SIDE, height=SIDE),
        "guider": node(
            "ExpPortraitHybridGuider", model=["attached", 0], positive=["head", 0], negative=["head", 1], cfg=2.5, **FADE,
            expression_scale=0.0, control_scale=0.5, reference_scale=0.0,
        ),
        "noise": node("RandomNoise", noise_seed=1),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["attached", 0], scheduler="simple", steps=3, denoise=1.0),
        "sample": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["euler", 0], sigmas=["sigmas", 0],
            latent_image=["video", 2],
        ),
    }  # fmt: skip
    assert len(saved(comfyui, guided)) == LENGTH


def test_what_does_not_belong_together_is_one_sentence(comfyui, graph):
    write_adapter(comfyui.base / "models/model_patches/other_adapter.safetensors", 128)
    wrong = graph | {"adapter": node("ExpPortraitLoadAdapter", file="other_adapter.safetensors")}
    one_sentence(comfyui.failure(wrong), "128 wide with 2 blocks, but the model is 256 wide")
    save_file({"weight": torch.zeros(1)}, str(comfyui.base / "models/model_patches/foreign.safetensors"))
    wrong = graph | {"adapter": node("ExpPortraitLoadAdapter", file="foreign.safetensors")}
    one_sentence(comfyui.failure(wrong), "holds no portrait adapter")
    bare = {key: value for key, value in graph["head"]["inputs"].items() if key != "source_image"}
    wrong = graph | {"head": node("ExpPortraitConditioning", **bare)}
    one_sentence(comfyui.failure(wrong), "give the source picture")
    wrong = graph | {"head": node("ExpPortraitConditioning", **(graph["head"]["inputs"] | {"start": 0.5, "end": 0.5}))}
    one_sentence(comfyui.failure(wrong), "let the head begin to count before it ends")
