import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.transfer.performance import Driver, neutral_vertices, perform
from expportrait.transfer.settings import TransferSettings
from expportrait.transfer.transfer import transfer_motion

sys.path.insert(0, str(Path(__file__).parent))
from heads import make_proxy, make_track, refine  # noqa: E402

SETTINGS = TransferSettings()


def test_a_fitted_driver_brings_its_identity_and_no_detail(model, generator):
    track = make_track(model, generator, frames=8)
    found = perform(track, model, SETTINGS)
    assert torch.equal(found.identity, track.identity) and found.motion.detail is None
    assert found.displacement is found.neutral is found.detail_at_rest is None
    motion = transfer_motion(make_proxy(model, generator), track, model, TransferSettings(contact=False))
    assert perform(motion, model, SETTINGS).identity is None


def test_a_refined_performer_brings_what_its_clip_showed(model, generator):
    track = make_track(model, generator, frames=8)
    skin = refine(make_proxy(model, generator), model, generator, frames=8)
    found = perform(Driver(track, proxy=skin), model, TransferSettings(neutral_frame=3))
    assert torch.equal(found.motion.detail, skin.detail) and torch.equal(found.detail_at_rest, skin.detail[3])
    assert torch.equal(found.motion.detail_basis, skin.detail_basis) and torch.equal(found.identity, skin.identity)
    assert torch.equal(found.neutral, neutral_vertices(model, skin, track.expression[3]))


def test_another_clip_of_the_performer_follows_the_expression(model, generator):
    track = make_track(model, generator, frames=12)
    skin = refine(make_proxy(model, generator), model, generator, frames=8)
    found = perform(Driver(track, proxy=skin), model, SETTINGS)
    assert torch.allclose(found.motion.detail, (track.expression - skin.neutral) @ skin.detail_by_expression)
    unknown = dataclasses.replace(skin, detail_by_expression=None)
    with pytest.raises(ValueError, match="refined on 8 frames, but the driver has 12; refine it on the driver's clip"):
        perform(Driver(track, proxy=unknown), model, SETTINGS)


def test_a_motion_made_for_the_performer_keeps_its_detail(model, generator):
    skin = refine(make_proxy(model, generator), model, generator, frames=8)
    motion = transfer_motion(skin, make_track(model, generator, frames=6), model)
    found = perform(Driver(motion, proxy=skin), model, SETTINGS)
    assert torch.equal(found.motion.detail, motion.detail) and torch.equal(found.motion.detail_basis, motion.detail_basis)


def test_like_another_motion_it_has_its_time(model, generator):
    track, other = make_track(model, generator, frames=30), make_track(model, generator, frames=8)
    main = perform(track, model, SETTINGS)
    found = perform(dataclasses.replace(other, fps=50.0), model, SETTINGS, like=main.motion)
    assert len(found) == 30 and found.motion.fps == 25.0
    assert torch.allclose(found.motion.expression[:4], other.expression[::2], atol=1e-5)
    assert torch.equal(found.motion.expression[4:], found.motion.expression[3:4].expand(26, -1))
    cut = perform(track, model, SETTINGS, like=perform(other, model, SETTINGS).motion)
    assert len(cut) == 8 and torch.equal(cut.motion.expression, track.expression[:8])


def test_a_performers_proxy_of_another_model_is_refused(model, generator):
    skin = dataclasses.replace(make_proxy(model, generator), model_id="other")
    with pytest.raises(ValueError, match="HeadProxy was made with head model other"):
        perform(Driver(make_track(model, generator), proxy=skin), model, SETTINGS)
