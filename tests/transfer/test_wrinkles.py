import torch

from expportrait.proxy.rotation import to_matrix
from expportrait.transfer.wrinkles import surface_map, transfer_fields


def rest(model, generator=None):
    count = model.identity_basis.shape[0]
    identity = torch.zeros(1, count) if generator is None else 0.7 * torch.randn(1, count, generator=generator)
    return model.canonical(identity, torch.zeros(1, len(model.expression_names)))[0]


def test_the_same_head_keeps_the_field_on_its_face(model, generator):
    fields = 1e-3 * torch.randn(2, model.vertex_count, 3, generator=generator)
    neutral = rest(model, generator)
    found = transfer_fields(fields, neutral, neutral, model)
    mask = model.regions["face"] * (1 - model.regions["eyes"])
    assert torch.allclose(found, fields * mask[:, None], atol=1e-6)
    assert not found[:, model.regions["face"] == 0].any()


def test_a_field_turns_and_grows_with_the_skin(model, generator):
    neutral = rest(model)
    turn = to_matrix(torch.tensor([0.3, -0.5, 0.2]))
    fields = 1e-3 * torch.randn(1, model.vertex_count, 3, generator=generator)
    found = transfer_fields(fields, neutral, 1.4 * neutral @ turn.mT, model)
    plain = transfer_fields(fields, neutral, neutral, model)
    assert torch.allclose(found, 1.4 * plain @ turn.mT, atol=5e-6)


def test_maps_are_rotations_and_undo_each_other(model, generator):
    start, end = rest(model), rest(model, generator)
    there, growth = surface_map(start, end, model.faces)
    used = torch.zeros(model.vertex_count, dtype=torch.bool)
    used[model.faces] = True
    eye = torch.eye(3).expand(int(used.sum()), 3, 3)
    assert torch.allclose((there @ there.mT)[used], eye, atol=1e-4)
    assert (torch.linalg.det(there[used]) > 0.99).all()
    back, shrink = surface_map(end, start, model.faces)
    face = model.regions["face"] > 0.5
    assert torch.allclose((back @ there)[face & used], torch.eye(3).expand(int((face & used).sum()), 3, 3), atol=1e-3)
    assert torch.allclose((growth * shrink)[face & used], torch.ones(int((face & used).sum())), atol=1e-3)
    assert growth.max() <= 2 and growth.min() >= 0.5


def test_a_wrinkle_stays_a_wrinkle_across_heads(model, generator):
    """A displacement along the normal of one head is one along the normal of the other."""
    start, end = rest(model), rest(model, generator)
    normals = model.vertex_normals(torch.stack([start, end]))
    found = transfer_fields(1e-3 * normals[:1], start, end, model)[0]
    face = (model.regions["face"] > 0.9) & (model.regions["eyes"] < 0.1) & (model.regions["lips"] < 0.1) & (model.regions["lids"] < 0.1)
    along = torch.nn.functional.cosine_similarity(found[face], normals[1][face], dim=-1)
    assert along.median() > 0.99 and (along > 0.9).float().mean() > 0.98
