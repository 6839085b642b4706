import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.posing import camera_space
from expportrait.transfer.network import load_transfer_network
from expportrait.transfer.performance import Driver, perform
from expportrait.transfer.settings import RegionGains, TransferSettings
from expportrait.transfer.skin_detail import performed_wrinkles, predicted_detail, with_detail, with_edited_detail
from expportrait.transfer.transfer import transfer_motion

sys.path.insert(0, str(Path(__file__).parent))
from heads import make_proxy, make_track, refine  # noqa: E402


def field(motion):
    return torch.einsum("tk,kvx->tvx", motion.detail, motion.detail_basis)


def parts(model, generator, frames=6):
    """A target, a performer's clip, the performer's refined head, and the target's motion without any detail."""
    target, track = make_proxy(model, generator), make_track(model, generator, frames=frames)
    skin = refine(make_proxy(model, generator), model, generator, frames=frames)
    return target, track, skin


def test_a_refined_target_knows_its_own_skin(model, generator):
    proxy = refine(make_proxy(model, generator), model, generator)
    motion = transfer_motion(proxy, make_track(model, generator, frames=4), model, TransferSettings(contact=False))
    expected = proxy.displaced(motion.expression) - proxy.displacement
    assert torch.allclose(field(motion), expected, atol=2e-6)


def test_other_targets_are_predicted_by_the_network(model, generator):
    proxy = make_proxy(model, generator)
    motion = transfer_motion(proxy, make_track(model, generator, frames=4), model, TransferSettings(contact=False))
    found = predicted_detail(motion, proxy, model)
    assert len(found.fields) == load_transfer_network(model).sizes.code and found.fields.abs().max() > 0
    still = dataclasses.replace(motion, expression=proxy.neutral.expand(4, -1), joints=torch.zeros_like(motion.joints))
    assert predicted_detail(still, proxy, model).coefficients.abs().max() < 1e-6
    assert torch.allclose(field(motion), torch.einsum("tk,kvx->tvx", found.coefficients, found.fields), atol=1e-5)


def test_the_dial_goes_from_predicted_to_the_performers_own(model, generator):
    target, track, skin = parts(model, generator)

    def made(detail, proxy=skin):
        return field(transfer_motion(target, Driver(track, proxy=proxy), model, TransferSettings(detail=detail, contact=False)))

    predicted, half, own = made(0.0), made(0.5), made(1.0)
    assert (own - predicted).abs().max() > 2e-4
    assert torch.allclose(half, (own + predicted) / 2, atol=2e-5)
    assert torch.allclose(made(1.0, None), predicted, atol=2e-5)  # there is no performer to take wrinkles from


def test_wrinkles_are_relative_to_the_performers_rest_and_as_strong_as_its_expression(model, generator):
    target, track, skin = parts(model, generator)
    driver = Driver(track, proxy=skin)
    for settings in (TransferSettings(neutral_frame=2), TransferSettings(neutral_frame=2, expression_strength=0.5)):
        found = performed_wrinkles(perform(driver, model, settings), target, model, settings)
        assert torch.allclose(found.coefficients, settings.acted * (skin.detail - skin.detail[2]))
    absolute = TransferSettings(neutral_frame=2, mode="absolute")
    assert torch.equal(performed_wrinkles(perform(driver, model, absolute), target, model, absolute).coefficients, skin.detail)
    assert performed_wrinkles(perform(track, model, absolute), target, model, absolute) is None


def test_shut_eyes_are_shut_only_where_they_are_acted(model, generator):
    """Contact closes the lids of a blink that the target's own shapes leave open, and no lid of a motion without lids."""
    target, track, _ = parts(model, generator, frames=3)
    blink = torch.tensor([name.startswith("eyeBlink") for name in model.expression_names])
    expression = torch.where(blink, torch.tensor([[0.0], [1.0], [0.0]]), torch.zeros(3, len(blink)))
    track = dataclasses.replace(track, expression=expression, joints=torch.zeros_like(track.joints))

    def made(**settings):
        return transfer_motion(target, track, model, TransferSettings(neutral_frame=0, **settings))

    free, held, still = made(contact=False), made(), made(gains=RegionGains(lids=0.0))
    lids = model.regions["lids"] > 0.5
    moved = (field(held) - field(free)).norm(dim=-1)
    assert moved[1, lids].max() > 5e-4
    assert (camera_space(model, target, held) - camera_space(model, target, free)).isfinite().all()
    calm = transfer_motion(target, track, model, TransferSettings(neutral_frame=0, gains=RegionGains(lids=0.0), contact=False))
    assert (field(still) - field(calm))[1].norm(dim=-1)[lids].max() < moved[1, lids].max()


def test_a_motion_alone_is_completed_for_its_target(model, generator):
    target, track, _ = parts(model, generator)
    bare = dataclasses.replace(transfer_motion(target, track, model), detail=None, detail_id=None, detail_basis=None)
    whole = with_detail(bare, target, model, TransferSettings())
    assert whole.detail_id == target.detail_id and torch.equal(whole.expression, bare.expression) and len(whole.detail_basis) > 0


def test_an_edit_takes_its_skin_along(model, generator):
    """What the performer's wrinkles add stays, the prediction follows the edit, and what the edit shuts is shut."""
    target, track, skin = parts(model, generator)
    motion = transfer_motion(target, Driver(track, proxy=skin), model, TransferSettings(detail=1.0, contact=False))
    same = with_edited_detail(motion, motion, target, model)
    corrected = transfer_motion(target, Driver(track, proxy=skin), model, TransferSettings(detail=1.0))
    brow = (model.regions["brows"] > 0.5) & (model.regions["lids"] < 0.1)
    assert (field(same) - field(corrected))[:, brow].norm(dim=-1).max() < 1e-4  # only contact tells them apart
    blink = torch.tensor([name.startswith("eyeBlink") for name in model.expression_names])
    shut = dataclasses.replace(motion, expression=torch.where(blink, 1.0, 0.5 * motion.expression))
    edited = with_edited_detail(shut, motion, target, model)
    assert torch.equal(edited.expression, shut.expression) and edited.detail_id == target.detail_id
    change = predicted_detail(shut, target, model).coefficients - predicted_detail(motion, target, model).coefficients
    expected = field(motion) + torch.einsum("tk,kvx->tvx", change, predicted_detail(motion, target, model).fields)
    apart = (field(edited) - expected).norm(dim=-1)
    assert apart[:, brow].max() < 1e-4 and apart[:, model.regions["lids"] > 0.5].max() > 3e-4
    stranger = dataclasses.replace(motion, detail_id="0123456789abcdef")
    alone = with_edited_detail(shut, stranger, target, model)
    assert torch.allclose(field(alone), field(with_detail(shut, target, model, TransferSettings())), atol=1e-5)


@pytest.mark.parametrize("frames", [1, 3])
def test_inside_inference_mode(model, generator, frames):
    with torch.inference_mode():
        target, track, skin = parts(model, generator, frames)
        motion = transfer_motion(target, Driver(track, proxy=skin), model)
        assert field(motion).isfinite().all() and camera_space(model, target, motion).isfinite().all()
