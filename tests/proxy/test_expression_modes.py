import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.head_model import JOINTS, load_head_model
from expportrait.proxy.refine.expression_modes import ExpressionModes, Wrinkles, calmness

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track  # noqa: E402

FRAMES = 12


@pytest.fixture(scope="module")
def model():
    return load_head_model()


@pytest.fixture(scope="module")
def track(model):
    """A face that opens its mouth twice and smiles once; the head turns."""
    track = make_track(model, 64, 64, torch.linspace(-0.4, 0.4, FRAMES).tolist())
    expression = torch.zeros(FRAMES, len(model.expression_names))
    time = torch.linspace(0, 1, FRAMES)
    expression[:, 0] = 0.8 * torch.sin(2 * torch.pi * time).abs()
    expression[:, 1] = 0.5 * time
    return dataclasses.replace(track, expression=expression)


def test_scores_have_no_mean_and_unit_size(model, track):
    modes = ExpressionModes.of(model, track, 4)
    scores = modes.scores(model, track)
    assert scores.shape == (FRAMES, len(modes)) and 1 <= len(modes) <= 4
    assert scores.mean(0).abs().max() < 1e-3
    assert torch.allclose(scores.square().mean(0), torch.ones(len(modes)), atol=1e-2)
    assert (modes.size.diff() <= 0).all()
    assert torch.allclose(modes.fields.square().sum(-1).mean(-1).sqrt(), modes.size, rtol=1e-3)


def test_modes_make_the_shapes_again(model, track):
    modes = ExpressionModes.of(model, track, 6)
    found = modes.mean + torch.einsum("tk,knx->tnx", modes.scores(model, track), modes.fields)
    shapes = model.forward(track.identity[None], track.expression, torch.zeros_like(track.joints))[:, modes.vertices]
    assert (found - shapes).square().mean() < 0.01 * (shapes - shapes.mean(0)).square().mean()


def test_turning_the_head_is_no_expression(model, track):
    joints = torch.zeros_like(track.joints)
    still = dataclasses.replace(track, joints=joints)
    assert torch.allclose(ExpressionModes.of(model, track, 2).fields, ExpressionModes.of(model, still, 2).fields)
    joints[:, JOINTS.index("head"), 0] = torch.linspace(-0.3, 0.3, FRAMES)
    nodding = dataclasses.replace(still, joints=joints, expression=torch.zeros_like(track.expression))
    assert len(ExpressionModes.of(model, nodding, 4)) == 0


def test_an_open_jaw_is_one(model, track):
    joints = torch.zeros_like(track.joints)
    joints[:, JOINTS.index("jaw"), 0] = torch.linspace(0, 0.3, FRAMES)
    chewing = dataclasses.replace(track, joints=joints, expression=torch.zeros_like(track.expression))
    assert len(ExpressionModes.of(model, chewing, 4)) >= 1


def test_frames_without_a_face_have_no_say(model, track):
    valid = torch.ones(FRAMES, dtype=torch.bool)
    valid[3] = False
    wild = track.expression.clone()
    wild[3] = 5.0
    kept = torch.cat([torch.arange(3), torch.arange(4, FRAMES)])
    modes = ExpressionModes.of(model, dataclasses.replace(track, expression=wild, valid=valid), 3)
    assert torch.allclose(modes.mean, ExpressionModes.of(model, track.at(kept), 3).mean, atol=1e-7)


def test_one_frame_has_no_modes(model, track):
    modes = ExpressionModes.of(model, track.at(torch.tensor([2])), 4)
    assert len(modes) == 0 and modes.scores(model, track).shape == (FRAMES, 0)


def test_wrinkles_have_no_mean_over_their_frames(model, track):
    modes = ExpressionModes.of(model, track.at(torch.arange(0, FRAMES, 3)), 2)
    relief = torch.randn(len(modes), 5, generator=torch.Generator().manual_seed(0))
    wrinkles = Wrinkles(modes, modes.scores(model, track).mean(0), relief)
    found = wrinkles.at(model, track)
    assert found.shape == (FRAMES, 5) and found.mean(0).abs().max() < 1e-5 and found.abs().max() > 0.1


def test_frames_at_rest_count_most(model, track):
    expression = torch.zeros_like(track.expression)
    expression[:, model.expression_names.index("jawOpen")] = torch.linspace(0.1, 1, FRAMES)
    valid = track.valid.clone()
    valid[[0, 5]] = False
    calm = calmness(model, dataclasses.replace(track, expression=expression, valid=valid))
    assert calm.shape == (FRAMES,) and (calm[~valid] == 0).all()
    assert float(calm[valid].mean()) == pytest.approx(1, abs=1e-5)
    assert (calm[valid].diff() < 0).all() and calm[1] > 2 * calm[-1] > 0


def test_all_frames_count_alike_where_the_face_does_not_move(model, track):
    expression = torch.full_like(track.expression, 0.3)
    assert torch.allclose(calmness(model, dataclasses.replace(track, expression=expression)), torch.ones(FRAMES), atol=1e-3)
    joints = torch.zeros_like(track.joints)
    joints[6:, JOINTS.index("jaw"), 0] = 0.3
    calm = calmness(model, dataclasses.replace(track, expression=torch.zeros_like(expression), joints=joints))
    assert (calm[:6] > 2 * calm[6:]).all()
