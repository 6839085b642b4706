import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.transfer.neutral import quiet_frames, rest_of, resting_expression

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
    quiet = quiet_frames(track)
    assert len(quiet) == 9 and ((quiet >= 20) & (quiet < 35)).all()
    assert torch.allclose(rest_of(track, model).expression, resting, atol=1e-6)


def test_frames_without_a_face_have_no_say(model, generator):
    track = make_track(model, generator, frames=20)
    valid = torch.zeros(20, dtype=torch.bool)
    valid[7] = True
    track = dataclasses.replace(track, valid=valid)
    assert quiet_frames(track).tolist() == [7]
    assert torch.allclose(rest_of(track, model).translation, track.translation[7])
    with pytest.raises(ValueError, match="no frame with a face"):
        quiet_frames(dataclasses.replace(track, valid=torch.zeros(20, dtype=torch.bool)))
