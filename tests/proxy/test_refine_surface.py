import torch

from expportrait.proxy.refine.surface import Skin, control_basis


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
