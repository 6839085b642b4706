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
