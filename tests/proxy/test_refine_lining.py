import torch

from expportrait.proxy.head_model import JOINTS, PARTS
from expportrait.proxy.refine.lining import FAR, Lining
from expportrait.proxy.refine.surface import Skin
from expportrait.proxy.render_interior import dense_template


def test_the_lining_follows_the_skin_in_front_and_stays_deep_inside(model):
    points = dense_template(model)
    skin = Skin.of(model, points).vertices
    lining = Lining(model, skin, points)
    assert not torch.isin(lining.vertices, skin).any()
    assert (model.vertex_parts()[lining.vertices] == PARTS.index("mouth")).all()
    shift = torch.tensor([0.0, 0.001, -0.003])
    moved = lining.follow(shift.expand(2, len(skin), 3))
    assert moved.shape == (2, len(lining.vertices), 3)
    off = torch.cdist(points[lining.vertices], points[skin]).amin(1)
    share = moved[0] @ shift / shift.square().sum()
    assert torch.allclose(moved[0], share[:, None] * shift, atol=1e-7) and share.min() >= 0
    assert share[off < 0.001].min() > 0.8 and share[off > FAR].max() == 0


def test_closed_lips_do_not_move_each_others_lining(model):
    points = dense_template(model)
    skin = Skin.of(model, points).vertices
    lining = Lining(model, skin, points)
    jaw = model.weights[:, JOINTS.index("jaw")]
    down = (jaw[skin] > 0.5)[:, None] * torch.tensor([0.0, -0.004, 0.0])
    moved = lining.follow(down[None])[0, :, 1]
    assert moved[jaw[lining.vertices] < 0.05].abs().max() < 0.0005 < 0.002 < moved[jaw[lining.vertices] > 0.7].abs().max()
