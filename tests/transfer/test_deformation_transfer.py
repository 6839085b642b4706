import dataclasses

import pytest
import torch

from expportrait.transfer.deformation_transfer import DeformationTransfer


@pytest.fixture(scope="module")
def transfer(model):
    return DeformationTransfer(model)


def neutral_of(model, identity):
    return model.canonical(identity[None], torch.zeros(1, len(model.expression_names)))[0]


def mean_neutral(model):
    return neutral_of(model, torch.zeros(len(model.identity_names)))


def eye_gap(model, transfer, neutral, basis):
    """Mean distance of the lid rims that meet in a blink, in metres."""
    field = torch.sparse.mm(model.stencil, basis[model.expression_index("eyeBlinkLeft")])
    a, b = torch.from_numpy(transfer.pairs).unbind(1)
    left = (model.regions["lids"][a] > 0.5) & (neutral[a, 0] > 0)
    moved = neutral + field
    return (moved[a] - moved[b]).norm(dim=-1)[left].mean()


def test_the_template_keeps_its_own_expressions(model, transfer):
    fields = transfer.fields(mean_neutral(model))
    error = (fields - model.expression_basis).norm(dim=-1)
    moving = model.expression_basis.norm(dim=-1)
    assert error.square().sum().sqrt() < 0.01 * moving.square().sum().sqrt()


def test_a_larger_head_moves_as_much_more(model, transfer):
    neutral = mean_neutral(model)
    pivot = model.joint_template[model.pivot]
    grown = transfer.fields(pivot + 1.2 * (neutral - pivot))
    expected = 1.2 * transfer.fields(neutral)
    free = torch.from_numpy(transfer.free)
    assert torch.allclose(grown[:, free], expected[:, free], atol=2e-5)


def test_lids_close_on_a_strange_face_where_blend_shapes_leave_a_gap(model, transfer, generator):
    shut = eye_gap(model, transfer, mean_neutral(model), model.expression_basis)
    solved = linear = 0.0
    for _ in range(3):
        neutral = neutral_of(model, 1.2 * torch.randn(len(model.identity_names), generator=generator))
        solved += (eye_gap(model, transfer, neutral, transfer.fields(neutral)) - shut).clamp(min=0)
        linear += (eye_gap(model, transfer, neutral, model.expression_basis) - shut).clamp(min=0)
    assert solved < 0.4 * linear


def test_eyes_teeth_and_tongue_move_as_before(model, transfer, generator):
    neutral = neutral_of(model, torch.randn(len(model.identity_names), generator=generator))
    change = transfer.fields(neutral) - model.expression_basis
    dense = torch.sparse.mm(model.stencil, change.permute(1, 0, 2).flatten(1)).abs().amax(1)
    for name in ("eyes", "teeth", "tongue"):
        assert dense[model.regions[name] > 0.99].max() < 1e-6, name


def test_an_expression_that_moves_nothing_stays_so(model, generator):
    quiet = dataclasses.replace(model, expression_basis=model.expression_basis * (torch.arange(52) > 5)[:, None, None])
    neutral = neutral_of(model, torch.randn(len(model.identity_names), generator=generator))
    fields = DeformationTransfer(quiet).fields(neutral)
    assert fields[:6].abs().max() < 1e-7
    assert fields[8].abs().max() > 1e-3


def test_runs_inside_inference_mode(model, transfer, generator):
    neutral = neutral_of(model, torch.randn(len(model.identity_names), generator=generator))
    with torch.inference_mode():
        inside = transfer.fields(neutral.clone())
    assert torch.equal(inside, transfer.fields(neutral))


def test_refuses_a_neutral_of_another_mesh(transfer):
    with pytest.raises(ValueError, match="vertices; give"):
        transfer.fields(torch.zeros(10, 3))
