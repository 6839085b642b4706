"""The portrait adapter on tiny native Wan models: exactness, stacking, partial loading, context windows, guidance."""

import comfy.context_windows
import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from small_adapter import awake
from tiny_wan import write_wan

from expportrait.dit.adapter.adapter import PortraitAdapter, PortraitCondition
from expportrait.dit.adapter.adapter_file import AdapterFile
from expportrait.dit.adapter.config import AdapterConfig
from expportrait.dit.conditioning import AttachedCondition, attach, even_bounds, progressive, without
from expportrait.dit.guidance import Schedule
from expportrait.nodes.adapter_patch import LoadedAdapter, _Step, apply_adapter
from expportrait.nodes.guidance import PortraitGuider, sigma_bounds

WIDTH, LAYERS, FRAMES, SIDE = 256, 4, 3, 8
AWAKE = 0.03  # size of trained weights: what they add stays of order one, so that rounding does not grow over the steps


def config_of(**values):
    small = {"control_width": 8, "reference_width": 8, "explicit_size": 5, "expression_every": 2}
    return AdapterConfig(**({"width": WIDTH, "layers": LAYERS} | small | values))


@pytest.fixture(scope="module")
def wan(tmp_path_factory):
    path = write_wan(tmp_path_factory.mktemp("wan") / "i2v.safetensors", "i2v_a14b", WIDTH, LAYERS)
    return comfy.sd.load_diffusion_model(str(path))


def loaded_of(config, generator=None, lora=None):
    torch.manual_seed(0)
    adapter = PortraitAdapter(config).reset()
    if generator is not None:
        awake(adapter, generator, AWAKE)
    return LoadedAdapter.of(AdapterFile(config, adapter.state_dict(), lora or {}))


def condition_of(loaded, generator, frames=FRAMES):
    def rand(*shape):
        return torch.randn(shape, generator=generator)

    config, pixels = loaded.config, 4 * (frames - 1) + 1
    latent = config.control == "latent"
    control = rand(1, 16, frames, SIDE, SIDE) if latent else rand(1, config.control_channels, pixels, 8 * SIDE, 8 * SIDE)
    reference = None if config.reference == "none" else rand(1, config.reference_channels, 8 * SIDE, 8 * SIDE)
    with torch.no_grad():
        return loaded.adapter.encode(control, reference, None if config.code == "none" else rand(1, pixels, config.explicit_size))


def conditioning(generator):
    text, image = (torch.randn(shape, generator=generator) for shape in ((1, 6, 4096), (1, 16, FRAMES, SIDE, SIDE)))
    return [[text, {"concat_latent_image": image}]]


def attached(entries, loaded, condition, strengths=(1.0, 1.0, 1.0), start=0.0, end=1.0):
    return attach(entries, loaded.uid, AttachedCondition(condition, strengths), start, end)


def sample(model, positive, negative, steps=3, cfg=2.0, frames=FRAMES, seed=5):
    noise = torch.randn(1, 16, frames, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    sampler = (steps, cfg, "euler", "simple")
    with torch.inference_mode():
        return comfy.sample.sample(model, noise, *sampler, positive, negative, torch.zeros_like(noise), disable_pbar=True, seed=seed)


@pytest.fixture
def texts(generator):
    return conditioning(generator), conditioning(generator)


def both(texts, loaded, condition, **values):
    return [attached(entries, loaded, condition, **values) for entries in texts]


def test_a_new_adapter_and_one_without_conditions_change_nothing(wan, texts, generator):
    base = sample(wan, *texts)
    fresh = loaded_of(config_of())
    model = apply_adapter(wan, fresh, 1.0)
    assert torch.equal(sample(model, *texts), base)
    assert torch.equal(sample(model, *both(texts, fresh, condition_of(fresh, generator))), base)
    trained = loaded_of(config_of(), generator)
    model = apply_adapter(wan, trained, 1.0)
    assert torch.equal(sample(model, *texts), base)
    assert not torch.allclose(sample(model, *both(texts, trained, condition_of(trained, generator))), base, atol=1e-2)
    assert torch.equal(sample(wan, *texts), base)


def test_each_branch_and_strength_counts(wan, texts, generator):
    loaded = loaded_of(config_of(), generator)
    condition, model, base = condition_of(loaded, generator), apply_adapter(wan, loaded, 1.0), sample(wan, *texts)
    assert torch.equal(sample(model, *both(texts, loaded, condition, strengths=(0.0, 0.0, 0.0))), base)
    full = sample(model, *both(texts, loaded, condition))
    for part in range(3):
        strengths = tuple(float(k != part) for k in range(3))
        assert (sample(model, *both(texts, loaded, condition, strengths=strengths)) - full).abs().max() > 1e-4
    for part in ("control", "reference", "expression"):
        entries = [without(each, part) for each in both(texts, loaded, condition)]
        other = tuple(float(name != part) for name in ("control", "reference", "expression"))
        expected = sample(model, *both(texts, loaded, condition, strengths=other))
        assert torch.allclose(sample(model, *entries), expected, atol=1e-5)


def test_latent_control_equals_a_grown_embedding(wan, texts, generator):
    """dit.md 4.3: the same numbers as a patch embedding with 16 more input channels."""
    loaded = loaded_of(config_of(control="latent", inputs=("depth",), reference="none", code="none"), generator)
    condition, model = condition_of(loaded, generator), apply_adapter(wan, loaded, 1.0)
    found = sample(model, *both(texts, loaded, condition))
    expected = sample(grown_model(wan, loaded, condition), *texts)
    assert (found - expected).abs().max() < 1e-4


def grown_model(wan, loaded, condition):
    """The model with 16 more channels in its patch embedding, which see the control's latent."""
    embedding = wan.model.diffusion_model.patch_embedding
    grown = torch.nn.Conv3d(52, WIDTH, (1, 2, 2), stride=(1, 2, 2))
    project = loaded.adapter.control.project
    grown.weight.data = torch.cat([embedding.weight, project.weight], 1).detach()
    grown.bias.data = (embedding.bias + project.bias).detach()
    reference = wan.clone()
    reference.add_object_patch("diffusion_model.patch_embedding", grown)
    concat = reference.get_model_object("concat_cond")

    def with_control(**kwargs):
        # The base builds its 20 channels from the live embedding, which is grown here.
        kwargs["concat_latent_image"] = torch.cat([kwargs["concat_latent_image"], condition.control], 1)
        return concat(**kwargs)

    reference.add_object_patch("concat_cond", with_control)
    return reference


def test_two_adapters_stack_and_one_twice_is_refused(wan, texts, generator):
    first, second = (loaded_of(config_of(), generator) for _ in range(2))
    conditions = [condition_of(each, generator) for each in (first, second)]
    model = apply_adapter(apply_adapter(wan, first, 1.0), second, 1.0)
    only_first = both(texts, first, conditions[0])
    assert torch.allclose(sample(model, *only_first), sample(apply_adapter(wan, first, 1.0), *only_first), atol=1e-6)
    stacked = [attached(entries, second, conditions[1]) for entries in only_first]
    assert (sample(model, *stacked) - sample(model, *only_first)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="attached to the model already"):
        apply_adapter(model, first, 1.0)


def test_it_works_beside_a_lora_and_brings_its_own(wan, texts, generator):
    name = "diffusion_model.blocks.1.self_attn.q"
    shapes = {"A": (4, WIDTH), "B": (WIDTH, 4)}
    lora = {f"{name}.lora_{side}.weight": torch.randn(shape, generator=generator) for side, shape in shapes.items()}
    loaded = loaded_of(config_of(), generator, lora)
    with_lora, _ = comfy.sd.load_lora_for_models(wan, None, lora, 1.0, 0)
    base = sample(with_lora, *texts)
    assert (base - sample(wan, *texts)).abs().max() > 1e-4
    assert torch.allclose(sample(apply_adapter(wan, loaded, 1.0), *texts), base, atol=1e-6)
    assert torch.allclose(sample(apply_adapter(wan, loaded, 0.0), *texts), sample(wan, *texts), atol=1e-6)
    bare = loaded_of(config_of(), torch.Generator().manual_seed(7))
    condition = condition_of(bare, generator)
    assert (sample(apply_adapter(with_lora, bare, 1.0), *both(texts, bare, condition)) - base).abs().max() > 1e-3


def test_the_core_loads_and_frees_the_adapter(wan, texts, generator):
    loaded = loaded_of(config_of(), generator)
    model = apply_adapter(wan, loaded, 1.0)
    sample(model, *both(texts, loaded, condition_of(loaded, generator)))
    held = {type(each.model.model).__name__ for each in comfy.model_management.current_loaded_models}
    assert {"PortraitAdapter", "WAN21"} <= held
    comfy.model_management.unload_all_models()
    assert comfy.model_management.current_loaded_models == []


def test_partial_loading_gives_the_same(wan, texts, generator, monkeypatch):
    loaded = loaded_of(config_of(), generator)
    condition, model = condition_of(loaded, generator), apply_adapter(wan, loaded, 1.0)
    entries = both(texts, loaded, condition)
    whole = sample(model, *entries)
    comfy.model_management.unload_all_models()
    for patcher in (model, loaded.patcher):
        patcher.patch_model(lowvram_model_memory=1)
    # The core would load what fits, and on a CPU that is all.
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", lambda *given, **named: None)
    parts = sample(model, *entries)
    assert model.model.model_lowvram and loaded.adapter.model_lowvram
    monkeypatch.undo()
    comfy.model_management.unload_all_models()
    assert torch.allclose(parts, whole, atol=1e-5)


@pytest.mark.parametrize(("frames", "window", "overlap"), ((9, 5, 2), (76, 21, 5)))
def test_context_windows_cut_the_conditions_along(wan, generator, frames, window, overlap):
    """76 latent frames are 301 pictures; what is computed at once stays one window long."""
    loaded = loaded_of(config_of(reference="none"), generator)
    condition, model = condition_of(loaded, generator, frames), apply_adapter(wan, loaded, 1.0)
    texts = [[[torch.randn(1, 6, 4096, generator=generator), {}]] for _ in range(2)]
    entries = both(texts, loaded, condition)
    seen = []
    add = loaded.adapter.add_control

    def watched(tokens, features, strength):
        seen.append(features)
        return add(tokens, features, strength)

    loaded.adapter.add_control = watched
    handler = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("standard_static"),
        fuse_method=comfy.context_windows.get_matching_fuse_method("pyramid"),
        context_length=window, context_overlap=overlap, context_stride=1, closed_loop=False, dim=2,
    )  # fmt: skip
    model.model_options["context_handler"] = handler
    sample(model, *entries, frames=frames, steps=1)
    del loaded.adapter.add_control
    assert {features.shape[2] for features in seen} == {window}
    assert torch.equal(seen[0][:1], condition.control[:, :, :window].to(seen[0]))
    assert torch.equal(seen[-1][:1], condition.control[:, :, -window:].to(seen[-1]))


def test_wrong_sizes_and_models_are_told(wan, texts, generator):
    loaded = loaded_of(config_of(), generator)
    model = apply_adapter(wan, loaded, 1.0)
    with pytest.raises(ValueError, match="give Portrait Conditioning the latent that is sampled"):
        sample(model, *both(texts, loaded, condition_of(loaded, generator, FRAMES + 2)))
    with pytest.raises(ValueError, match="32 wide with 4 blocks, but the model is 256 wide"):
        apply_adapter(wan, loaded_of(config_of(width=32)), 1.0)


def test_text_to_video_bases_take_their_reference_as_tokens(tmp_path, texts, generator):
    wan = comfy.sd.load_diffusion_model(str(write_wan(tmp_path / "t2v.safetensors", "t2v", WIDTH, LAYERS)))
    with pytest.raises(ValueError, match="load the image-to-video model"):
        apply_adapter(wan, loaded_of(config_of()), 1.0)
    fresh = loaded_of(config_of(reference="tokens"))
    entries = both(texts, fresh, condition_of(fresh, generator))
    assert torch.equal(sample(apply_adapter(wan, fresh, 1.0), *entries), sample(wan, *texts))
    loaded = loaded_of(config_of(reference="tokens"), generator)
    model, condition = apply_adapter(wan, loaded, 1.0), condition_of(loaded, generator)
    parts = [sample(model, *both(texts, loaded, condition, strengths=s)) for s in ((1, 1, 1), (1, 0, 1))]
    assert (parts[0] - parts[1]).abs().max() > 1e-4


def guided(model, positive, negative, steps, cfg, schedule, scales):
    guider = PortraitGuider(model, cfg, schedule, scales)
    guider.set_portrait(positive, negative)
    noise = torch.randn(1, 16, FRAMES, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    sampler = comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=5)


@pytest.mark.parametrize("steps", (4, 7, 10))
def test_progressive_ranges_agree_with_the_guider(wan, texts, generator, steps):
    loaded, schedule = loaded_of(config_of(), generator), Schedule(0.2, 0.3)
    model, condition = apply_adapter(wan, loaded, 1.0), condition_of(loaded, generator)
    positive, negative = both(texts, loaded, condition)
    for refused in (texts[1], negative):
        faded = [progressive(entries, schedule, even_bounds(steps)) for entries in (positive, refused)]
        ranges = sample(model, *faded, steps, 2.5)
        assert (ranges - guided(model, positive, refused, steps, 2.5, schedule, {})).abs().max() < 1e-4
    assert (ranges - sample(model, positive, negative, steps, 2.5)).abs().max() > 1e-3
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    bounds = sigma_bounds(sigmas, model.get_model_object("model_sampling"))
    exact = [progressive(entries, schedule, bounds) for entries in (positive, negative)]
    assert (sample(model, *exact, steps, 2.5) - ranges).abs().max() < 1e-4


def test_scales_of_the_guider(wan, texts, generator):
    loaded, none = loaded_of(config_of(), generator), Schedule(0, 0)
    model, condition = apply_adapter(wan, loaded, 1.0), condition_of(loaded, generator)
    positive, negative = both(texts, loaded, condition)
    plain = guided(model, positive, negative, 3, 2.0, none, {})
    assert torch.allclose(plain, sample(model, positive, negative, 3, 2.0), atol=1e-5)
    for branch, part in (("no_expression", "expression"), ("no_control", "control"), ("no_reference", "reference")):
        # One step of Euler from pure noise ends at the guided prediction itself.
        full, bare = (guided(model, each, each, 1, 1.0, none, {}) for each in (positive, without(positive, part)))
        pushed = guided(model, positive, positive, 1, 1.0, none, {branch: 1.5})
        assert torch.allclose(pushed, full + 1.5 * (full - bare), atol=1e-4) and (full - bare).abs().max() > 1e-4
    text_only = [guided(model, *texts, 3, 2.0, none, {"no_control": 3.0}), sample(model, *texts, 3, 2.0)]
    assert torch.allclose(*text_only, atol=1e-5)


def test_pose_alone_and_expression_alone(wan, texts, generator):
    loaded = loaded_of(config_of(), generator)
    model, condition = apply_adapter(wan, loaded, 1.0), condition_of(loaded, generator)
    entries = both(texts, loaded, condition)
    other = both(texts, loaded, PortraitCondition(condition.control, condition.reference, condition.expression + 1))
    pose, other_pose = ([without(each, "expression") for each in given] for given in (entries, other))
    assert torch.equal(sample(model, *pose), sample(model, *other_pose))
    assert (sample(model, *entries) - sample(model, *other)).abs().max() > 1e-4


def test_two_samplers_share_one_schedule(wan, texts, generator):
    """Wan 2.2's experts: the second one does not begin the schedule anew."""
    loaded, schedule = loaded_of(config_of(), generator), Schedule(0.25, 0.25)
    model, condition = apply_adapter(wan, loaded, 1.0), condition_of(loaded, generator)
    positive, negative = both(texts, loaded, condition)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 8)
    weights = []
    for part in (sigmas[:5], sigmas[4:]):
        guider = PortraitGuider(model, 2.0, schedule, {}, sigmas)
        guider.set_portrait(positive, negative)
        for sigma in part[:-1]:
            weights.append(guider._weight(sigma[None], {"transformer_options": {"sample_sigmas": part}}))
    assert weights == [schedule.weight(step, 8) for step in range(8)]


def test_the_guider_heeds_other_nodes_guidance(wan, texts, generator):
    loaded = loaded_of(config_of(), generator)
    model = apply_adapter(wan, loaded, 1.0)
    positive, negative = both(texts, loaded, condition_of(loaded, generator))
    model.set_model_sampler_post_cfg_function(lambda args: 0 * args["denoised"])
    found = guided(model, positive, negative, 1, 2.0, Schedule(0, 0), {})
    assert torch.allclose(found, wan.model.process_latent_out(torch.zeros_like(found)), atol=1e-5)


@pytest.mark.parametrize("start", (0.1, 0.15, 0.2, 0.35, 0.45, 0.5))
@pytest.mark.parametrize("end", (0.55, 0.8, 1.0))
def test_every_step_has_a_condition(wan, texts, generator, start, end):
    loaded = loaded_of(config_of(reference="none"), generator)
    entries = attached(texts[0], loaded, condition_of(loaded, generator), start=start, end=end)
    for shift in (3.0, 5.0, 8.0):
        sampling = comfy.model_sampling.ModelSamplingDiscreteFlow()
        sampling.set_parameters(shift=shift)
        for steps in (10, 20, 30):
            for sigma in comfy.samplers.calculate_sigmas(sampling, "simple", steps)[:-1]:
                spans = [
                    (sampling.percent_to_sigma(each.get("start_percent", 0.0)), sampling.percent_to_sigma(each.get("end_percent", 1.0)))
                    for _, each in entries
                ]
                assert any(last <= sigma <= first for first, last in spans), (shift, steps, float(sigma))


def test_tokens_behind_the_video_are_left_alone(wan, texts, generator):
    """Phantom's references: the core puts them behind the video's tokens."""
    loaded = loaded_of(config_of(reference="none"), generator)
    condition, model = condition_of(loaded, generator), apply_adapter(wan, loaded, 1.0)
    block, grid = model.model_options["transformer_options"]["patches_replace"]["dit"][("double_block", 0)], SIDE * SIDE // 4
    tokens = torch.randn(1, (FRAMES + 2) * grid, WIDTH, generator=generator)
    step = _Step(condition.control, None, condition.expression, torch.ones(1, 3), FRAMES, grid, 2 * grid)
    found = block._before(tokens, step)
    assert torch.equal(found[:, FRAMES * grid :], tokens[:, FRAMES * grid :])
    assert torch.allclose(found[:, : FRAMES * grid], loaded.adapter.add_control(tokens[:, : FRAMES * grid], condition.control))


def test_the_same_file_loaded_twice_belongs_together(generator):
    first, second = loaded_of(config_of()), loaded_of(config_of())
    assert first.uid == second.uid != loaded_of(config_of(), generator).uid
