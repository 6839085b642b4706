import dataclasses
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from expportrait.dit.pocket.model import OPEN, PocketConfig, PocketModel, blend, preconditioning
from expportrait.dit.pocket.weights import load_model, save_model

sys.path.insert(0, str(Path(__file__).parent))
from pocket_things import inputs, shaken, tiny_config  # noqa: E402


def difference(model, given, name, value) -> float:
    """How much the answer changes with one input."""
    return float((model(**given) - model(**{**given, name: value})).abs().max())


@pytest.mark.parametrize("height, width", [(32, 48), (64, 32), (128, 128)])
def test_any_size_of_multiples_of_eight(height, width):
    given = inputs(2, height, width)
    with torch.inference_mode():
        assert shaken(tiny_config())(**given).shape == (2, 3, height, width)


@pytest.mark.parametrize("temporal", [False, True])
def test_gradients_reach_every_weight_and_every_input(temporal):
    model = shaken(tiny_config(temporal=temporal))
    given = {name: value.requires_grad_() for name, value in inputs(4).items()}
    model(**given, frames=2).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    for name, value in given.items():
        assert value.grad.abs().sum() > 0, name


def test_every_weight_of_a_fresh_model_learns_within_a_few_steps(generator):
    model, given = PocketModel.create(tiny_config(), generator), inputs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0)
    for _ in range(4):
        optimiser.zero_grad()
        (model(**given) - given["noisy"]).square().mean().backward()
        optimiser.step()
    assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == []


def test_where_the_mask_is_one_the_warp_comes_out_exactly():
    given = inputs()
    warp = 2 * given["control"][:, :3] - 1
    mask = (torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    result = blend(given["noisy"], mask, given["control"])
    assert torch.equal(torch.where(mask == 1, result, 0), torch.where(mask == 1, warp, 0))
    assert torch.equal(torch.where(mask == 0, result, 0), torch.where(mask == 0, given["noisy"], 0))
    model = shaken(tiny_config())
    with torch.no_grad():
        model.leave.bias[3] = 1e4
        assert torch.equal(model(**given), warp)


def test_a_fresh_model_answers_noise_with_the_warp_and_a_clean_picture_mostly_with_itself(generator):
    given = inputs()
    model, warp = PocketModel.create(tiny_config(), generator), 2 * given["control"][:, :3] - 1
    assert torch.allclose(model(**given | {"sigma": torch.ones(len(warp))}), warp, atol=1e-6)
    clean = model(**given | {"sigma": torch.zeros(len(warp))})
    assert (clean - given["noisy"]).abs().mean() < 0.2 * (warp - given["noisy"]).abs().mean()


def test_preconditioning_is_the_best_linear_estimate(generator):
    warp = torch.randn(100_000, generator=generator)
    picture = warp + OPEN**0.5 * torch.randn(100_000, generator=generator)
    for sigma in (0.9, 0.5, 0.1):
        news = (1 - sigma) * picture + sigma * torch.randn(100_000, generator=generator) - (1 - sigma) * warp
        keep, scale = (float(value) for value in preconditioning(torch.tensor([sigma]), torch.float32))
        assert (news @ (picture - warp) / news.square().sum()).item() == pytest.approx(keep, abs=0.01)
        assert (picture - warp - keep * news).std().item() == pytest.approx(scale, abs=0.002)


@pytest.mark.parametrize("name", ["noisy", "sigma", "control", "reference", "code"])
def test_every_input_has_a_say(name):
    given, other = inputs(seed=0), inputs(seed=1)
    with torch.inference_mode():
        assert difference(shaken(tiny_config()), given, name, other[name]) > 1e-4


def test_pure_noise_has_none_and_a_picture_without_noise_counts_fully():
    given, other, model = inputs(), inputs(seed=1)["noisy"], shaken(tiny_config())
    with torch.inference_mode():
        assert difference(model, given | {"sigma": torch.ones(2)}, "noisy", other) == 0
        late, early = (difference(model, given | {"sigma": torch.full((2,), level)}, "noisy", other) for level in (0.1, 0.9))
    assert late > 4 * early > 0


def test_reference_is_told_by_place():
    """A reference moved within its picture is another reference."""
    given = inputs()
    with torch.inference_mode():
        assert difference(shaken(tiny_config()), given, "reference", given["reference"].roll(16, -1)) > 1e-4


def test_frames_only_matter_to_a_temporal_model_and_only_in_their_own_clip():
    given = inputs(4)
    plain, temporal = shaken(tiny_config()), shaken(tiny_config(temporal=True))
    with torch.inference_mode():
        assert torch.allclose(plain(**given), plain(**given, frames=2), atol=1e-5)
        clips = temporal(**given, frames=2)
        alone = temporal(**{name: value[:2] for name, value in given.items()}, frames=2)
        assert torch.allclose(clips[:2], alone, atol=1e-5)
        assert not torch.allclose(clips, temporal(**given), atol=1e-4)


def test_fresh_attention_over_time_changes_nothing(generator):
    given, spatial = inputs(4), shaken(tiny_config())
    model = PocketModel.create(tiny_config(temporal=True), generator).eval()
    model.load_state_dict(spatial.state_dict(), strict=False)
    with torch.inference_mode():
        assert torch.allclose(model(**given, frames=4), spatial(**given), atol=1e-6)


def test_frames_that_agree_stay_alike_over_time():
    given = {name: value[:1].expand(4, *value.shape[1:]) for name, value in inputs().items()}
    with torch.inference_mode():
        result = shaken(tiny_config(temporal=True))(**given, frames=4)
    assert (result - result[:1]).abs().max() < 1e-4  # attention over equal keys is their mean, whatever the positions are


def test_layers_come_from_the_given_namespace():
    made = []

    def of(kind):
        return type(kind.__name__, (kind,), {"__init__": lambda self, *a, **k: (made.append(kind), kind.__init__(self, *a, **k))[1]})

    operations = types.SimpleNamespace(Linear=of(nn.Linear), Conv2d=of(nn.Conv2d), GroupNorm=of(nn.GroupNorm))
    model = PocketModel(tiny_config(), operations, torch.bfloat16, "meta")
    layers = [layer for layer in model.modules() if not list(layer.children()) and list(layer.parameters(recurse=False))]
    assert len(made) == len(layers) and set(made) == {nn.Linear, nn.Conv2d, nn.GroupNorm}
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.bfloat16, "meta")}


def test_half_precision_is_close():
    given, model = inputs(), shaken(tiny_config())
    with torch.inference_mode():
        whole = model(**given)
        half = model.to(torch.bfloat16)(**{name: value.bfloat16() for name, value in given.items()})
    assert half.dtype == torch.bfloat16 and (whole - half).abs().mean() < 0.03


def test_the_default_has_the_size_that_was_planned():
    with torch.device("meta"):
        full, small = PocketModel(PocketConfig("head", 61)), PocketModel(PocketConfig.small("head", 61))
    assert 11e6 < sum(p.numel() for p in full.parameters()) < 15e6
    assert 1e6 < sum(p.numel() for p in small.parameters()) < 3e6


@pytest.mark.parametrize(
    "name, shape, told",
    [
        ("control", (2, 12, 32, 48), "control picture has shape"),
        ("control", (2, 13, 32, 32), "control picture has shape"),
        ("code", (2, 60), "expression code has shape"),
        ("sigma", (3,), "noise level has shape"),
        ("reference", (1, 9, 32, 32), "reference picture has shape"),
        ("reference", (2, 9, 40, 32), "multiples of 8 and 16"),
    ],
)
def test_wrong_sizes_are_told(name, shape, told):
    with pytest.raises(ValueError, match=told):
        shaken(tiny_config())(**{**inputs(), name: torch.zeros(shape)})


def test_odd_pictures_and_clips_are_told():
    with pytest.raises(ValueError, match="multiples of 8"):
        shaken(tiny_config())(**inputs(2, 36, 48))
    with pytest.raises(ValueError, match="no whole number of clips of 3 frames"):
        shaken(tiny_config())(**inputs(2), frames=3)
    with pytest.raises(ValueError, match="another number of heads"):
        tiny_config(width=18)
    with pytest.raises(ValueError, match="multiples of 8"):
        tiny_config(levels=(8, 12, 16))


def test_a_file_brings_back_the_same_model(tmp_path):
    model, given, path = shaken(tiny_config()), inputs(), tmp_path / "pocket.safetensors"
    save_model(path, model.config, model.state_dict())
    with torch.inference_mode():
        loaded = load_model(path, "head")
        assert loaded.config == model.config and torch.equal(loaded(**given), model(**given))
    save_model(path, model.config, model.state_dict(), torch.bfloat16)
    half = load_model(path)
    assert all(torch.equal(a, b.bfloat16().float()) for a, b in zip(half.state_dict().values(), model.state_dict().values()))
    assert not any(p.requires_grad for p in half.parameters())


def test_wrong_files_are_told(tmp_path):
    model, path = shaken(tiny_config()), tmp_path / "pocket.safetensors"
    with pytest.raises(FileNotFoundError):
        load_model(path)
    save_model(path, model.config, model.state_dict())
    with pytest.raises(ValueError, match="trained for head model head, but other is loaded"):
        load_model(path, "other")
    save_model(path, dataclasses.replace(model.config, depth=4), model.state_dict())
    with pytest.raises(ValueError, match="damaged"):
        load_model(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="not a readable"):
        load_model(path)
