"""Contact: lids and lips that shut with the performer's, measured on the posed mesh itself."""

import dataclasses

import pytest
import torch

from expportrait.proxy.head_model import JOINTS, LandmarkTable, load_head_model
from expportrait.transfer.closure import closure, rim_gap, samples
from expportrait.transfer.contact import LIDS_CROSSED, OVERLAP, Contact, pierced
from expportrait.transfer.contact_points import PersonPoints
from expportrait.transfer.contact_rims import COLUMNS, find_rims, joined_table
from expportrait.transfer.jaw import JAW

from ..proxy.smplx_file import write_smplx_file

JAW_OPEN = 0.15


def weights(model, **named):
    """Expression [1, E] with some named weights; a name without a side means both."""
    out = torch.zeros(1, len(model.expression_names))
    for name, value in named.items():
        for full in [name] if name in model.expression_names else [name + "Left", name + "Right"]:
            out[:, model.expression_index(full)] = value
    return out


def still(count=1):
    return torch.zeros(count, len(JOINTS), 3)


def person(model, generator):
    return 0.8 * torch.randn(model.identity_basis.shape[0], generator=generator)


def gaps_of(model, identity, expression, joints, displacement, seen=(None, None, None)):
    """Gaps [T, N] of the three openings, from the whole posed mesh [T, V, 3]; `seen` as Contact has it."""
    rims = find_rims(model)
    table = joined_table([rim.table for rim in rims.all])
    vertices = model.forward(identity[None], expression, joints, displacement)
    return [rim_gap(part, mask) for part, mask in zip(samples(rims, table.points(vertices, model.faces)), seen)]


def displaced(fields, coefficients):
    return (coefficients @ fields.flatten(1)).unflatten(1, (-1, 3))


def bump(model, generator, size=0.0005):
    """A smooth random displacement [V, 3] of the skin."""
    points = model.canonical(torch.zeros(1, model.identity_basis.shape[0]), weights(model))[0]
    waves = torch.cos(points @ (120 * torch.randn(3, 30, generator=generator)) + 6 * torch.rand(30, generator=generator))
    return size * waves @ torch.randn(30, 3, generator=generator) / 30**0.5 * (model.vertex_parts() == 0)[:, None]


def test_the_rims_are_apart_in_the_parted_head_and_in_order(model):
    rims = find_rims(model)
    assert find_rims(model) is rims
    for rim in rims.all:
        height, place = rim.edge @ rim.axes[1], rim.shares_of(rim.edge)
        assert (height[0] > height[1] + 0.0003).all()
        assert (place.diff(dim=1) > 0).all() and (place > 0).all() and (place < 1).all()
        assert (place - rim.share).abs().max() < 0.01
    mirrored = rims.right_eye.edge.flip(1) * torch.tensor([-1.0, 1.0, 1.0])
    assert (mirrored - rims.left_eye.edge).norm(dim=-1).median() < 0.001


def test_samples_are_those_of_the_posed_mesh(model, generator):
    identity, expression = person(model, generator), 0.3 * torch.rand(3, len(model.expression_names), generator=generator)
    joints, fields = still(3), torch.stack([bump(model, generator), bump(model, generator)])
    joints[:, JAW, 0], coefficients = 0.1, torch.rand(3, 2, generator=generator)
    table = joined_table([rim.table for rim in find_rims(model).all])
    mine = PersonPoints.of(model, table, identity, fields[0], fields).posed(expression, joints, coefficients)
    whole = model.forward(identity[None], expression, joints, fields[0] + displaced(fields, coefficients))
    torch.testing.assert_close(mine.points, table.points(whole, model.faces), atol=2e-6, rtol=0)


def test_shut_lids_close_on_any_target(model, generator):
    for blink in (0.0, 0.4, 1.0):
        identity, displacement = person(model, generator), bump(model, generator)
        expression = weights(model, eyeBlink=blink, eyeSquint=0.3)
        contact = Contact(model, identity, displacement)
        joints, fields, found = contact.correct(expression, still(), lids=torch.ones(1, 2))
        left, right, _ = gaps_of(model, identity, expression, joints, displacement + displaced(fields, found), contact.seen)
        for gap in (left, right):
            assert gap.max() < 0.0002 and gap.min() > -LIDS_CROSSED - 0.0005


def test_a_lid_that_is_half_shut_goes_that_far(model, generator):
    identity, expression = person(model, generator), weights(model)
    contact = Contact(model, identity)
    before = gaps_of(model, identity, expression, still(), None, contact.seen)
    joints, fields, found = contact.correct(expression, still(), lids=torch.tensor([[0.5, 0.0]]))
    left, right, lips = gaps_of(model, identity, expression, joints, displaced(fields, found), contact.seen)
    torch.testing.assert_close(left, 0.5 * before[0] - 0.5 * OVERLAP, atol=2e-4, rtol=0)
    torch.testing.assert_close(right, before[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(lips, before[2], atol=1e-6, rtol=0)


def test_sealed_lips_seal_under_a_turned_jaw(model, generator):
    identity, joints = person(model, generator), still()
    joints[:, JAW] = torch.tensor([0.05, 0.02, 0.0])
    expression = weights(model, jawOpen=JAW_OPEN, mouthSmile=0.4)
    before = gaps_of(model, identity, expression, joints, None)[2]
    held, fields, found = Contact(model, identity).correct(expression, joints, lips=torch.ones(1, COLUMNS))
    after = gaps_of(model, identity, expression, held, displaced(fields, found))[2]
    assert before.max() > 0.004
    assert after.max() < 0.0003


def test_crossed_lips_are_taken_apart_without_any_closure(model, generator):
    identity = person(model, generator)
    expression = weights(model, mouthClose=0.8)
    contact = Contact(model, identity)
    _, fields, found = contact.correct(expression, still())
    before = gaps_of(model, identity, expression, still(), None)[2]
    after = gaps_of(model, identity, expression, still(), displaced(fields, found))[2]
    assert before.min() < -0.01 and after.min() > before.min() / 2


def test_flesh_that_crosses_is_measured_at_a_common_depth():
    # y and z of one cut each: the lower rim peaks at 0.3 over a valley at 0.1 of the upper one, both at z = 0.
    upper = torch.tensor([[1.0, 1.0], [0.1, 0.0], [1.0, -1.0]])
    lower = torch.tensor([[-1.0, 1.0], [0.3, 0.0], [-1.0, -1.0]])
    part = torch.cat([torch.zeros(2, 3, 1), torch.stack([upper, lower])], -1)[None, :, None]
    torch.testing.assert_close(pierced(part), torch.tensor([[0.2]]))
    behind = part.clone()
    behind[:, 1, ..., 2] -= 5.0  # the same heights, but far behind the upper rim
    assert pierced(behind).item() == 0


def test_a_neutral_face_is_left_alone(model, generator):
    joints, fields, found = Contact(model, person(model, generator), bump(model, generator)).correct(weights(model), still())
    assert torch.equal(joints, still()) and fields.shape == (0, model.vertex_count, 3) and found.shape == (1, 0)


def test_moved_lids_stay_before_the_eyeball(model, generator):
    identity = person(model, generator)
    contact = Contact(model, identity)
    expression = weights(model).repeat(5, 1)
    lids = torch.linspace(0, 1, 5)[:, None].expand(-1, 2)
    joints, fields, found = contact.correct(expression, still(5), lids=lids)
    vertices = model.forward(identity[None], expression, joints, displaced(fields, found))
    for eye, rim in zip(contact.eyes, find_rims(model).all):
        points = rim.table.points(vertices, model.faces).unflatten(1, rim.points.shape[:3])
        behind = (eye.front.behind(points) + eye.keep) * eye.kept
        assert behind.max() < 0.0004


def test_teeth_push_a_lip_that_goes_behind_them(model, generator):
    identity = torch.zeros(model.identity_basis.shape[0])
    back = torch.zeros(1, model.vertex_count, 3)
    back[0, :, 2] = -0.012 * model.regions["lips"] * (model.vertex_parts() == 0)
    contact = Contact(model, identity)
    _, fields, found = contact.correct(weights(model), still(), basis=back, coefficients=torch.ones(1, 1))

    def depth(displacement):
        vertices = model.forward(identity[None], weights(model), still(), displacement)
        return torch.stack([row.behind(vertices[:, contact.teeth.vertices]) for row in contact.teeth.rows]).max()
    assert depth(back) > 0.002
    assert depth(back + displaced(fields, found)) < 0.0008


def test_frames_do_not_know_one_another(model, generator):
    contact = Contact(model, person(model, generator))
    expression = 0.4 * torch.rand(7, len(model.expression_names), generator=generator)
    lids, lips = torch.rand(7, 2, generator=generator), torch.rand(7, COLUMNS, generator=generator)
    joints, fields, found = contact.correct(expression, still(7), lids, lips)
    together = displaced(fields, found)
    for frame in (0, 6):
        one = slice(frame, frame + 1)
        alone = contact.correct(expression[one], still(1), lids[one], lips[one])
        torch.testing.assert_close(alone[0], joints[one])
        torch.testing.assert_close(displaced(*alone[1:]), together[one], atol=1e-5, rtol=0)


def test_it_works_in_inference_mode_and_then_outside_of_it(model, generator):
    with torch.inference_mode():
        contact = Contact(model, person(model, generator))
        inside = contact.correct(weights(model), still(), lids=torch.ones(1, 2))[2]
    outside = contact.correct(weights(model), still(), lids=torch.ones(1, 2))[2]
    torch.testing.assert_close(inside.clone(), outside.clone())


@pytest.mark.parametrize("landmarks", ["none", "anywhere"])
def test_a_model_without_findable_rims_has_no_contact(tmp_path, landmarks, generator):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    write_smplx_file(path)
    other = load_head_model(str(path))
    if landmarks == "anywhere":
        triangle = torch.randint(len(other.faces), (478,), generator=generator)
        table = LandmarkTable(triangle, torch.full((478, 3), 1 / 3), torch.ones(478))
        other = dataclasses.replace(other, landmarks=table)
    nobody, rest = torch.zeros(other.identity_basis.shape[0]), torch.zeros(1, len(other.expression_names))
    assert find_rims(other) is None
    assert closure(other, rest, still(), rest[0], still()[0]) is None
    with pytest.raises(ValueError, match="calibrate"):
        Contact(other, nobody)
