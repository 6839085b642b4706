import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.motion_smooth import smooth_motion

sys.path.insert(0, str(Path(__file__).parent))
from motions import make_motion  # noqa: E402

METHODS = ("gaussian", "one-euro")
TENSORS = ("expression", "joints", "translation", "detail")


@pytest.mark.parametrize("method", METHODS)
def test_off_changes_nothing(generator, method):
    motion = make_motion(generator)
    smooth = smooth_motion(motion, method, 0.0, 0.0)
    assert all(torch.equal(getattr(smooth, name), getattr(motion, name)) for name in TENSORS)


@pytest.mark.parametrize("method", METHODS)
def test_each_strength_calms_its_own_part(generator, method):
    still = make_motion(generator, frames=1).select([0] * 200)
    noise = {name: 0.02 * torch.randn(getattr(still, name).shape, generator=generator) for name in TENSORS}
    noisy = dataclasses.replace(still, **{name: getattr(still, name) + noise[name] for name in TENSORS})
    face, head = smooth_motion(noisy, method, 0.1, 0.0), smooth_motion(noisy, method, 0.0, 0.1)
    own = [JOINTS.index(name) for name in ("jaw", "left_eye", "right_eye")]
    rest = [i for i in range(len(JOINTS)) if i not in own]

    def calmed(motion, name, joints=slice(None)):
        after, before = ((getattr(m, name) - getattr(still, name))[20:] for m in (motion, noisy))
        if name == "joints":
            after, before = after[:, joints], before[:, joints]
        return bool((after.std(0) < 0.8 * before.std(0)).all())

    assert calmed(face, "expression") and calmed(face, "detail") and calmed(face, "joints", own)
    assert torch.equal(face.translation, noisy.translation) and torch.equal(face.joints[:, rest], noisy.joints[:, rest])
    assert calmed(head, "translation") and calmed(head, "joints", rest)
    assert torch.equal(head.expression, noisy.expression) and torch.equal(head.joints[:, own], noisy.joints[:, own])


@pytest.mark.parametrize("method", METHODS)
def test_filled_frames_single_frames_and_inference_mode(generator, method):
    motion = make_motion(generator)
    motion = dataclasses.replace(motion, valid=torch.arange(40) % 5 > 0, detail=None, detail_id=None, detail_basis=None)
    with torch.inference_mode():
        smooth = smooth_motion(motion, method, 0.1, 0.1)
    assert torch.equal(smooth.valid, motion.valid) and smooth.expression.isfinite().all()
    assert smooth.expression.dtype == motion.expression.dtype
    assert torch.allclose(smooth_motion(motion.select([3]), method, 0.1, 0.1).joints, motion.joints[3:4], atol=1e-6)


def test_bad_input_says_what(generator):
    motion = make_motion(generator)
    with pytest.raises(ValueError, match="gaussian, one-euro"):
        smooth_motion(motion, "median")
    with pytest.raises(ValueError, match="pose_strength is -1"):
        smooth_motion(motion, "gaussian", 0.0, -1.0)
    with pytest.raises(ValueError, match="nan frames per second"):
        smooth_motion(dataclasses.replace(motion, fps=float("nan")), "one-euro", 0.1, 0.1)
