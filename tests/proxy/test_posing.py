import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.posing import SourcePose, Stage, camera_space, check_models
from expportrait.proxy.render_lines import project_landmarks
from expportrait.transfer.motion import HeadMotion

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "transfer")]
from displaced_head import displace, fields  # noqa: E402
from heads import make_proxy, make_track  # noqa: E402
from toy_head import make_model  # noqa: E402


@pytest.fixture
def scene(generator):
    """Toy model, displaced proxy, and the motion of a few frames."""
    model = make_model(generator)
    track = make_track(model, generator, frames=6)
    motion = HeadMotion(model.model_id, track.expression, track.joints, track.translation, track.valid, track.fps)
    return model, displace(make_proxy(model, generator), model, generator), motion


def posed(model, proxy, motion, displacement):
    moved = model.forward(proxy.identity[None], motion.expression, motion.joints, displacement)
    return moved + motion.translation[:, None]


def plain(proxy):
    return dataclasses.replace(
        proxy, displacement=None, detail_basis=None, detail=None, detail_by_expression=None, detail_kept=None
    )


def test_without_displacement_nothing_changes(scene):
    model, proxy, motion = scene
    bare = plain(proxy)
    assert torch.equal(camera_space(model, bare, motion), posed(model, proxy, motion, None))
    assert torch.equal(camera_space(model, bare, motion), camera_space(model, proxy.identity, motion))
    zero = dataclasses.replace(
        proxy, displacement=torch.zeros_like(proxy.displacement), detail_basis=torch.zeros_like(proxy.detail_basis)
    )
    assert torch.equal(camera_space(model, zero, motion), camera_space(model, bare, motion))


def test_displacement_is_added_before_skinning(scene):
    model, proxy, motion = scene
    assert torch.equal(camera_space(model, proxy, motion), posed(model, proxy, motion, proxy.displaced(motion.expression)))
    assert torch.equal(camera_space(model, proxy, motion, 2, 4), camera_space(model, proxy, motion)[2:4])
    static = dataclasses.replace(proxy, detail_basis=None, detail=None, detail_by_expression=None)
    assert torch.equal(camera_space(model, static, motion), posed(model, proxy, motion, proxy.displacement[None]))


def test_detail_follows_the_expression_linearly(scene):
    model, proxy, motion = scene
    still = dataclasses.replace(motion, expression=proxy.neutral.repeat(3, 1), joints=torch.zeros(3, 6, 3), translation=torch.zeros(3, 3))
    step = torch.tensor([0.0, 0.5, 1.0])[:, None] * torch.linspace(-1, 1, len(proxy.neutral))
    acted = dataclasses.replace(still, expression=still.expression + step, valid=motion.valid[:3])
    detail = proxy.displaced(acted.expression) - proxy.displacement
    assert not detail[0].any() and detail[2].abs().max() > 1e-3
    assert torch.allclose(detail[2], 2 * detail[1], atol=1e-7)
    expected = torch.einsum("e,ek,kvx->vx", step[2], proxy.detail_by_expression, proxy.detail_basis)
    assert torch.allclose(detail[2], expected, atol=1e-7)
    smooth = dataclasses.replace(proxy, detail_by_expression=None)
    moved = camera_space(model, proxy, acted) - camera_space(model, smooth, acted)
    assert moved[2].norm(dim=-1).max() == pytest.approx(float(expected.norm(dim=-1).max()), rel=0.01)


def test_a_motions_detail_shows_on_its_own_proxy_alone(scene, generator):
    model, proxy, motion = scene
    detail = torch.randn(len(motion), len(proxy.detail_basis), generator=generator)
    own = dataclasses.replace(motion, detail=detail, detail_id=proxy.detail_id)
    assert torch.equal(camera_space(model, proxy, own), posed(model, proxy, motion, proxy.displaced(motion.expression, detail)))
    assert torch.equal(camera_space(model, proxy, own, 1, 3), camera_space(model, proxy, own.select([1, 2])))
    assert (camera_space(model, proxy, own) - camera_space(model, proxy, motion)).abs().max() > 1e-4
    other = displace(proxy, model, generator)
    assert other.detail_id != proxy.detail_id
    assert torch.equal(camera_space(model, other, own), camera_space(model, other, motion))
    assert torch.equal(camera_space(model, plain(proxy), own), camera_space(model, plain(proxy), motion))


def test_a_motions_own_fields_replace_those_of_the_proxy(scene, generator):
    model, proxy, motion = scene
    detail, basis = torch.randn(len(motion), 2, generator=generator), fields(model, 2, generator)
    for who in (proxy, plain(proxy)):
        own = dataclasses.replace(motion, detail=detail, detail_id=who.detail_id, detail_basis=basis)
        expected = posed(model, who, motion, who.displaced(motion.expression, detail, basis))
        assert torch.equal(camera_space(model, who, own), expected)
        assert (expected - camera_space(model, who, motion)).abs().max() > 1e-4


def test_landmarks_lie_on_the_displaced_surface(scene):
    """A head moved by its displacement has its landmarks where a head moved by its translation has them."""
    model, proxy, _ = scene
    shift = torch.tensor([0.004, -0.003, 0.01])
    unturned = dict(source_joints=torch.zeros(6, 3), source_expression=torch.zeros_like(proxy.neutral))
    proxy = dataclasses.replace(plain(proxy), displacement=shift.expand(model.vertex_count, 3), **unturned)
    stage = Stage(model, proxy.camera)
    found, seen, _ = project_landmarks(stage.shot(camera_space(model, proxy, SourcePose.of(proxy))))
    moved = dataclasses.replace(plain(proxy), source_translation=proxy.source_translation + shift)
    expected, also, _ = project_landmarks(stage.shot(camera_space(model, moved, SourcePose.of(moved))))
    still = project_landmarks(stage.shot(camera_space(model, plain(proxy), SourcePose.of(proxy))))[0]
    assert torch.allclose(found, expected, atol=1e-2) and (seen == also).float().mean() > 0.99
    assert (found - still).norm(dim=-1).mean() > 2


def test_another_mesh_is_refused(scene, generator):
    model, proxy, motion = scene
    for name, value in (("displacement", proxy.displacement[1:]), ("detail_basis", proxy.detail_basis[:, 1:])):
        rest = dict.fromkeys(("displacement", "detail_basis", "detail", "detail_by_expression"))
        with pytest.raises(ValueError, match=f"{name} of this HeadProxy has 575 vertices, but toy has 576; load the head model"):
            check_models(model, motion, dataclasses.replace(proxy, **rest | {name: value}))
    check_models(model, proxy, motion)


def test_in_inference_mode(scene, generator):
    model, proxy, motion = scene
    with torch.inference_mode():
        mine = dataclasses.replace(proxy, detail_basis=fields(model, 2, generator), detail=None, detail_by_expression=None)
        own = dataclasses.replace(motion, detail=torch.randn(6, 2, generator=generator), detail_id=mine.detail_id)
        assert camera_space(model, mine, own).isfinite().all()
    assert camera_space(model, mine, own).isfinite().all()
