import dataclasses

import pytest
import torch

from .adapter.small_adapter import CONFIG, adapter_of, awake

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install expportrait[diffusers]")

from expportrait.dit.diffusers_adapter import DiffusersAdapter  # noqa: E402
from expportrait.dit.guidance import Schedule  # noqa: E402

from .small_wan import LAYERS, TEXT, WIDTH, transformer_of  # noqa: E402

FITTING = dataclasses.replace(CONFIG, width=WIDTH, layers=LAYERS)


def made(generator, config=FITTING, channels=36):
    adapter = awake(adapter_of(config), generator)
    control = torch.randn(1, 3, 9, 32, 32, generator=generator)
    condition = adapter.encode(control, control[:, :, 0], torch.randn(1, 9, 5, generator=generator))
    inputs = {
        "hidden_states": torch.randn(2, channels, 3, 4, 4, generator=generator),
        "timestep": torch.tensor([500, 500]),
        "encoder_hidden_states": torch.randn(2, 7, TEXT, generator=generator),
        "return_dict": False,
    }
    return transformer_of(channels), adapter, condition, inputs


def test_nothing_set_or_nothing_trained_changes_nothing(generator):
    transformer, adapter, condition, inputs = made(generator)
    with torch.inference_mode():
        base = transformer(**inputs)[0]
        with DiffusersAdapter([transformer], adapter) as attached:
            assert torch.equal(transformer(**inputs)[0], base)
            attached.set(condition)
            assert not torch.allclose(transformer(**inputs)[0], base, atol=1e-3)
            attached.set(condition, (0.0, 0.0, 0.0))
            assert torch.allclose(transformer(**inputs)[0], base, atol=1e-6)
        assert torch.equal(transformer(**inputs)[0], base) and transformer.forward.__name__ == "forward"
        fresh = adapter_of(FITTING)
        with DiffusersAdapter([transformer], fresh) as attached:
            attached.set(fresh.encode(torch.randn(1, 3, 9, 32, 32), torch.randn(1, 3, 32, 32), torch.randn(1, 9, 5)))
            assert torch.equal(transformer(**inputs)[0], base)


def test_an_expression_fades_in_as_a_mix_of_results(generator):
    transformer, adapter, condition, inputs = made(generator)
    calm = dataclasses.replace(condition, expression=None)
    with torch.inference_mode(), DiffusersAdapter([transformer], adapter) as attached:
        attached.set(condition)
        full = transformer(**inputs)[0]
        attached.fade(Schedule(0.5, 0.5), 0, 4)
        held = transformer(**inputs)[0]
        attached.fade(Schedule(0.5, 0.5), 2, 4)
        mixed = transformer(**inputs)[0]
        as_output = transformer(**{**inputs, "return_dict": True}).sample
        attached.set(calm)
        assert torch.allclose(transformer(**inputs)[0], held, atol=1e-6)
    assert torch.allclose(mixed, held + (full - held) / 3, atol=1e-5) and torch.equal(as_output, mixed)


def test_gradients_pass_with_and_without_checkpointing(generator):
    transformer, adapter, _, inputs = made(generator)
    transformer.requires_grad_(False)
    control, numbers = torch.randn(1, 3, 9, 32, 32, generator=generator), torch.randn(1, 9, 5, generator=generator)
    grads = []
    for checkpointing in (False, True):
        transformer.train()
        (transformer.enable_gradient_checkpointing if checkpointing else transformer.disable_gradient_checkpointing)()
        adapter.zero_grad()
        with DiffusersAdapter([transformer], adapter) as attached:
            attached.set(adapter.encode(control, control[:, :, 0], numbers))
            transformer(**inputs)[0].square().mean().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapter.parameters())
        grads.append(torch.cat([parameter.grad.flatten() for parameter in adapter.parameters()]))
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-6)


def test_text_to_video_takes_reference_tokens(generator):
    config = dataclasses.replace(FITTING, reference="tokens")
    transformer, adapter, condition, inputs = made(generator, config, channels=16)
    with torch.inference_mode(), DiffusersAdapter([transformer], adapter) as attached:
        attached.set(condition)
        with_reference = transformer(**inputs)[0]
        attached.set(dataclasses.replace(condition, reference=None))
        assert not torch.allclose(transformer(**inputs)[0], with_reference, atol=1e-5)


def test_wrong_bases_and_sizes_are_told(generator):
    transformer, adapter, condition, inputs = made(generator)
    with pytest.raises(ValueError, match="wide with"):
        DiffusersAdapter([transformer], adapter_of(CONFIG))
    with pytest.raises(ValueError, match="image-to-video model"):
        DiffusersAdapter([transformer_of(16)], adapter)
    with DiffusersAdapter([transformer], adapter) as attached:
        attached.set(condition)
        inputs["hidden_states"] = torch.zeros(1, 36, 3, 8, 8)
        with pytest.raises(ValueError, match="make both of the same size"):
            transformer(**inputs)
