import dataclasses

import pytest
import torch

from expportrait.dit.adapter.config import AdapterConfig, check_base

from .small_adapter import CONFIG, SIZE, adapter_of, awake, inputs


def test_encoded_shapes_are_those_of_the_latent(generator):
    found = adapter_of().encode(*inputs(generator))
    assert found.control.shape == (1, 8, 3, 4, 4)
    assert found.reference.shape == (1, 20, 1, 4, 4)
    assert found.expression.shape == (1, 64, 3, 4)


@pytest.mark.parametrize("spatial", (8, 16, 32))
def test_every_latent_size_gets_its_tokens(generator, spatial):
    config = dataclasses.replace(CONFIG, spatial=spatial, latent_channels=48, reference="tokens")
    adapter, side = adapter_of(config), 4 * spatial
    found = adapter.encode(torch.randn(1, 3, 5, side, 2 * side), torch.randn(1, 3, side, 2 * side))
    assert adapter.control.tokens(found.control).shape == (1, 2 * 2 * 4, 32)
    assert found.reference.shape == (1, 32, 1, 2, 4)


def test_a_new_adapter_adds_nothing(generator):
    adapter, tokens = adapter_of(), torch.randn(1, 12, 32, generator=generator)
    found = adapter.encode(*inputs(generator))
    assert torch.equal(adapter.add_control(tokens, found.control), tokens)
    assert not found.reference.any()
    for block in range(6):
        assert torch.equal(adapter.add_expression(block, tokens, found.expression, 4), tokens)


def test_tiles_do_not_change_the_control(generator):
    adapter = awake(adapter_of(), generator)
    control = torch.randn(1, 3, 45, SIZE, SIZE, generator=generator)
    whole = adapter.control.features(control, tile=99)
    assert whole.shape[2] == 12
    for tile in (1, 2, 5):
        assert torch.allclose(adapter.control.features(control, tile=tile), whole, atol=1e-6)


def test_control_tokens_stand_behind_reference_frames(generator):
    adapter, tokens = awake(adapter_of(), generator), torch.randn(2, 16, 32, generator=generator)
    features = adapter.encode(*inputs(generator)).control.expand(2, -1, -1, -1, -1)
    out = adapter.add_control(tokens, features)
    assert torch.equal(out[:, :4], tokens[:, :4]) and not torch.allclose(out[:, 4:], tokens[:, 4:])
    halves = adapter.add_control(tokens, features, torch.tensor([1.0, 0.0]))
    assert torch.allclose(halves[0], out[0]) and torch.equal(halves[1], tokens[1])


def test_control_equals_a_grown_patch_embedding(generator):
    """dit.md 4.3: adding the control's tokens is the same as more input channels of the patch embedding."""
    config = dataclasses.replace(CONFIG, control="latent")
    adapter = awake(adapter_of(config), generator)
    embed = torch.nn.Conv3d(16, 32, (1, 2, 2), stride=(1, 2, 2))
    grown = torch.nn.Conv3d(32, 32, (1, 2, 2), stride=(1, 2, 2))
    grown.weight.data = torch.cat([embed.weight, adapter.control.project.weight], 1)
    grown.bias.data = embed.bias + adapter.control.project.bias
    noise, control = (torch.randn(1, 16, 3, 4, 4, generator=generator) for _ in range(2))
    tokens = embed(noise).flatten(2).mT
    expected = grown(torch.cat([noise, control], 1)).flatten(2).mT
    assert torch.allclose(adapter.add_control(tokens, control), expected, atol=1e-5)


def test_expression_reaches_its_own_and_later_latent_frames_only(generator):
    adapter = awake(adapter_of(), generator)
    tokens, numbers = torch.randn(1, 12, 32, generator=generator), inputs(generator)[2]
    other = numbers.clone()
    other[:, 5:] += 1  # of the third latent frame
    before, after = (
        adapter.add_expression(1, tokens, adapter.encode(numbers=given).expression, 4) for given in (numbers, other)
    )
    assert torch.allclose(before[:, :8], after[:, :8], atol=1e-6)
    assert not torch.allclose(before[:, 8:], after[:, 8:], atol=1e-4)
    assert torch.equal(adapter.add_expression(0, tokens, adapter.encode(numbers=numbers).expression, 4), tokens)


def test_reference_tokens_go_to_the_first_frame(generator):
    config = dataclasses.replace(CONFIG, reference="tokens")
    adapter, tokens = awake(adapter_of(config), generator), torch.randn(1, 16, 32, generator=generator)
    out = adapter.add_reference(tokens, adapter.encode(reference=inputs(generator)[1]).reference, frames=3)
    changed = (out != tokens).any(-1)[0]
    assert changed.tolist() == [False] * 4 + [True] * 4 + [False] * 8


def test_gradients_reach_every_weight_of_an_awake_adapter(generator):
    adapter, tokens = awake(adapter_of(), generator), torch.randn(1, 12, 32, generator=generator)
    found = adapter.encode(*inputs(generator))
    out = adapter.add_control(tokens, found.control)
    for block in range(6):
        out = adapter.add_expression(block, out, found.expression, 4)
    (out.square().sum() + found.reference.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


def test_it_runs_in_inference_mode_and_half_precision(generator):
    with torch.inference_mode():
        adapter = awake(adapter_of(), generator).to(torch.bfloat16)
        found = adapter.encode(*(part.to(torch.bfloat16) for part in inputs(generator)))
        tokens = torch.randn(1, 12, 32, generator=generator).to(torch.bfloat16)
        assert adapter.add_expression(1, adapter.add_control(tokens, found.control), found.expression, 4).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "told"),
    (((1, 3, 8, 32, 32), "8 frames"), ((1, 3, 9, 30, 32), "multiples of 16"), ((1, 4, 9, 32, 32), "reads 3 channels")),
)
def test_a_wrong_control_is_told(shape, told):
    with pytest.raises(ValueError, match=told):
        adapter_of().encode(torch.zeros(shape))


def test_wrong_expressions_and_missing_branches_are_told(generator):
    with pytest.raises(ValueError, match="4n \\+ 1 frames, 5"):
        adapter_of().encode(numbers=torch.zeros(1, 9, 6))
    bare = adapter_of(dataclasses.replace(CONFIG, reference="none", code="none"))
    control, reference, numbers = inputs(generator)
    for part in ({"reference": reference}, {"numbers": numbers}):
        with pytest.raises(ValueError, match="no part that reads it"):
            bare.encode(**part)
    with pytest.raises(ValueError, match="covers 12 tokens, but the video has 8"):
        bare.add_control(torch.zeros(1, 8, 32), bare.encode(control).control)


def test_a_wrong_base_is_told_in_one_sentence():
    check_base(CONFIG, 32, 6, 16, 36)
    for sizes, told in (
        ((64, 6, 16, 36), "32 wide with 6 blocks, but the model is 64 wide"),
        ((32, 6, 48, 36), "latents of 16 channels"),
        ((32, 6, 16, 16), "load the image-to-video model"),
        ((32, 6, 16, 48), "takes 48 channels, not 36"),
    ):
        with pytest.raises(ValueError, match=told):
            check_base(CONFIG, *sizes)


def test_configs_are_checked_and_survive_json():
    assert AdapterConfig.from_json(CONFIG.to_json()) == CONFIG
    unknown = ({"control": "video"}, {"normals": "dx"}, {"version": 9})
    for wrong in (*unknown, {"inputs": ("normal",)}, {"spatial": 12}, {"explicit_size": 0}, {"width": 0}):
        with pytest.raises(ValueError):
            dataclasses.replace(CONFIG, **wrong)
    with pytest.raises(ValueError, match="header cannot be read"):
        AdapterConfig.from_json("{")


def test_a_face_encoder_makes_the_code_from_pictures(generator):
    adapter = adapter_of(dataclasses.replace(CONFIG, code="face"))
    faces = torch.randn(1, 5, 3, 224, 224, generator=generator)
    with torch.inference_mode():
        found = adapter.encode(faces=faces).expression
        codes = adapter.face(faces)
    assert found.shape == (1, 64, 2, 4) and codes.shape == (1, 5, 16) and codes.isfinite().all()
    assert (codes[0, 0] - codes[0, 1]).abs().max() > 1e-4
    with torch.inference_mode():
        assert torch.allclose(adapter.face(faces[:, 2:3])[0, 0], codes[0, 2], atol=1e-5)
    with pytest.raises(ValueError, match="4n \\+ 1 frames, 3, 224, 224"):
        adapter.encode(faces=torch.zeros(1, 5, 3, 200, 224))
    with pytest.raises(ValueError, match="no part that reads it"):
        adapter_of().encode(faces=faces)


def test_gradients_reach_the_face_encoder(generator):
    adapter = awake(adapter_of(dataclasses.replace(CONFIG, code="face")), generator)
    adapter.encode(faces=torch.randn(1, 1, 3, 224, 224, generator=generator)).expression.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapter.face.parameters())
