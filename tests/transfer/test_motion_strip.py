import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.transfer.expression_edit import edit_expression, resting_motion
from expportrait.transfer.motion_curves import motion_curves
from expportrait.transfer.motion_strip import HEAD, PLOT, WIDTH, motion_strip

sys.path.insert(0, str(Path(__file__).parent))
from heads import make_proxy  # noqa: E402


@pytest.fixture
def proxy(model, generator):
    proxy = make_proxy(model, generator)
    return dataclasses.replace(proxy, source_joints=torch.zeros_like(proxy.source_joints))


def edited(proxy, model, **amounts):
    return edit_expression(resting_motion(proxy, 0.16, 25.0), amounts, proxy, model)


@pytest.mark.parametrize(("name", "curve"), [("headPitch", "pitch"), ("headYaw", "yaw"), ("headRoll", "roll")])
def test_angles_are_those_of_an_edit(model, proxy, name, curve):
    before, after = (motion_curves(edited(proxy, model, **amounts), model)["pose"] for amounts in ({}, {name: 12.0}))
    change = {axis: float((after[axis] - before[axis]).mean()) for axis in after}
    expected = {"pitch": 0.0, "yaw": 0.0, "roll": 0.0} | {curve: 12.0}
    assert change == pytest.approx(expected, abs=0.6)


def test_a_jaw_opens_the_mouth_and_a_blink_shuts_its_own_eye(model, proxy):
    rest, jaw, blink = (motion_curves(edited(proxy, model, **a), model) for a in ({}, {"jawOpen": 0.7}, {"eyeBlinkLeft": 1.0}))
    assert (jaw["mouth"]["open"] > rest["mouth"]["open"] + 0.1).all()
    assert (blink["lids"]["left"] < 0.25).all() and torch.allclose(blink["lids"]["right"], rest["lids"]["right"], atol=0.05)
    assert torch.allclose(blink["mouth"]["open"], rest["mouth"]["open"], atol=1e-3)


def test_a_motion_of_an_unknown_head_shows_its_pose(model, proxy):
    assert set(motion_curves(edited(proxy, model), None)) == {"pose"}
    assert motion_strip(edited(proxy, model)).shape == (PLOT, WIDTH, 3)


def test_the_strip_shows_heads_curves_and_filled_frames(model, proxy):
    with torch.inference_mode():
        motion = edited(proxy, model, jawOpen=0.5)
        strip = motion_strip(motion, model, proxy)
        lost = motion_strip(dataclasses.replace(motion, valid=torch.tensor([True, False, True, True])), model, proxy)
    assert strip.shape == (HEAD + 3 * PLOT, WIDTH, 3) and strip.isfinite().all() and strip.min() >= 0 and strip.max() <= 1
    assert strip[:HEAD].std() > 0.1
    redder = lost - strip
    assert torch.equal(lost[:HEAD], strip[:HEAD]) and redder[HEAD:, WIDTH // 4 + 40, 0].amax() > 0.05
    assert redder[:, -20:].abs().max() == 0


def test_one_frame_and_numbers_that_are_none_can_be_shown(model, proxy):
    motion = edited(proxy, model).select([0])
    broken = dataclasses.replace(motion, expression=motion.expression * float("nan"))
    assert motion_strip(motion, model, proxy).isfinite().all()
    assert motion_strip(broken, model).isfinite().all()


def test_an_empty_motion_is_told(model, proxy):
    with pytest.raises(ValueError, match="no frames"):
        motion_strip(edited(proxy, model).select([]), model)
