import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.head_model import JOINTS, LandmarkTable
from expportrait.proxy.smplx_model import load_smplx
from expportrait.transfer.arkit_bridge import ARKIT_NAMES, arkit_bridge

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "proxy")]
from foreign_head import SCALE, make_foreign  # noqa: E402
from smplx_file import write_smplx_file  # noqa: E402

JAW, LEFT_EYE, RIGHT_EYE = (JOINTS.index(name) for name in ("jaw", "left_eye", "right_eye"))


@pytest.fixture(scope="module")
def foreign(model):
    return make_foreign(model, torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def smplx_head(tmp_path_factory):
    """A synthetic SMPL-X file whose landmarks lie on the skin closest to made-up places."""
    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    write_smplx_file(path)
    head = load_smplx(path)
    generator = torch.Generator().manual_seed(5)
    template = head.stencil @ head.template
    centre = template[head.faces].mean(1)
    front = ((centre[:, 2] > 0.05) & (centre[:, 1] > 0.22) & (head.parts == 0)).nonzero()[:, 0]
    picked = front[torch.randint(len(front), (478,), generator=generator)]
    for corner, x in ((33, -0.045), (263, 0.045)):
        picked[corner] = front[(centre[front] - torch.tensor([x, 0.33, 0.06])).norm(dim=1).argmin()]
    table = LandmarkTable(picked, torch.full((478, 3), 1 / 3), torch.ones(478))
    return dataclasses.replace(head, landmarks=table)


def sparse_curves(model, generator, frames=30) -> torch.Tensor:
    """Curves [T, 52] within ARKit's bounds, most of them 0, that no other curves look like."""
    curves = torch.rand(frames, 52, generator=generator) * (torch.rand(frames, 52, generator=generator) < 0.2)
    curves = curves * model.expression_bounds[:, 1]
    for one, other in (("In", "Out"), ("Up", "Down")):  # an eye looks one way
        for side in ("Left", "Right"):
            curves[:, ARKIT_NAMES.index(f"eyeLook{one}{side}")] *= curves[:, ARKIT_NAMES.index(f"eyeLook{other}{side}")] == 0
    curves[:, ARKIT_NAMES.index("tongueOut")] = 0  # moves no landmark
    return curves


def test_names_are_the_embedded_heads(model):
    assert ARKIT_NAMES == model.expression_names and ARKIT_NAMES == tuple(sorted(ARKIT_NAMES))


def test_is_the_identity_for_a_model_with_arkits_names(model, generator):
    bridge = arkit_bridge(model)
    curves = torch.rand(6, 52, generator=generator)
    expression, joints = bridge.to_model(curves)
    assert torch.equal(expression, curves) and not joints.any()
    assert torch.equal(bridge.to_arkit(expression, joints), curves)
    assert not bridge.residual.any()


def test_finds_names_in_any_order(model, generator):
    order = torch.randperm(52, generator=generator)
    shuffled = dataclasses.replace(
        model,
        expression_names=tuple(model.expression_names[k] for k in order),
        expression_basis=model.expression_basis[order],
        expression_bounds=model.expression_bounds[order],
        joint_expression=model.joint_expression[order],
        expression_joints=model.expression_joints[order],
    )
    curves = torch.rand(3, 52, generator=generator)
    expression, joints = arkit_bridge(shuffled).to_model(curves)
    assert torch.equal(expression, curves[:, order])
    assert torch.equal(arkit_bridge(shuffled).to_arkit(expression, joints), curves)


def test_jaw_and_eye_joints_are_folded_into_the_curves(model):
    joints = torch.zeros(4, len(JOINTS), 3)
    joints[0, JAW, 0] = 0.185
    joints[1, LEFT_EYE, 1] = joints[1, RIGHT_EYE, 1] = 0.15  # to the subject's left
    joints[2, LEFT_EYE, 0] = joints[2, RIGHT_EYE, 0] = -0.1  # up
    joints[3, JAW, 1] = 0.05
    curves = arkit_bridge(model).to_arkit(torch.zeros(4, 52), joints)

    def curve(name):
        return curves[:, ARKIT_NAMES.index(name)]

    assert (0 <= curves).all() and (curves <= 1).all()
    assert 0.3 < curve("jawOpen")[0] < 0.7
    for name, turn in (("eyeLookOutLeft", 0.249), ("eyeLookInRight", 0.258)):
        assert curve(name)[1] == pytest.approx(0.15 / turn, abs=0.03)
    for side in ("Left", "Right"):
        assert curve(f"eyeLookUp{side}")[2] == pytest.approx(0.1 / 0.169, abs=0.03)
    assert curve("jawLeft")[3] > 0.2 and curve("jawRight")[3] < 0.02
    assert not curves[:, [k for k, name in enumerate(ARKIT_NAMES) if not name.startswith(("jaw", "eyeLook"))]].any()


def test_shows_arkits_shapes_on_components_without_names(model, foreign):
    bridge = arkit_bridge(foreign)
    expression, joints = bridge.to_model(torch.eye(52))
    assert joints[ARKIT_NAMES.index("jawOpen"), JAW, 0] == pytest.approx(0.37, abs=1e-3)
    none = torch.zeros(1, model.identity_basis.shape[0])
    wanted = model.forward(none, torch.eye(52), torch.zeros(1, len(JOINTS), 3))
    rest = model.forward(none, torch.zeros(1, 52), torch.zeros(1, len(JOINTS), 3))
    shown = foreign.forward(none, expression, joints) / SCALE
    face = model.regions["face"] > 0.5
    seen = torch.tensor([name != "tongueOut" for name in ARKIT_NAMES])
    missed = (shown - wanted).norm(dim=-1)[seen][:, face].square().mean(1).sqrt()
    moved = (wanted - rest).norm(dim=-1)[seen][:, face].square().mean(1).sqrt()
    assert (missed < 0.05 * moved + 1e-5).all()
    assert bridge.residual[seen].max() < 0.05 and bridge.residual[~seen].min() > 0.9
    low, high = foreign.expression_bounds.unbind(-1)
    assert (expression > low).all() and (expression < high).all()


def test_components_lead_back_to_the_same_curves(model, foreign, generator):
    bridge, curves = arkit_bridge(foreign), sparse_curves(model, generator)
    again = bridge.to_arkit(*bridge.to_model(curves))
    assert again.dtype == curves.dtype
    assert (again - curves).abs().max() < 0.03 and (again - curves).abs().mean() < 0.002
    high = model.expression_bounds[:, 1]
    assert (again >= 0).all() and (again <= high).all()


def test_without_gaze_the_eyes_say_nothing(model, foreign, generator):
    curves = sparse_curves(model, generator, frames=6)
    for head in (model, foreign):
        expression, joints = arkit_bridge(head).to_model(curves)
        turned = joints.clone()
        turned[:, [LEFT_EYE, RIGHT_EYE]] += 0.2
        found = arkit_bridge(head).to_arkit(expression, turned, with_gaze=False)
        assert torch.equal(found, arkit_bridge(head).to_arkit(expression, joints, with_gaze=False))
        lids = [k for k, name in enumerate(ARKIT_NAMES) if not name.startswith("eyeLook")]
        assert (found - curves)[:, lids].abs().max() < 0.05


def test_curves_stay_in_their_bounds_whatever_the_components(model, foreign, generator):
    expression, joints = 2 * torch.randn(8, 52, generator=generator), 0.5 * torch.randn(8, len(JOINTS), 3, generator=generator)
    curves = arkit_bridge(foreign).to_arkit(expression, joints)
    assert (curves >= 0).all() and (curves <= model.expression_bounds[:, 1]).all() and (curves > 0).any()
    assert not arkit_bridge(foreign).to_arkit(torch.zeros(1, 52), torch.zeros(1, len(JOINTS), 3)).any()


def test_smplx_opens_its_jaw_and_turns_its_eyes(smplx_head, model):
    bridge = arkit_bridge(smplx_head)
    expression, joints = bridge.to_model(torch.eye(52))
    assert expression.shape == (52, 100) and joints.shape == (52, len(JOINTS), 3) and expression.isfinite().all()
    assert not joints[:, : JAW].any()
    for name, joint in (("eyeLookInLeft", LEFT_EYE), ("eyeLookUpRight", RIGHT_EYE)):
        k = ARKIT_NAMES.index(name)
        torch.testing.assert_close(joints[k, joint], model.expression_joints[k, joint])
    # Its waves are no face: but what is reproduced is no worse than nothing, and gaze is.
    assert (bridge.residual <= 1).all() and bridge.residual[ARKIT_NAMES.index("eyeLookInLeft")] < 0.2
    gaze = torch.zeros(1, 52)
    gaze[0, [ARKIT_NAMES.index("eyeLookInLeft"), ARKIT_NAMES.index("eyeLookOutRight")]] = 0.7
    again = bridge.to_arkit(*bridge.to_model(gaze))
    torch.testing.assert_close(again[gaze > 0], gaze[gaze > 0], atol=0.05, rtol=0)


def test_bridge_is_made_once_and_works_inside_inference_mode(foreign, generator):
    with torch.inference_mode():
        bridge = arkit_bridge(foreign)
        assert arkit_bridge(foreign) is bridge
        expression, joints = bridge.to_model(torch.rand(2, 52, generator=generator))
        assert bridge.to_arkit(expression, joints).shape == (2, 52)
    assert not bridge.expression.is_inference()
    assert bridge.to_arkit(torch.zeros(0, 52), torch.zeros(0, len(JOINTS), 3)).shape == (0, 52)


def test_bad_input_is_named(foreign, model):
    with pytest.raises(ValueError, match="foreign-head has neither ARKit's expressions nor a landmark table"):
        arkit_bridge(dataclasses.replace(foreign, landmarks=None))
    with pytest.raises(ValueError, match=r"shape \[3, 51\].*each of the 52 names"):
        arkit_bridge(model).to_model(torch.zeros(3, 51))
