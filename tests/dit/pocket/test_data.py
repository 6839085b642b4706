import dataclasses

import pytest
import torch

from expportrait.dit.expression_code import code_size
from expportrait.dit.pocket.conditions import CHANNELS, CONTROL, REFERENCE, ConditionMaker
from expportrait.dit.pocket.damage import damage
from expportrait.dit.pocket.data import SEED_SPAN, ExampleMaker, Examples, make_data
from expportrait.dit.pocket.waves import Dice
from expportrait.proxy.camera import Camera
from expportrait.proxy.posing import SourcePose

SIDE = 64


@pytest.fixture(scope="module")
def maker(model):
    return ExampleMaker(model, SIDE)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("examples")
    with torch.inference_mode():
        make_data(path, model, 2, 3, SIDE, seed=5)
    return path


def part(control: torch.Tensor, name: str) -> torch.Tensor:
    start = sum(list(CHANNELS.values())[: list(CHANNELS).index(name)])
    return control[:, start : start + CHANNELS[name]]


def test_an_example_is_what_its_seed_says(maker, model):
    with torch.inference_mode():
        first, again, other = (maker.random(torch.Generator().manual_seed(seed), 2) for seed in (3, 3, 4))
    assert first.control.shape == (2, CONTROL, SIDE, SIDE) and first.reference.shape == (REFERENCE, SIDE, SIDE)
    assert first.code.shape == (2, code_size(model)) and first.target.shape == (2, 3, SIDE, SIDE)
    for field in dataclasses.fields(first):
        value = getattr(first, field.name)
        assert torch.equal(value, getattr(again, field.name)) and not torch.equal(value, getattr(other, field.name))
        assert value.isfinite().all() and (field.name == "code" or (0 <= value.min() and value.max() <= 1))


def test_the_warp_resembles_the_truth_and_is_not_it(maker):
    with torch.inference_mode():
        examples = [maker.random(torch.Generator().manual_seed(seed), 2) for seed in range(3)]
    near, far = [], []
    for one, two in zip(examples, examples[1:] + examples[:1]):
        head = one.focus >= 0.6
        near.append(((part(one.control, "warp") - one.target).abs() * head).sum() / head.sum())
        far.append(((part(two.control, "warp") - one.target).abs() * head).sum() / head.sum())
    assert 0.005 < torch.stack(near).mean() < 0.5 * torch.stack(far).mean()


def test_focus_marks_eyes_and_mouth_within_the_head(maker):
    with torch.inference_mode():
        focus = maker.random(torch.Generator().manual_seed(1), 2).focus
    share = [float((focus.mul(3).round() >= level).float().mean()) for level in (1, 2, 3)]
    assert share[0] > share[1] > 4 * share[2] > 0


def test_in_motion_neighbours_are_closer_than_ends(maker):
    with torch.inference_mode():
        frames = maker.random(torch.Generator().manual_seed(2), 5, in_motion=True).target
    steps = frames.diff(dim=0).abs().mean((1, 2, 3))
    assert len(frames) == 5 and steps.max() < (frames[-1] - frames[0]).abs().mean()


def test_at_the_sources_own_pose_the_warp_is_the_source_and_all_of_it_valid(maker):
    with torch.inference_mode():
        studio, dice = maker.studio, Dice(torch.Generator().manual_seed(0))
        person = studio.people.random(dice.generator)
        camera = Camera.centred(2.0 * SIDE, SIDE, SIDE)
        still = studio.poses(dice, 1, camera.focal, 0.6, 0.4)
        photo = studio.photograph(person, still, camera, studio.light(dice, person), studio.backdrop(dice))
        proxy = maker._proxy(dice, person.identity, still, camera, photo)
        conditions = ConditionMaker(photo.images[0], proxy, maker.model, camera, photo.person[0, 0])
        seen = conditions.frames(SourcePose.of(proxy))
        reference = conditions.reference()
    assert (seen.warp - photo.images).abs().mean() < 0.01
    assert seen.validity.mean() > 0.95
    assert torch.equal(reference[:, 3:6], seen.normals) and torch.equal(reference[:, 6:], seen.regions)
    assert torch.allclose(reference[:, :3], photo.images, atol=1e-6)
    assert (seen.background - photo.images).abs().mean() > 0.02  # somebody was painted over
    head = seen.head > 0.5
    assert (head & (photo.head < 0.5)).float().sum() < 0.02 * head.sum()  # hair is beyond the proxy's head, shoulders are not in it
    assert 0.2 < head.sum() / (seen.normals.amax(1, keepdim=True) > 0.1).sum() < 0.8


def test_files_hold_what_was_made_and_are_kept(model, maker, folder):
    examples = Examples(folder, model.model_id)
    assert len(examples) == 6 and examples.side == SIDE
    with torch.inference_mode():
        example = maker.random(torch.Generator().manual_seed(5 * SEED_SPAN + 1), 3)
    batch = examples.read([4])
    assert (batch["target"][0] - example.target[1]).abs().max() <= 0.501 / 255
    assert (batch["control"][0] - example.control[1]).abs().max() <= 0.501 / 255
    assert (batch["code"][0] - example.code[1]).abs().max() < 2e-3
    (path,) = folder.iterdir()
    before, seen = path.stat().st_mtime_ns, []
    make_data(folder, model, 2, 3, SIDE, seed=5, progress=lambda *state: seen.append(state))
    assert path.stat().st_mtime_ns == before and seen == []


def test_another_seed_makes_other_people(model, folder, tmp_path):
    make_data(tmp_path, model, 1, 1, SIDE, seed=6)
    other, ours = Examples(tmp_path).read([0]), Examples(folder).read([0])
    assert (other["reference"] - ours["reference"]).abs().mean() > 0.02


def test_smaller_pictures_are_averaged(folder):
    examples = Examples(folder)
    large, small = examples.read([0, 5]), examples.read([0, 5], 32)
    assert small["control"].shape == (2, CONTROL, 32, 32) and small["focus"].shape == (2, 1, 32, 32)
    assert torch.allclose(small["target"].mean((2, 3)), large["target"].mean((2, 3)), atol=1e-5)
    assert torch.equal(large["stale"], examples.read([1, 3])["control"][:, :4]) and small["stale"].shape == (2, 4, 32, 32)
    assert set(small["focus"].mul(3).round().unique().tolist()) <= {0, 1, 2, 3}


def test_clips_stay_with_one_person(folder):
    examples = Examples(folder)
    assert examples.clips(1) == list(range(6)) and examples.clips(3) == [0, 3] and examples.clips(2) == [0, 1, 3, 4]
    with pytest.raises(ValueError, match="nobody in the data has 4 frames"):
        examples.clips(4)


def test_bad_requests_and_foreign_files_are_told(model, folder, tmp_path):
    for bad in ({"people": 0}, {"people": 1, "frames": 0}, {"people": 1, "side": 70}, {"people": 1, "seed": 5000}):
        with pytest.raises(ValueError):
            make_data(tmp_path, model, **bad)
    with pytest.raises(FileNotFoundError, match="train-pocket data"):
        Examples(tmp_path)
    with pytest.raises(ValueError, match="made with head model"):
        Examples(folder, "another")
    with pytest.raises(ValueError, match="cannot be read at 48"):
        Examples(folder).read([0], 48)


def test_damage_spoils_the_warp_alone_and_tells_of_most(folder, generator):
    batch = Examples(folder).read([0] * 64)
    spoilt = damage(batch, generator)
    for name in ("code", "focus"):
        assert spoilt[name] is batch[name]
    assert torch.equal(part(spoilt["control"], "normals"), part(batch["control"], "normals"))
    regions = part(spoilt["control"], "regions")
    marked = regions.amax((1, 2, 3)) > 0
    assert 34 < marked.sum() < 64 and torch.equal(regions[marked], part(batch["control"], "regions")[marked])
    # Colours of a whole example change together.
    ratio = spoilt["target"].mean((2, 3)) / batch["target"].mean((2, 3))
    assert 0.78 < ratio.min() < 0.95 and 1.02 < ratio.max() < 1.22
    again = spoilt["reference"][:, :3].mean((2, 3)) / batch["reference"][:, :3].mean((2, 3))
    assert (ratio - again).abs().max() < 0.08
    validity, before = part(spoilt["control"], "validity"), part(batch["control"], "validity")
    stale = batch["stale"][:, 3:]
    assert ((validity <= before).flatten(1).all(1) | (validity <= stale).flatten(1).all(1)).all()
    assert (validity.amax((1, 2, 3)) == 0).any() and 0 < (validity == stale).flatten(1).all(1).sum() < 30
    assert 0.3 < (validity == before).flatten(1).all(1).float().mean() < 0.9
    assert torch.equal(batch["control"], Examples(folder).read([0] * 64)["control"])
