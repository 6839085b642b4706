"""What the camera sees of gaps and of teeth, on faces whose gaps are known."""

import sys

import pytest
import torch

from expportrait.proxy.head_model import JOINTS


@pytest.fixture
def measure(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "tools"))
    import measure_contact

    yield measure_contact
    sys.modules.pop("measure_contact")


def posed(model, displacement=None, **named):
    expression = torch.zeros(1, len(model.expression_names))
    for name, value in named.items():
        expression[0, model.expression_index(name)] = value
    nobody = torch.zeros(1, model.identity_basis.shape[0])
    return model.forward(nobody, expression, torch.zeros(1, len(JOINTS), 3), displacement)


def test_each_lid_has_its_own_gap(model, measure):
    left, right = measure.lid_gap(model, posed(model, eyeBlinkRight=1.0))[0]
    assert 0.006 < left < 0.009 and right == 0


def test_an_upper_lid_that_is_lifted_opens_the_eye_by_as_much(model, measure):
    lid = model.landmarks.points(posed(model), model.faces)[0, 386]
    near = (posed(model)[0] - lid).norm(dim=-1) < 0.012
    lift = torch.zeros(1, model.vertex_count, 3)
    lift[0, near & (model.vertex_parts() == 0) & (posed(model)[0, :, 1] > lid[1] - 0.003), 1] = 0.001
    before, after = (measure.lid_gap(model, posed(model, d))[0, 0] for d in (None, lift))
    assert after - before == pytest.approx(0.001, abs=0.0003)


def test_lips_part_with_the_jaw(model, measure):
    gaps = [measure.lip_gap(model, posed(model, jawOpen=value)).item() for value in (0.0, 0.2, 0.4)]
    assert gaps[0] < 0.0003 and gaps[0] < gaps[1] < gaps[2] and gaps[2] > 0.005


def test_teeth_are_through_lips_only_where_lips_are_around_them(model, measure):
    pushed = torch.zeros(1, model.vertex_count, 3)
    pushed[0, :, 2] = -0.012 * model.regions["lips"] * (model.vertex_parts() == 0)
    through = measure.pierced(model, torch.cat([posed(model), posed(model, jawOpen=0.4), posed(model, pushed)]))
    assert (through[:2] == 0).all() and through[2] > 0.02
