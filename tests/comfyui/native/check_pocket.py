"""The pocket model as a native MODEL: the road of nodes and `render_pocket` agree, and the core may treat it like any of its own."""

import dataclasses

import comfy.context_windows
import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingAuraFlow, ModelSamplingSD3
from pocket_things import TINY, shaken
from still_head import moved, still_proxy

from expportrait.dit.expression_code import code_size
from expportrait.dit.pocket.flow import noise_levels, one_noise
from expportrait.dit.pocket.model import PocketConfig, PocketModel
from expportrait.dit.pocket.render import render_pocket
from expportrait.dit.pocket.weights import load_model, save_model
from expportrait.nodes import pocket_model
from expportrait.nodes.pocket import PocketConditioning, PocketPaste
from expportrait.nodes.pocket_model import AT_ONCE, KEY, PocketBase, load_pocket
from expportrait.nodes.types import BuiltProxy
from expportrait.proxy.head_model import load_head_model
from nodes import ConditioningSetArea, ConditioningZeroOut, EmptyLatentImage, KSampler

SIDE, FRAMES, SEED = 64, 5, 11


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def head():
    return load_head_model()


def written(folder, head, seed=0, **changes):
    """File of a model whose every weight has a say."""
    config = PocketConfig(**{"model_id": head.model_id, "code": code_size(head), **TINY, **changes})
    path = folder / f"pocket_{seed}_{len(changes)}.safetensors"
    with torch.inference_mode(False):
        save_model(path, config, shaken(config, seed).state_dict())
    return path


@pytest.fixture(scope="module")
def path(head, tmp_path_factory):
    return written(tmp_path_factory.mktemp("pocket"), head)


@pytest.fixture(scope="module")
def model(path):
    return load_pocket(path)


@pytest.fixture(scope="module")
def scene(head):
    """A picture, its proxy and a motion in which head and mouth move."""
    picture = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(picture, size=(96, 128), mode="bicubic").clamp(0, 1)
    proxy = still_proxy(head, 128, 96)
    proxy = dataclasses.replace(proxy, focal=180.0, source_translation=torch.tensor([0.02, -0.735, -0.8]))
    motion = moved(proxy).select([0] * FRAMES)
    share = torch.linspace(0, 1, FRAMES)
    turned = motion.joints.clone()
    turned[:, 1, 1] = 0.3 * share
    acted = motion.expression + share[:, None] * torch.rand(len(head.expression_names), generator=torch.Generator().manual_seed(1))
    return picture, proxy, dataclasses.replace(motion, joints=turned, expression=acted)


@pytest.fixture(scope="module")
def told(scene, head, model):
    """Positive, negative, latent and heads of Pocket Conditioning."""
    picture, proxy, motion = scene
    with torch.inference_mode():
        return PocketConditioning.execute(model, picture.movedim(1, -1), BuiltProxy(head, proxy), motion, SIDE).result


def sampled(model, told, steps=4, cfg=1.0, scheduler="simple", sampler="euler", **changes):
    positive, negative, latent, _ = told
    inputs = {"positive": positive, "negative": negative, "latent": latent} | changes
    return KSampler().sample(model, SEED, steps, cfg, sampler, scheduler, inputs["positive"], inputs["negative"], inputs["latent"])[0]


def test_nodes_and_library_agree(scene, head, model, path, told):
    picture, proxy, motion = scene
    found = PocketPaste.execute(sampled(model, told), told[3]).result[0]
    expected = torch.cat(list(render_pocket(picture, proxy, motion, head, load_model(path), seed=SEED, side=SIDE)))
    assert found.shape == expected.shape == (FRAMES, 96, 128, 3)
    assert (found - expected).abs().max() < 1e-5
    assert (expected[0] - expected[-1]).abs().max() > 0.1 and expected.std() > 0.05


def test_the_simple_schedule_has_the_levels_that_the_model_was_made_for(model):
    sampling = model.get_model_object("model_sampling")
    for steps in (1, 2, 4, 5, 8):
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps).tolist()
        assert sigmas == pytest.approx(noise_levels(steps), abs=1e-6)
    assert comfy.samplers.calculate_sigmas(sampling, "normal", 4).tolist() != pytest.approx(noise_levels(4), abs=0.1)


def test_all_frames_come_from_the_noise_of_the_seed(model, told):
    seen = []
    watched = model.clone()

    def watch(call, given):
        seen.append(given["input"])
        return call(given["input"], given["timestep"], **given["c"])

    watched.set_model_unet_function_wrapper(watch)
    sampled(watched, told, steps=1)
    assert torch.equal(seen[0], one_noise(SIDE, SIDE, SEED).expand(FRAMES, -1, -1, -1))


@pytest.mark.parametrize("temporal", (False, True))
def test_portions_of_a_clip_are_its_frames(tmp_path, scene, head, told, temporal, monkeypatch):
    model = load_pocket(written(tmp_path, head, temporal=temporal))
    whole = sampled(model, told)["samples"]
    monkeypatch.setattr(pocket_model, "AT_ONCE", 2)
    monkeypatch.setattr(pocket_model, "CELLS", SIDE * SIDE)
    change = (sampled(model, told)["samples"] - whole).abs().max()
    assert change > 1e-4 if temporal else change < 1e-5


def test_a_long_clip_needs_memory_for_its_pictures_alone(model):
    small, large = (model.model.memory_required([frames, 3, 256, 256]) for frames in (AT_ONCE, 300))
    held = 4 * 3 * 256 * 256 * (300 - AT_ONCE)
    assert large - small == pocket_model.COPIES * held
    assert model.model.memory_required([1, 16, 21, 60, 104]) > 0  # before a wrong latent is told


def test_guidance_counts_and_lifts_the_expression(model, told):
    positive, negative, _, _ = told
    alone, without = sampled(model, told)["samples"], sampled(model, told, positive=negative)["samples"]
    assert (alone - without).abs().max() > 1e-3
    # One step of Euler from pure noise ends at the guided prediction itself.
    one, none = (sampled(model, told, 1, positive=each)["samples"] for each in (positive, negative))
    guided = sampled(model, told, 1, cfg=2.5)["samples"]
    assert torch.allclose(guided, none + 2.5 * (one - none), atol=1e-4)
    zeroed = ConditioningZeroOut().zero_out(positive)[0]
    assert (sampled(model, told, positive=zeroed)["samples"] - alone).abs().max() > 1e-4


def test_other_shifts_and_samplers_go_through(model, told):
    base = sampled(model, told)["samples"]
    for node in (ModelSamplingSD3().patch, ModelSamplingAuraFlow().patch_aura):
        assert torch.allclose(sampled(node(model, 6.0)[0], told)["samples"], base, atol=1e-4)
        assert not torch.allclose(sampled(node(model, 1.0)[0], told)["samples"], base, atol=1e-3)
    for sampler, scheduler in (("dpmpp_2m", "sgm_uniform"), ("heun", "beta"), ("lcm", "normal")):
        assert sampled(model, told, sampler=sampler, scheduler=scheduler)["samples"].isfinite().all()


def test_clones_patches_and_two_models_live_side_by_side(tmp_path, head, model, told):
    base = sampled(model, told)["samples"]
    patched = model.clone()
    change = torch.ones_like(model.model.diffusion_model.leave.bias)
    assert patched.add_patches({"diffusion_model.leave.bias": (change,)}, 0.3)
    assert (sampled(patched, told)["samples"] - base).abs().max() > 0.01
    other = load_pocket(written(tmp_path, head, seed=1))
    different = sampled(other, told)["samples"]
    assert (different - base).abs().max() > 1e-3
    assert torch.equal(sampled(model, told)["samples"], base) and torch.equal(sampled(other, told)["samples"], different)
    assert {type(each.model.model) for each in comfy.model_management.current_loaded_models} == {PocketBase}
    comfy.model_management.unload_all_models()
    assert comfy.model_management.current_loaded_models == []


def test_partial_loading_gives_the_same(model, told, monkeypatch):
    whole = sampled(model, told)["samples"]
    comfy.model_management.unload_all_models()
    model.patch_model(lowvram_model_memory=1)
    # The core would load what fits, and on a CPU that is all.
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", lambda *given, **named: None)
    parts = sampled(model, told)["samples"]
    assert model.model.model_lowvram
    monkeypatch.undo()
    comfy.model_management.unload_all_models()
    assert torch.allclose(parts, whole, atol=1e-5)


def test_context_windows_and_areas_cut_the_conditions_along(model, told):
    positive, negative, latent, _ = told
    base = sampled(model, told)["samples"]
    windowed = model.clone()
    windowed.model_options["context_handler"] = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("standard_static"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("pyramid"),
        context_length=3, context_overlap=1, context_stride=1, closed_loop=False, dim=0,
    )  # fmt: skip
    assert torch.allclose(sampled(windowed, told)["samples"], base, atol=1e-5)
    part = ConditioningSetArea().append(positive, 256, 256, 128, 0, 1.0)[0]  # sides in eighths of latent cells
    assert sampled(model, told, positive=part)["samples"].isfinite().all()


def test_cancel_acts_between_portions_of_a_step(model, told, monkeypatch):
    calls, draw = [], PocketModel.forward

    def draw_and_cancel(self, *given):
        calls.append(given)
        if len(calls) == 4:
            comfy.model_management.interrupt_current_processing()
        return draw(self, *given)

    monkeypatch.setattr(pocket_model, "AT_ONCE", 2)
    monkeypatch.setattr(pocket_model, "CELLS", SIDE * SIDE)
    monkeypatch.setattr(PocketModel, "forward", draw_and_cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sampled(model, told, steps=8)
    assert [len(noisy) for noisy, *_ in calls] == [2, 2, 1, 2]
    assert sampled(model, told)["samples"].isfinite().all()


def test_what_does_not_belong_together_is_told(tmp_path, scene, head, model, told):
    picture, proxy, motion = scene
    positive, negative, latent, heads = told
    with pytest.raises(ValueError, match="connect Pocket Conditioning"):
        sampled(model, told, positive=[[torch.zeros(1, 77, 768), {}]])
    with pytest.raises(ValueError, match="prepared for 5 pictures of 64 x 64 pixels, but the latent has 5 of 128 x 64"):
        sampled(model, told, latent={"samples": torch.zeros(FRAMES, 3, 64, 128)})
    with pytest.raises(ValueError, match="has 2 of 512 x 512; connect the latent of Pocket Conditioning"):
        sampled(model, told, latent=EmptyLatentImage().generate(512, 512, 2)[0])
    with pytest.raises(ValueError, match=r"shape \[5, 4, 64, 64\], but the pocket model draws pictures of 3 channels"):
        sampled(model, told, latent={"samples": torch.ones(FRAMES, 4, 64, 64)})
    for wan in (torch.zeros(1, 16, 3, 8, 8), torch.ones(1, 16, 3, 8, 8)):
        with pytest.raises(ValueError, match="connect the latent of Pocket Conditioning"):
            sampled(model, told, latent={"samples": wan})
    with pytest.raises(ValueError, match="the expression code has shape"):
        sampled(model, told, positive=[[positive[0][0][:, :2], positive[0][1]]])
    other = load_pocket(written(tmp_path, head, model_id="another"))
    with pytest.raises(ValueError, match="trained for head model another"):
        sampled(other, told)
    with pytest.raises(ValueError, match="trained for head model another"):
        PocketConditioning.execute(other, picture.movedim(1, -1), BuiltProxy(head, proxy), motion, SIDE)
    with pytest.raises(ValueError, match="connect what KSampler made"):
        PocketPaste.execute({"samples": torch.zeros(2, 3, 64, 64)}, heads)
    assert KEY in positive[0][1]
