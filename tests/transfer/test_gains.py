import dataclasses

import pytest
import torch

from expportrait.transfer.gains import multiply, region_amounts, region_of, scale_expression
from expportrait.transfer.settings import REGIONS, PoseGains, RegionGains, TransferSettings


def nameless(model):
    """The model with its expressions mixed as a PCA would: no names, no one-to-one regions."""
    generator = torch.Generator().manual_seed(3)
    count = len(model.expression_names)
    turn = torch.linalg.qr(torch.randn(count, count, generator=generator)).Q
    basis = torch.einsum("fe,ecx->fcx", turn, model.expression_basis)
    names = tuple(f"expression_{k:03d}" for k in range(count))
    return dataclasses.replace(model, expression_basis=basis, expression_names=names), turn


def test_every_arkit_name_has_a_region(model):
    assert {region_of(name) for name in model.expression_names} == set(REGIONS)
    assert region_of("expression_003") is None


def test_a_gain_scales_its_region_alone(model, generator):
    expression = torch.rand(5, len(model.expression_names), generator=generator)
    scaled = scale_expression(expression, RegionGains(lids=0.0, brows=2.0), model)
    for k, name in enumerate(model.expression_names):
        factor = {"lids": 0.0, "brows": 2.0}.get(region_of(name), 1.0)
        assert torch.equal(scaled[:, k], factor * expression[:, k]), name
    assert scale_expression(expression, RegionGains(), model) is expression


def test_a_jaw_that_stays_leaves_nothing_to_take_back(model):
    expression = torch.ones(1, len(model.expression_names))
    scaled = scale_expression(expression, RegionGains(jaw=0.0), model)
    assert scaled[0, model.expression_names.index("mouthClose")] == 0


def test_gains_of_nameless_expressions_move_vertices_by_region(model, generator):
    mixed, turn = nameless(model)
    mouth = torch.zeros(1, len(model.expression_names))
    mouth[0, model.expression_names.index("mouthPucker")] = 0.8
    brow = torch.zeros(1, len(model.expression_names))
    brow[0, model.expression_names.index("browInnerUp")] = 0.8

    def moved(expression):
        return torch.einsum("e,ecx->cx", expression[0], mixed.expression_basis).norm()

    gains = RegionGains(brows=0.0, mouth=1.0)
    for shown, least, most in ((mouth, 0.9, 1.1), (brow, 0.0, 0.4)):
        coefficients = shown @ turn.mT
        ratio = moved(scale_expression(coefficients, gains, mixed)) / moved(coefficients)
        assert least <= ratio <= most
    coefficients = mouth @ turn.mT
    same = scale_expression(coefficients, RegionGains(tongue=1.0, jaw=0.3), mixed)
    assert torch.allclose(same, coefficients, atol=1e-3)


def test_amounts_are_shares_of_the_bound(model):
    expression = torch.zeros(3, len(model.expression_names))
    expression[1, model.expression_names.index("mouthClose")] = 0.1
    amounts = region_amounts(expression, model)
    assert set(amounts) == set(REGIONS)
    assert amounts["mouth"].tolist() == pytest.approx([0, 0.5, 0]) and not amounts["brows"].any()
    assert region_amounts(expression, nameless(model)[0]) == {}


def test_factors_multiply_gains():
    assert multiply(RegionGains(mouth=0.5), {"mouth": 2.0, "jaw": 1.5}) == RegionGains(mouth=1.0, jaw=1.5)


def test_amounts_out_of_range_are_refused():
    for kind, name in ((RegionGains, "mouth"), (PoseGains, "yaw")):
        for value in (-0.1, 4.1, float("nan")):
            with pytest.raises(ValueError, match=f"{name} is {value}; give a number from 0 to 4"):
                kind(**{name: value})
    with pytest.raises(ValueError, match="detail is 1.5; give a number from 0 to 1"):
        TransferSettings(detail=1.5)
    with pytest.raises(ValueError, match="neutral_frame is -2; give a frame"):
        TransferSettings(neutral_frame=-2)
    with pytest.raises(ValueError, match="mode is 'both'; choose one of relative, absolute"):
        TransferSettings(mode="both")
