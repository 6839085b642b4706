import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy import rotation
from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.arkit_bridge import arkit_bridge
from expportrait.transfer.expression_controls import curve_amounts, named_expressions
from expportrait.transfer.expression_edit import TimeRange, edit_expression, resting_motion
from expportrait.transfer.expression_keyframes import parse_keyframes
from expportrait.transfer.transfer import transfer_motion

sys.path.insert(0, str(Path(__file__).parent))
from heads import make_proxy, make_track  # noqa: E402

TENSORS = ("expression", "joints", "translation", "valid")
NECK, HEAD, JAW, LEFT_EYE = (JOINTS.index(name) for name in ("neck", "head", "jaw", "left_eye"))


@pytest.fixture
def proxy(model, generator):
    return make_proxy(model, generator)


@pytest.fixture
def motion(model, proxy, generator):
    return transfer_motion(proxy, make_track(model, generator, frames=50), model)


def same(first, second, frames=slice(None)):
    return all(torch.equal(getattr(first, name)[frames], getattr(second, name)[frames]) for name in TENSORS)


def test_no_edit_changes_nothing(model, proxy, motion):
    assert same(edit_expression(motion, {}, proxy, model), motion)
    assert same(edit_expression(motion, {"neutral": 1.0}, proxy, model), motion)
    assert same(edit_expression(motion, (), proxy, model), motion)


def test_amounts_add_within_bounds_and_touch_nothing_else(model, proxy, motion):
    edited = edit_expression(motion, {"mouthSmileLeft": 0.3, "jawOpen": 2.0, "browDownLeft": -1.0}, proxy, model)
    column = model.expression_index
    change = edited.expression - motion.expression
    assert torch.allclose(change[:, column("mouthSmileLeft")], (1 - motion.expression[:, column("mouthSmileLeft")]).clamp(max=0.3))
    assert (edited.expression[:, column("jawOpen")] == 1).all()
    # Down to the bound, or to where the motion was below it.
    assert torch.equal(edited.expression[:, column("browDownLeft")], motion.expression[:, column("browDownLeft")].clamp(max=0))
    others = [i for i, name in enumerate(model.expression_names) if name not in ("mouthSmileLeft", "jawOpen", "browDownLeft")]
    assert torch.equal(edited.expression[:, others], motion.expression[:, others])
    assert torch.equal(edited.joints, motion.joints) and torch.equal(edited.translation, motion.translation)


def test_what_a_motion_has_beyond_the_bounds_is_not_cut(model, proxy, motion):
    wild = dataclasses.replace(motion, expression=1.5 * torch.ones_like(motion.expression))
    edited = edit_expression(wild, {"jawOpen": 0.5, "smile": 0.5}, proxy, model)
    assert torch.equal(edited.expression, wild.expression)


@pytest.mark.parametrize("mode", ("add", "replace"))
def test_frames_outside_the_range_stay_and_eases_are_smooth(model, proxy, motion, mode):
    when = TimeRange(0.4, 1.2, 0.2, 0.2)
    edited = edit_expression(motion, {"surprise": 1.0, "headYaw": 20.0}, proxy, model, when, mode)
    outside = [t for t in range(50) if t / 25 <= 0.4 or t / 25 >= 1.2]
    assert same(edited, motion, outside) and not torch.equal(edited.expression[15:25], motion.expression[15:25])
    weight = when.weights(50, 25.0)
    assert weight[15:26].eq(1).all() and weight.diff().abs().max() < 0.35 and torch.allclose(weight, weight.flip(0).roll(-9), atol=1e-9)


def test_range_of_one_frame_to_the_end_and_shortened_eases():
    assert TimeRange(ease_in=0.3, ease_out=0.3).weights(1, 25.0).tolist() == [1.0]
    assert TimeRange(0.04, 0.04).weights(3, 25.0).tolist() == [0.0, 1.0, 0.0]
    assert TimeRange(0.4).weights(20, 25.0).tolist() == [0.0] * 10 + [1.0] * 10
    tent = TimeRange(0.0, 0.8, 3.0, 1.0).weights(21, 25.0)  # eases of 4 s in 0.8 s meet at three quarters
    assert tent[15] == pytest.approx(1.0) and tent.argmax() == 15 and tent[0] == tent[20] == 0


def test_replace_takes_the_face_to_rest_and_leaves_the_head(model, proxy, motion):
    motion = dataclasses.replace(motion, detail=torch.ones(50, 2), detail_id="somebody", detail_basis=None)
    calm = edit_expression(motion, {"neutral": 1.0}, proxy, model, mode="replace")
    assert torch.equal(calm.expression, proxy.neutral.expand_as(calm.expression)) and (calm.detail == 0).all()
    assert torch.equal(calm.joints[:, [NECK, HEAD]], motion.joints[:, [NECK, HEAD]])
    assert (calm.joints[:, JAW].norm(dim=-1) <= 0.0501).all()
    assert torch.equal(calm.joints[:, LEFT_EYE], proxy.source_joints[LEFT_EYE].expand(50, 3))
    shown = edit_expression(motion, {"anger": 0.6}, proxy, model, mode="replace")
    low, high = model.expression_bounds.unbind(-1)
    expected = proxy.neutral.clone()
    for name, amount in curve_amounts({"anger": 0.6}).items():
        expected[model.expression_index(name)] += amount
    assert torch.allclose(shown.expression, expected.clamp(low, high).expand_as(shown.expression), atol=1e-6)


def test_head_and_gaze_turn_by_their_angles(model, proxy):
    still = dataclasses.replace(proxy, source_joints=torch.zeros_like(proxy.source_joints))
    rest = resting_motion(still, 0.2, 25.0)
    turned = edit_expression(rest, {"headYaw": 30.0, "gazePitch": 10.0}, still, model)
    world = rotation.compose(turned.joints[:, HEAD], turned.joints[:, NECK])
    assert torch.allclose(torch.rad2deg(world), torch.tensor([0.0, 30.0, 0.0]).expand(5, 3), atol=1e-3)
    assert torch.allclose(torch.rad2deg(turned.joints[:, LEFT_EYE]), torch.tensor([10.0, 0.0, 0.0]).expand(5, 3), atol=1e-4)
    nose = [model(still.identity[None], m.expression[:1], m.joints[:1])[0, model.regions["nose"] > 0.9].mean(0) for m in (rest, turned)]
    assert nose[1][0] > nose[0][0] + 0.02  # to the subject's left


def test_keyframes_are_met_and_nothing_overshoots(model, proxy):
    text = "5: smile 0.4; 20: surprise 1, jawOpen 0.2; 35: surprise 1"
    rest = resting_motion(dataclasses.replace(proxy, neutral=torch.zeros_like(proxy.neutral)), 2.0, 25.0)
    edited = edit_expression(rest, parse_keyframes(text, 25.0), proxy, model)
    column = model.expression_index
    smile, jaw, brow = (edited.expression[:, column(name)] for name in ("mouthSmileLeft", "jawOpen", "browInnerUp"))
    given = named_expressions()
    assert smile[:6].allclose(torch.tensor(0.4 * given["smile"]["mouthSmile"])) and smile[20:].abs().max() < 1e-6
    assert brow[20:].allclose(torch.tensor(given["surprise"]["browInnerUp"])) and brow[:6].abs().max() < 1e-6
    assert jaw[20] == pytest.approx(given["surprise"]["jawOpen"] + 0.2) and jaw[-1] == pytest.approx(given["surprise"]["jawOpen"])
    assert (smile.diff() <= 1e-6).all() and (brow.diff() >= -1e-6).all()  # monotone between keys


def test_standing_alone_begins_at_rest(model, proxy):
    rest = resting_motion(proxy, 1.5, 30.0)
    assert len(rest) == 45 and rest.fps == 30.0 and rest.valid.all()
    assert torch.equal(rest.expression[7], proxy.neutral) and torch.equal(rest.joints[3, HEAD], proxy.source_joints[HEAD])
    edited = edit_expression(rest, {"fear": 1.0}, proxy, model, TimeRange(ease_in=0.3, ease_out=0.3))
    assert same(edited, rest, [0, -1]) and not torch.equal(edited.expression[20], rest.expression[20])
    assert len(resting_motion(proxy, 0.001, 25.0)) == 1


def test_it_works_in_inference_mode(model, proxy, motion):
    with torch.inference_mode():
        edited = edit_expression(motion, {"smile": 1.0, "headRoll": 5.0}, proxy, model, TimeRange(0.2, 1.0, 0.1, 0.1), "replace")
    assert edited.expression.isfinite().all()


def test_models_without_arkit_names_get_the_bridge(model, proxy):
    other = dataclasses.replace(
        model,
        model_id="other",
        expression_names=tuple(f"exp{i:03d}" for i in range(len(model.expression_names))),
        expression_joints=torch.zeros_like(model.expression_joints),
    )
    rest = dataclasses.replace(resting_motion(proxy, 0.2, 25.0), model_id="other", expression=torch.zeros(5, 52))
    edited = edit_expression(rest, {"jawOpen": 1.0, "smile": 0.5}, dataclasses.replace(proxy, model_id="other"), other)
    curves = arkit_bridge(other).to_arkit(edited.expression, edited.joints - rest.joints)
    assert curves[0, model.expression_index("jawOpen")] > 0.7
    assert curves[0, model.expression_index("mouthSmileLeft")] > 0.2


def test_bad_input_says_what(model, proxy, motion):
    def refused(words, *args, **options):
        with pytest.raises(ValueError, match=words):
            edit_expression(motion, *args, proxy, model, **options)

    refused("add, replace", {}, mode="multiply")
    refused("did you mean smile", {"smiles": 1.0})
    refused("starts at 5 s, but the last frame is at 1.96 s", {"smile": 1.0}, when=TimeRange(5.0))
    with pytest.raises(ValueError, match="ends at 1 s, but starts at 2 s"):
        TimeRange(2.0, 1.0)
    with pytest.raises(ValueError, match="ease_in is nan"):
        TimeRange(ease_in=float("nan"))
    with pytest.raises(ValueError, match="fps is 0"):
        resting_motion(proxy, 1.0, 0.0)
    with pytest.raises(ValueError, match="no frame"):
        edit_expression(motion.select([]), {}, proxy, model)
    with pytest.raises(ValueError, match="head model other"):
        edit_expression(dataclasses.replace(motion, model_id="other"), {}, proxy, model)
