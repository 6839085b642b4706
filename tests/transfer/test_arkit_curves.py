import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy import rotation
from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.arkit_bridge import ARKIT_NAMES
from expportrait.transfer.arkit_curves import ArkitCurves, arkit_from_motion, motion_from_arkit
from expportrait.transfer.presets import DISTANCE, NECK_SHARE, load_preset
from expportrait.transfer.transfer import transfer_motion

sys.path.insert(0, str(Path(__file__).parent))
from foreign_head import make_foreign  # noqa: E402
from heads import make_proxy  # noqa: E402

NECK, HEAD, JAW, EYES = JOINTS.index("neck"), JOINTS.index("head"), JOINTS.index("jaw"), slice(4, 6)


def index(name: str) -> int:
    return ARKIT_NAMES.index(name)


@pytest.fixture
def curves(model, generator):
    return torch.rand(20, 52, generator=generator) * model.expression_bounds[:, 1]


def test_curves_lead_back_to_themselves(model, generator, curves):
    arkit = ArkitCurves(curves, 29.97, 0.3 * torch.randn(20, 3, generator=generator))
    motion = motion_from_arkit(arkit, model)
    assert motion.fps == 29.97 and motion.valid.all() and len(motion) == 20
    again = arkit_from_motion(motion, model)
    torch.testing.assert_close(again.curves, curves, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.head, arkit.head, atol=1e-5, rtol=0)
    assert again.fps == arkit.fps


def test_a_motion_leads_back_to_the_same_pose(model):
    motion, _ = load_preset("speaking", model)
    again = motion_from_arkit(arkit_from_motion(motion, model), model)
    gaze = [k for k, name in enumerate(ARKIT_NAMES) if name.startswith("eyeLook")]
    others = [k for k in range(52) if k not in gaze]
    torch.testing.assert_close(again.expression[:, others], motion.expression[:, others], atol=1e-5, rtol=0)
    turned, wanted = (model.joint_rotations(m.expression, m.joints) for m in (again, motion))
    torch.testing.assert_close(turned, wanted, atol=1e-5, rtol=0)


def test_eyes_turn_as_arkits_do_unless_recorded(model):
    curves = torch.zeros(2, 52)
    curves[0, index("eyeLookOutLeft")] = curves[0, index("eyeLookInRight")] = 0.5
    curves[1, index("eyeLookUpLeft")] = 1.0
    motion = motion_from_arkit(ArkitCurves(curves, 30.0), model)
    eyes = model.joint_rotations(motion.expression, motion.joints)[:, EYES]
    assert torch.allclose(eyes[0, :, 1], torch.tensor([0.3, 0.3]), atol=1e-6)
    assert torch.allclose(eyes[1, :, 0], torch.tensor([-0.5, 0.0]), atol=1e-6)
    recorded = torch.tensor([[[0.1, -0.2, 0.0], [0.1, -0.25, 0.0]]]).expand(2, 2, 3)
    motion = motion_from_arkit(ArkitCurves(curves, 30.0, eyes=recorded), model)
    torch.testing.assert_close(model.joint_rotations(motion.expression, motion.joints)[:, EYES], recorded)
    written = arkit_from_motion(motion, model)
    torch.testing.assert_close(written.eyes, recorded)
    assert written.curves[0, index("eyeLookInLeft")] == pytest.approx(0.2 / 0.6)
    assert written.curves[0, index("eyeLookOutLeft")] == 0
    assert written.curves[1, index("eyeLookDownLeft")] == pytest.approx(0.1 / 0.5)


def test_a_gaze_beyond_arkits_range_stops_at_1(model):
    motion = motion_from_arkit(ArkitCurves(torch.zeros(1, 52), 30.0, eyes=torch.tensor([[[0.0, 0.9, 0.0], [0.0, 0.9, 0.0]]])), model)
    written = arkit_from_motion(motion, model)
    assert written.curves.max() == 1 and written.eyes[0, 0, 1] == pytest.approx(0.9)


def test_neck_takes_its_share_and_the_head_looks_where_it_was_told(model):
    head = torch.tensor([[0.2, -0.4, 0.1]])
    motion = motion_from_arkit(ArkitCurves(torch.zeros(1, 52), 30.0, head), model)
    torch.testing.assert_close(motion.joints[:, NECK], NECK_SHARE * head)
    together = rotation.compose(motion.joints[:, HEAD], motion.joints[:, NECK])
    torch.testing.assert_close(together, head)
    assert motion.translation.tolist() == [[0.0, 0.0, -DISTANCE]]
    assert not motion_from_arkit(ArkitCurves(torch.zeros(1, 52), 30.0), model).joints.any()


def test_curves_beyond_the_bounds_keep_the_lips_as_close(model):
    curves = torch.zeros(3, 52)
    curves[0, index("jawOpen")], curves[0, index("mouthClose")] = 0.7, 0.6
    curves[1, index("mouthSmileLeft")], curves[1, index("browInnerUp")] = 1.4, -0.2
    curves[2, index("mouthClose")] = 0.5
    expression = motion_from_arkit(ArkitCurves(curves, 30.0), model).expression
    assert expression[0, index("mouthClose")] == pytest.approx(0.2) and expression[0, index("jawOpen")] == pytest.approx(0.3)
    assert expression[1, index("mouthSmileLeft")] == 1 and expression[1, index("browInnerUp")] == 0
    assert expression[2, index("mouthClose")] == pytest.approx(0.2) and expression[2, index("jawOpen")] == 0
    low, high = model.expression_bounds.unbind(-1)
    assert (expression >= low).all() and (expression <= high).all()


def test_another_model_shows_the_same_and_gives_it_back(model, generator):
    foreign = make_foreign(model, torch.Generator().manual_seed(3))
    curves = torch.zeros(3, 52)
    curves[0, index("jawOpen")], curves[1, index("mouthSmileLeft")], curves[2, index("eyeBlinkRight")] = 0.6, 0.8, 1.0
    curves[1, index("eyeLookDownLeft")] = 0.5
    motion = motion_from_arkit(ArkitCurves(curves, 30.0), foreign)
    assert motion.model_id == "foreign-head" and motion.joints[0, JAW, 0] == pytest.approx(0.6 * 0.37, abs=0.01)
    again = arkit_from_motion(motion, foreign)
    torch.testing.assert_close(again.curves, curves, atol=0.05, rtol=0)


def test_drives_a_proxy_inside_inference_mode(model, generator, curves):
    valid = torch.ones(20, dtype=torch.bool)
    valid[3] = False
    with torch.inference_mode():
        driver = motion_from_arkit(ArkitCurves(curves, 30.0, valid=valid), model)
        assert driver.valid.tolist() == valid.tolist()
        motion = transfer_motion(make_proxy(model, generator), driver, model)
    assert len(motion) == 20 and motion.expression.isfinite().all()


def test_bad_input_is_named(model, curves):
    motion = motion_from_arkit(ArkitCurves(curves, 30.0), model)
    with pytest.raises(ValueError, match="made with head model other"):
        arkit_from_motion(dataclasses.replace(motion, model_id="other"), model)
    with pytest.raises(ValueError, match=r"curves of the ARKit curves has shape \[20, 51\]; expected \[20, 52\]"):
        ArkitCurves(curves[:, 1:], 30.0)
    with pytest.raises(ValueError, match=r"eyes .* expected \[20, 2, 3\]"):
        ArkitCurves(curves, 30.0, eyes=torch.zeros(20, 3))
    for fps in (0.0, math.nan):
        with pytest.raises(ValueError, match="positive rate"):
            ArkitCurves(curves, fps)
