import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy import rotation
from expportrait.transfer.neutral import Rest, rest_at, rest_of
from expportrait.transfer.performance import Driver, perform
from expportrait.transfer.settings import PoseGains, RegionGains, TransferSettings
from expportrait.transfer.transfer import HEAD, JAW, LEFT_EYE, NECK, ROOT, amplitude_match, transfer_motion

sys.path.insert(0, str(Path(__file__).parent))
from heads import make_proxy, make_track  # noqa: E402

PARAMETERS = ("expression", "joints", "translation")


def plain(**settings) -> TransferSettings:
    """Settings without contact, whose jaw stays as it was given."""
    return TransferSettings(contact=False, **settings)


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
    motion = transfer_motion(proxy, Driver(still, rest), model, plain())
    assert torch.allclose(motion.expression, proxy.neutral.expand_as(motion.expression), atol=1e-6)
    assert torch.allclose(motion.translation, proxy.source_translation.expand_as(motion.translation), atol=1e-6)
    assert torch.allclose(world_head(motion.joints), world_head(proxy.source_joints).expand(len(motion), 3, 3), atol=1e-5)


def test_source_alone_repeats_the_picture(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    motion = transfer_motion(proxy, track, model, plain(pose_from="source", expression_from="source"))
    assert torch.allclose(motion.expression, proxy.source_expression.expand_as(motion.expression))
    assert torch.allclose(motion.joints, proxy.source_joints.expand_as(motion.joints), atol=1e-5)
    assert torch.allclose(motion.translation, proxy.source_translation.expand_as(motion.translation))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_head_turns_by_the_drivers_turn(model, generator, strength):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    rest = rest_of(track, model)
    motion = transfer_motion(proxy, track, model, plain(pose_strength=strength))
    turn = world_head(track.joints) @ world_head(rest.joints).mT
    expected = rotation.to_matrix(strength * rotation.to_rotvec(turn)) @ world_head(proxy.source_joints)
    assert torch.allclose(world_head(motion.joints), expected, atol=1e-4)


def test_mix_lies_between(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    whole = transfer_motion(proxy, track, model, plain())
    none, half = (transfer_motion(proxy, track, model, plain(pose_from="mix", expression_from="mix", mix=mix)) for mix in (0.0, 0.5))
    source = transfer_motion(proxy, track, model, plain(pose_from="source", expression_from="source"))
    for name in PARAMETERS:
        assert torch.equal(getattr(none, name), getattr(source, name)), name
    assert torch.allclose(half.expression, (proxy.source_expression + whole.expression) / 2, atol=1e-6)
    turn = world_head(track.joints) @ world_head(rest_of(track, model).joints).mT
    expected = rotation.to_matrix(0.5 * rotation.to_rotvec(turn)) @ world_head(proxy.source_joints)
    assert torch.allclose(world_head(half.joints), expected, atol=1e-4)


def test_expression_stays_in_bounds_and_distance_is_a_ratio(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    rest = rest_of(track, model)
    motion = transfer_motion(proxy, track, model, plain(expression_strength=9.0))
    low, high = model.expression_bounds.unbind(-1)
    freed = torch.minimum(low, proxy.neutral + low - rest.expression)
    assert (motion.expression >= freed - 1e-6).all() and (motion.expression <= high).all()
    ratio = motion.translation[:, 2] / proxy.source_translation[2]
    assert torch.allclose(ratio, track.translation[:, 2] / rest.translation[2], atol=1e-5)


def test_what_a_driver_loses_of_its_rest_a_target_loses_too(model, generator):
    """A fit's constant 0.6 that falls to 0 moves a target by as much whose own rest has 0.1 of it."""
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=4)
    rest = Rest(torch.full_like(proxy.neutral, 0.6), track.joints[0], track.translation[0])
    fallen = dataclasses.replace(track, expression=torch.zeros_like(track.expression))
    motion = transfer_motion(proxy, Driver(fallen, rest), model, plain())
    assert torch.allclose(motion.expression, (proxy.neutral - 0.6).expand_as(motion.expression))


def test_an_open_mouth_in_the_picture_is_no_rest(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    proxy.source_joints[JAW] = torch.tensor([0.4, 0.0, 0.0])
    rest = rest_of(track, model)
    motion = transfer_motion(proxy, track, model, plain())
    moved = motion.joints[:, JAW] - (track.joints[:, JAW] - rest.joints[JAW])
    assert moved.norm(dim=-1).max() <= 0.0501


@pytest.mark.parametrize("seed", range(6))
def test_identity_stays_whatever_the_driver(model, seed):
    """Shape, static displacement and albedo of the target are bit-identical, and the driver's identity moves no parameter."""
    generator = torch.Generator().manual_seed(seed)
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=5)
    proxy = dataclasses.replace(proxy, displacement=1e-3 * torch.randn(model.vertex_count, 3, generator=generator))
    before = {f.name: getattr(proxy, f.name) for f in dataclasses.fields(proxy)}
    before = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in before.items()}
    other = dataclasses.replace(track, identity=-3 * track.identity, focal=track.focal * 2)
    a, b = transfer_motion(proxy, track, model), transfer_motion(proxy, other, model)
    for name, value in before.items():
        now = getattr(proxy, name)
        assert torch.equal(now, value) if isinstance(value, torch.Tensor) else now == value, name
    assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in PARAMETERS)
    assert a.detail_id == b.detail_id == proxy.detail_id


def test_detail_of_an_unknown_driver_stays_behind(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=6)
    driver = transfer_motion(proxy, track, model)
    wrinkled = dataclasses.replace(
        driver, detail=torch.randn(len(driver), 4, generator=generator), detail_id="0123456789abcdef", detail_basis=None
    )
    moved, expected = transfer_motion(proxy, wrinkled, model), transfer_motion(proxy, driver, model)
    for name in (*PARAMETERS, "detail", "detail_basis"):
        assert torch.equal(getattr(moved, name), getattr(expected, name)), name


def test_only_the_pose_follows(model, generator):
    """expression_from source: the face does not move, not even its detail, and the head turns as with the driver's expression."""
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=8)
    posed = transfer_motion(proxy, track, model, TransferSettings(expression_from="source"))
    assert torch.equal(posed.expression, proxy.source_expression.expand_as(posed.expression)) and posed.detail is None
    assert torch.equal(posed.joints[:, JAW:], proxy.source_joints[JAW:].expand(8, -1, -1))
    whole = transfer_motion(proxy, track, model, plain())
    assert torch.equal(posed.joints[:, :JAW], whole.joints[:, :JAW]) and torch.equal(posed.translation, whole.translation)


def test_only_the_expression_follows(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=8)
    acted = transfer_motion(proxy, track, model, plain(pose_from="source"))
    assert torch.equal(acted.joints[:, :JAW], proxy.source_joints[:JAW].expand(8, -1, -1))
    assert torch.equal(acted.translation, proxy.source_translation.expand(8, -1))
    assert torch.equal(acted.expression, transfer_motion(proxy, track, model, plain()).expression)


def test_no_pose_looks_straight_ahead(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=8)
    motion = transfer_motion(proxy, track, model, plain(pose_from="none"))
    assert torch.allclose(world_head(motion.joints), torch.eye(3).expand(8, 3, 3), atol=1e-5)
    assert torch.equal(motion.translation, proxy.source_translation.expand(8, -1))


def test_absolute_takes_the_driver_as_it_is(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=8)
    motion = transfer_motion(proxy, track, model, plain(mode="absolute"))
    bounded = torch.minimum(track.expression, model.expression_bounds[:, 1])
    assert torch.equal(motion.expression, bounded) and torch.equal(motion.joints[:, JAW:], track.joints[:, JAW:])
    assert torch.allclose(world_head(motion.joints), world_head(track.joints), atol=1e-5)


def test_pose_axes_have_their_own_strength(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=8)
    rest = rest_of(track, model)
    motion = transfer_motion(proxy, track, model, plain(pose_gains=PoseGains(pitch=0, roll=0, yaw=0.5, sideways=0, distance=2)))
    turn = rotation.to_rotvec(world_head(track.joints) @ world_head(rest.joints).mT)
    expected = rotation.to_matrix(torch.tensor([0, 0.5, 0]) * turn) @ world_head(proxy.source_joints)
    assert torch.allclose(world_head(motion.joints), expected, atol=1e-4)
    assert torch.equal(motion.translation[:, :2], proxy.source_translation[:2].expand(8, -1))
    ratio = motion.translation[:, 2] / proxy.source_translation[2]
    assert torch.allclose(ratio, (track.translation[:, 2] / rest.translation[2]) ** 2, atol=1e-5)


def test_regions_have_their_own_strength(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=8)
    gains = RegionGains(jaw=0.0, gaze=2.0, mouth=0.5)
    driver = Driver(track, Rest(torch.zeros_like(proxy.neutral), torch.zeros(6, 3), track.translation[0]))
    motion, whole = (transfer_motion(proxy, driver, model, plain(gains=g)) for g in (gains, RegionGains()))
    names = list(model.expression_names)
    for name, factor in (("mouthSmileLeft", 0.5), ("jawOpen", 0.0), ("browInnerUp", 1.0)):
        k = names.index(name)
        away, full = (m.expression[:, k] - proxy.neutral[k] for m in (motion, whole))
        assert torch.allclose(away, factor * full, atol=1e-6), name
    assert (motion.joints[:, JAW] - motion.joints[:1, JAW]).abs().max() == 0
    eye = motion.joints[:, LEFT_EYE] - proxy.source_joints[LEFT_EYE]
    assert torch.allclose(eye, 2 * (whole.joints[:, LEFT_EYE] - proxy.source_joints[LEFT_EYE]), atol=1e-6)


def test_another_driver_acts_in_the_first_ones_time(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=20)
    other = dataclasses.replace(make_track(model, generator, frames=6), fps=12.5)  # half as long at twice the step
    settings = plain(expression_from="other driver")
    motion = transfer_motion(proxy, track, model, settings, other)
    assert len(motion) == 20 and motion.fps == track.fps
    pose = transfer_motion(proxy, track, model, plain(expression_from="source"))
    assert torch.equal(motion.joints[:, :JAW], pose.joints[:, :JAW]) and torch.equal(motion.translation, pose.translation)
    alone = transfer_motion(proxy, other, model, plain())
    assert torch.allclose(motion.expression[0:12:2], alone.expression, atol=1e-5)
    assert torch.equal(motion.expression[12:], motion.expression[11:12].expand(8, -1))
    with pytest.raises(ValueError, match="there is no other driver; give one, or choose 'driver'"):
        transfer_motion(proxy, track, model, settings)


def test_a_declared_rest_is_used(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=12)
    motion = transfer_motion(proxy, track, model, plain(neutral_frame=7))
    assert torch.allclose(motion.expression[7], proxy.neutral, atol=1e-6)
    assert torch.allclose(world_head(motion.joints[7]), world_head(proxy.source_joints), atol=1e-5)
    expected = transfer_motion(proxy, Driver(track, rest_at(track, 7)), model, plain())
    assert torch.equal(motion.expression, expected.expression)
    with pytest.raises(ValueError, match="neutral_frame is 12, but the clip has frames 0 to 11"):
        transfer_motion(proxy, track, model, plain(neutral_frame=12))


def test_amplitude_fills_the_range_of_what_is_acted(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=60)
    proxy = dataclasses.replace(proxy, neutral=torch.zeros_like(proxy.neutral))
    expression = torch.zeros_like(track.expression)
    names = list(model.expression_names)
    wave = (1 - torch.cos(torch.linspace(0, 12.6, 60))) / 2
    expression[:, names.index("mouthSmileLeft")], expression[:, names.index("browInnerUp")] = 0.6 * wave, 0.3 * wave
    expression[:, names.index("noseSneerLeft")] = 0.05 * wave
    track = dataclasses.replace(track, expression=expression)
    factors = amplitude_match(perform(track, model, plain()), model)
    assert factors["mouth"] == pytest.approx(1 / 0.6, rel=0.05) and factors["brows"] == 2 and "nose" not in factors
    motion = transfer_motion(proxy, track, model, plain(match_amplitude=True))
    assert 0.95 <= motion.expression[:, names.index("mouthSmileLeft")].max() <= 1
    assert motion.expression[:, names.index("browInnerUp")].max() == pytest.approx(0.6, rel=0.05)
    assert motion.expression[:, names.index("noseSneerLeft")].max() <= 0.06


def test_gaps_of_the_driver_are_marked(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator, frames=9)
    valid = torch.ones(9, dtype=torch.bool)
    valid[3:5] = False
    motion = transfer_motion(proxy, dataclasses.replace(track, valid=valid), model)
    assert torch.equal(motion.valid, valid) and motion.expression.isfinite().all()


def test_smoothing_lowers_acceleration(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    noise = 0.1 * torch.rand(track.expression.shape, generator=generator)
    track = dataclasses.replace(track, expression=track.expression + noise)
    rough = transfer_motion(proxy, track, model, plain()).expression.diff(n=2, dim=0).abs().mean()
    smooth = transfer_motion(proxy, track, model, plain(smoothing=0.08)).expression.diff(n=2, dim=0).abs().mean()
    assert smooth < 0.3 * rough


def test_runs_inside_inference_mode(model, generator):
    with torch.inference_mode():
        motion = transfer_motion(make_proxy(model, generator), make_track(model, generator, frames=1), model)
    assert len(motion) == 1 and motion.expression.isfinite().all()


def test_refuses_what_does_not_belong_together(model, generator):
    proxy, track = make_proxy(model, generator), make_track(model, generator)
    with pytest.raises(ValueError, match="driver was made with head model other"):
        transfer_motion(proxy, dataclasses.replace(track, model_id="other"), model)
    with pytest.raises(ValueError, match="HeadProxy was made with head model other"):
        transfer_motion(dataclasses.replace(proxy, model_id="other"), track, model)
    with pytest.raises(ValueError, match="no frame with a face"):
        transfer_motion(proxy, dataclasses.replace(track, valid=torch.zeros_like(track.valid)), model)
    empty = dataclasses.replace(track, **{n: getattr(track, n)[:0] for n in ("expression", "joints", "translation", "valid")})
    with pytest.raises(ValueError, match="no frame"):
        transfer_motion(proxy, empty, model)
    for fps in (0.0, float("nan")):
        with pytest.raises(ValueError, match="frames per second; make it again with its frame rate"):
            transfer_motion(proxy, dataclasses.replace(track, fps=fps), model)
    broken = track.expression.clone()
    broken[3, 0] = float("nan")
    with pytest.raises(ValueError, match="frame 3 of the driver has expression that is no number"):
        transfer_motion(proxy, dataclasses.replace(track, expression=broken), model)
    with pytest.raises(ValueError, match="choose one of"):
        TransferSettings(pose_from="elsewhere")
    with pytest.raises(ValueError, match="at least 0"):
        TransferSettings(smoothing=float("nan"))
