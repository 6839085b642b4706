import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy import rotation
from expportrait.transfer.neutral import rest_of
from expportrait.transfer.transfer import HEAD, JAW, NECK, ROOT, TransferSettings, transfer_motion

sys.path.insert(0, str(Path(__file__).parent))
from heads import make_proxy, make_track  # noqa: E402


def world_head(joints):
    m = rotation.to_matrix(joints)
    return m[..., ROOT, :, :] @ m[..., NECK, :, :] @ m[..., HEAD, :, :]


def test_driver_at_rest_leaves_the_target_at_rest(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    rest = rest_of(track, model)
    still = dataclasses.replace(
        track,
        expression=rest.expression.expand_as(track.expression),
        joints=rest.joints.expand_as(track.joints),
        translation=rest.translation.expand_as(track.translation),
    )
    motion = transfer_motion(proxy, still, model, rest=rest)
    assert torch.allclose(motion.expression, proxy.neutral.expand_as(motion.expression), atol=1e-6)
    assert torch.allclose(motion.translation, proxy.source_translation.expand_as(motion.translation), atol=1e-6)
    assert torch.allclose(world_head(motion.joints), world_head(proxy.source_joints).expand(len(motion), 3, 3), atol=1e-5)


def test_source_alone_repeats_the_picture(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    motion = transfer_motion(proxy, track, model, TransferSettings("source", "source"))
    assert torch.allclose(motion.expression, proxy.source_expression.expand_as(motion.expression))
    assert torch.allclose(motion.joints, proxy.source_joints.expand_as(motion.joints), atol=1e-5)
    assert torch.allclose(motion.translation, proxy.source_translation.expand_as(motion.translation))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_head_turns_by_the_drivers_turn(model, generator, strength):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    rest = rest_of(track, model)
    motion = transfer_motion(proxy, track, model, TransferSettings(pose_strength=strength), rest)
    turn = world_head(track.joints) @ world_head(rest.joints).mT
    expected = rotation.to_matrix(strength * rotation.to_rotvec(turn)) @ world_head(proxy.source_joints)
    assert torch.allclose(world_head(motion.joints), expected, atol=1e-4)


def test_mix_lies_between(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    whole = transfer_motion(proxy, track, model)
    none = transfer_motion(proxy, track, model, TransferSettings(pose_from="mix", expression_from="mix", mix=0.0))
    half = transfer_motion(proxy, track, model, TransferSettings(pose_from="mix", expression_from="mix", mix=0.5))
    assert torch.allclose(none.translation, proxy.source_translation.expand_as(none.translation))
    inside = (half.expression - proxy.neutral).abs() <= (whole.expression - proxy.neutral).abs() + 1e-6
    assert inside.all()


def test_expression_stays_in_bounds_and_distance_is_a_ratio(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    rest = rest_of(track, model)
    motion = transfer_motion(proxy, track, model, TransferSettings(expression_strength=9.0), rest)
    low, high = model.expression_bounds.unbind(-1)
    assert (motion.expression >= low).all() and (motion.expression <= high).all()
    ratio = motion.translation[:, 2] / proxy.source_translation[2]
    assert torch.allclose(ratio, track.translation[:, 2] / rest.translation[2], atol=1e-5)


def test_an_open_mouth_in_the_picture_is_no_rest(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    proxy.source_joints[JAW] = torch.tensor([0.4, 0.0, 0.0])
    rest = rest_of(track, model)
    motion = transfer_motion(proxy, track, model, rest=rest)
    moved = motion.joints[:, JAW] - (track.joints[:, JAW] - rest.joints[JAW])
    assert moved.norm(dim=-1).max() <= 0.0501


def test_identity_of_the_driver_has_no_influence(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    other = dataclasses.replace(track, identity=-3 * track.identity, focal=track.focal * 2)
    a, b = transfer_motion(proxy, track, model), transfer_motion(proxy, other, model)
    assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("expression", "joints", "translation"))


def test_detail_of_the_driver_stays_behind(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    driver = transfer_motion(proxy, track, model)
    wrinkled = dataclasses.replace(driver, detail=torch.randn(len(driver), 4, generator=generator), detail_id="0123456789abcdef")
    moved = transfer_motion(proxy, wrinkled, model)
    assert moved.detail is None and moved.detail_id is None
    assert torch.equal(moved.expression, transfer_motion(proxy, driver, model).expression)


def test_smoothing_lowers_acceleration(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    noise = 0.1 * torch.rand(track.expression.shape, generator=generator)
    track = dataclasses.replace(track, expression=track.expression + noise)
    rough = transfer_motion(proxy, track, model).expression.diff(n=2, dim=0).abs().mean()
    smooth = transfer_motion(proxy, track, model, TransferSettings(smoothing=0.08)).expression.diff(n=2, dim=0).abs().mean()
    assert smooth < 0.3 * rough


def test_runs_inside_inference_mode(model, generator):
    with torch.inference_mode():
        motion = transfer_motion(make_proxy(model, generator), make_track(model, generator, frames=1), model)
    assert len(motion) == 1 and motion.expression.isfinite().all()


def test_refuses_what_does_not_belong_together(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    with pytest.raises(ValueError, match="driver was made with head model other"):
        transfer_motion(proxy, dataclasses.replace(track, model_id="other"), model)
    with pytest.raises(ValueError, match="proxy was made with head model other"):
        transfer_motion(dataclasses.replace(proxy, model_id="other"), track, model)
    with pytest.raises(ValueError, match="no frame with a face"):
        transfer_motion(proxy, dataclasses.replace(track, valid=torch.zeros_like(track.valid)), model)
    empty = dataclasses.replace(track, **{n: getattr(track, n)[:0] for n in ("expression", "joints", "translation", "valid")})
    with pytest.raises(ValueError, match="no frame"):
        transfer_motion(proxy, empty, model)
    with pytest.raises(ValueError, match="choose one of"):
        TransferSettings(pose_from="elsewhere")
    with pytest.raises(ValueError, match="at least 0"):
        TransferSettings(smoothing=float("nan"))
