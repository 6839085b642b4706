import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.transfer.neutral import quiet_frames, rest_at, rest_of, resting_expression

sys.path.insert(0, str(Path(__file__).parent))
from heads import make_track  # noqa: E402


def test_small_offsets_are_the_resting_face_and_large_ones_are_not(model):
    index = {name: i for i, name in enumerate(model.expression_names)}
    expression = torch.zeros(len(index))
    expression[index["mouthFrownLeft"]], expression[index["browInnerUp"]] = 0.1, 0.9
    rest = resting_expression(expression, model)
    assert rest[index["mouthFrownLeft"]] == 0.1 and rest[index["browInnerUp"]] <= 0.25 * model.expression_bounds.max() + 1e-6


def test_an_open_mouth_is_closed_at_rest(model):
    index = {name: i for i, name in enumerate(model.expression_names)}
    expression = torch.zeros(len(index))
    expression[index["jawOpen"]], expression[index["mouthFunnel"]], expression[index["browInnerUp"]] = 0.8, 0.5, 0.1
    rest = resting_expression(expression, model)
    assert rest[index["jawOpen"]] == 0 and rest[index["mouthFunnel"]] == 0 and rest[index["browInnerUp"]] == 0.1


def test_quiet_frames_of_a_clip_are_found_and_give_its_rest(model, generator):
    track = make_track(model, generator, frames=60)
    acted = 0.8 * torch.rand(60, len(model.expression_names), generator=generator)
    resting = 0.04 * torch.rand(len(model.expression_names), generator=generator)
    acted[20:35] = resting
    track = dataclasses.replace(track, expression=acted)
    quiet = quiet_frames(track, model)
    assert len(quiet) == 9 and ((quiet >= 20) & (quiet < 35)).all()
    assert torch.allclose(rest_of(track, model).expression, resting, atol=1e-6)


def test_frames_without_a_face_have_no_say(model, generator):
    track = make_track(model, generator, frames=20)
    valid = torch.zeros(20, dtype=torch.bool)
    valid[7] = True
    track = dataclasses.replace(track, valid=valid)
    assert quiet_frames(track, model).tolist() == [7]
    assert torch.allclose(rest_of(track, model).translation, track.translation[7])
    with pytest.raises(ValueError, match="no frame with a face"):
        quiet_frames(dataclasses.replace(track, valid=torch.zeros(20, dtype=torch.bool)), model)


def test_what_never_goes_away_is_no_acting(model, generator):
    """A fit's bias of 0.6 in a lively clip belongs to the rest; in a photo it may be a smile."""
    track = make_track(model, generator, frames=60)
    smile = model.expression_names.index("mouthSmileLeft")
    expression = track.expression.clone()
    expression[20:35] *= 0.1
    expression[:, smile] = 0.6
    track = dataclasses.replace(track, expression=expression)
    assert rest_of(track, model).expression[smile] > 0.55
    photo = track.at(torch.tensor([25]))
    assert rest_of(photo, model).expression[smile] == 0.25


def test_a_driver_without_rest_is_told_of(model, generator, caplog):
    track = make_track(model, generator, frames=1)
    acting = torch.where(torch.rand(track.expression.shape, generator=generator) < 0.2, 0.9, 0.0)
    rest = rest_of(dataclasses.replace(track, expression=acting), model)
    assert "no picture shows this face at rest" in caplog.text and rest.expression.max() <= 0.25
    caplog.clear()
    rest_of(dataclasses.replace(track, expression=0.1 * acting), model)
    assert not caplog.text


def test_a_declared_rest_is_taken_as_it_is(model, generator):
    track = make_track(model, generator, frames=10)
    rest = rest_at(track, 4)
    assert torch.equal(rest.expression, track.expression[4]) and torch.equal(rest.joints, track.joints[4])
    with pytest.raises(ValueError, match="neutral_frame is 10, but the clip has frames 0 to 9"):
        rest_at(track, 10)
    gap = dataclasses.replace(track, valid=torch.arange(10) != 4)
    with pytest.raises(ValueError, match="no face was found in frame 4"):
        rest_at(gap, 4)
