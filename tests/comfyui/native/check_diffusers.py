"""ComfyUI's native Wan and diffusers' Wan with the same weights and the same adapter give the same video."""

import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from check_adapter import attached, condition_of, config_of, loaded_of
from safetensors.torch import save_file

pytest.importorskip("diffusers", reason="diffusers is not installed beside ComfyUI")

from diffusers import WanTransformer3DModel  # noqa: E402

from expportrait.dit.conditioning import even_bounds, progressive  # noqa: E402
from expportrait.dit.diffusers_adapter import DiffusersAdapter  # noqa: E402
from expportrait.dit.guidance import Schedule  # noqa: E402
from expportrait.dit.wan_names import native_name  # noqa: E402
from expportrait.nodes.adapter_patch import apply_adapter  # noqa: E402

WIDTH, LAYERS, FRAMES, SIDE, STEPS = 256, 4, 3, 8, 4
def random_pair(folder):
    """The same random weights as a diffusers transformer and as a native model."""
    torch.manual_seed(3)
    transformer = WanTransformer3DModel(
        num_attention_heads=WIDTH // 128, attention_head_dim=128, in_channels=36, out_channels=16, ffn_dim=512, num_layers=LAYERS
    ).eval()  # fmt: skip
    path = folder / "wan.safetensors"
    save_file({native_name(name): value.contiguous() for name, value in transformer.state_dict().items()}, str(path))
    return transformer, comfy.sd.load_diffusion_model(str(path))


def both_runtimes(pair, generator, schedule):
    """Latents that ComfyUI and diffusers sample from the same noise, text, image and portrait condition."""
    transformer, wan = pair
    loaded = loaded_of(config_of(), generator)
    condition, model = condition_of(loaded, generator), apply_adapter(wan, loaded, 1.0)
    text, image = torch.randn(1, 6, 4096, generator=generator), torch.randn(1, 16, FRAMES, SIDE, SIDE, generator=generator)
    noise = torch.randn(1, 16, FRAMES, SIDE, SIDE, generator=generator)
    entries = attached([[text, {"concat_latent_image": image}]], loaded, condition)
    entries = progressive(entries, schedule, even_bounds(STEPS))
    sampler = (STEPS, 1.0, "euler", "simple")
    with torch.inference_mode():
        native = comfy.sample.sample(model, noise, *sampler, entries, entries, torch.zeros_like(noise), disable_pbar=True, seed=1)
        native = wan.model.process_latent_in(native)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
        concat = wan.model.concat_cond(noise=noise, concat_latent_image=image.clone(), device="cpu")
        sample = noise * sigmas[0]
        with DiffusersAdapter([transformer], loaded.adapter) as hooked:
            hooked.set(condition)
            for step in range(STEPS):
                hooked.fade(schedule, step, STEPS)
                inputs = {"hidden_states": torch.cat([sample, concat], 1), "timestep": 1000 * sigmas[step : step + 1]}
                velocity = transformer(**inputs, encoder_hidden_states=text, return_dict=False)[0]
                sample = sample + (sigmas[step + 1] - sigmas[step]) * velocity
    assert (sample - noise).norm() > 0.1 * noise.norm()
    return native, sample


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return random_pair(tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("schedule", (Schedule(0, 0), Schedule(0.25, 0.5)))
def test_both_runtimes_agree(pair, generator, schedule):
    native, sample = both_runtimes(pair, generator, schedule)
    assert (native - sample).norm() / sample.norm() < 1e-3
