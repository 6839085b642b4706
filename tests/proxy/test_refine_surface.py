import numpy as np
import pytest
import torch

from expportrait.proxy.refine.surface import Integrator, Skin, control_basis, field_precision


def test_the_control_basis_makes_the_skin_and_no_other_vertex(model):
    skin = Skin.of(model, model.stencil @ model.template)
    basis = control_basis(model, skin)
    count, controls = basis.shape
    assert count == len(skin.vertices) and count / 5 < controls < count / 3
    assert abs(basis.sum(1) - 1).max() < 1e-5 and basis.sum(0).min() > 0
    stencil = model.stencil.to_dense()[skin.vertices]
    used = (stencil != 0).any(0)
    assert torch.equal(torch.from_numpy(basis.toarray()).float(), stencil[:, used])


def test_a_patch_is_its_part_of_the_skin(model):
    skin = Skin.of(model, model.stencil @ model.template)
    chosen = model.regions["face"][skin.vertices] > 0
    patch, among = skin.patch(chosen)
    assert chosen[among].all() and torch.equal(patch.vertices, skin.vertices[among])
    assert torch.equal(patch.normals, skin.normals[among])
    values = torch.randn(len(skin.vertices), 1, generator=torch.Generator().manual_seed(0))
    within = chosen[skin.faces].all(1)
    assert torch.equal(patch.at_faces(values[among]), skin.at_faces(values)[within])


def test_a_border_is_where_triangles_end(model):
    skin = Skin.of(model, model.stencil @ model.template)
    patch, among = skin.patch(model.regions["face"][skin.vertices] > 0)
    border = patch.border()
    assert 0 < border.sum() < len(border) / 4
    ends = torch.tensor([[0, 1, 2], [0, 2, 3]])
    two = Skin(torch.arange(4), ends, torch.zeros(2, 3, 3), torch.ones(2), torch.zeros(4, 3))
    assert two.border().all()
    around = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1]])
    fan = Skin(torch.arange(5), around, torch.zeros(4, 3, 3), torch.ones(4), torch.zeros(5, 3))
    assert fan.border().tolist() == [False, True, True, True, True]


def test_corners_are_gathered_at_their_vertices():
    two = Skin(torch.arange(4), torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.zeros(2, 3, 3), torch.ones(2), torch.zeros(4, 3))
    assert two.gather(torch.tensor([[1.0, 2, 3], [10, 20, 30]])).tolist() == [11, 2, 23, 30]
    local = torch.arange(18.0).reshape(2, 3, 3)
    matrix = two.assemble(local).toarray()
    assert matrix[0, 0] == 0 + 9 and matrix[1, 2] == 5 and matrix[2, 0] == 6 + 12 and matrix[3, 3] == 17


def test_a_pull_takes_most_from_long_waves(model):
    points = (model.stencil @ model.template).to(torch.float32)
    skin = Skin.of(model, points)
    free, pulled = (field_precision(skin, 0.002, 0.006, pull) for pull in (1.0, 3.0))
    height = points[skin.vertices, 1].double().numpy()
    even, wavy = 0 * height + 1, np.sin(height / 0.003)
    ratio = [float(field @ pulled @ field / (field @ free @ field)) for field in (even, wavy)]
    assert ratio[0] == pytest.approx(3, rel=1e-6) and 1 < ratio[1] < 1.2


def test_a_field_is_recovered_from_its_gradient(model):
    points = model.stencil @ model.template
    skin = Skin.of(model, points)
    place = points[skin.vertices]
    field = 0.002 * torch.sin(place[:, :1] * 40) * torch.sin(place[:, 1:2] * 40)
    slopes = (skin.hats * field[skin.faces]).sum(1)[None]
    found = Integrator(skin, torch.ones(len(skin.faces)), 1e-5, 10.0).solve(slopes)[0]
    face = model.regions["face"][skin.vertices] > 0.5
    difference = found - field[:, 0]
    assert (difference - difference[face].mean())[face].abs().max() < 2e-5
    assert Integrator(skin, torch.ones(len(skin.faces)), 1e-5, 1e-4).solve(slopes).abs().max() < 0.02 * field.abs().max()
