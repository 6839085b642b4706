import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.dit.expression_code import code_size
from expportrait.dit.pocket.model import PocketConfig
from expportrait.dit.pocket.render import Cut, render_pocket
from expportrait.dit.pocket.upsample import guided_upsample, shrink
from expportrait.proxy.head_model import JOINTS
from expportrait.proxy.posing import output_camera
from expportrait.proxy.preview import render_preview
from expportrait.transfer.motion import HeadMotion

sys.path.insert(0, str(Path(__file__).parent))
from pocket_things import TINY, shaken  # noqa: E402

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def pocket(model):
    return shaken(PocketConfig(model.model_id, code_size(model), **TINY))


@pytest.fixture(scope="module")
def scene(model):
    """Source picture, person mask, proxy and a motion of three frames, the last two of them equal."""
    from expportrait.proxy.head_proxy import HeadProxy

    generator = torch.Generator().manual_seed(0)
    neutral, joints = torch.zeros(len(model.expression_names)), torch.zeros(len(JOINTS), 3)
    proxy = HeadProxy(
        model_id=model.model_id,
        identity=torch.zeros(model.identity_basis.shape[0]),
        albedo=torch.rand(3, 32, 32, generator=generator),
        albedo_confidence=torch.ones(1, 32, 32),
        neutral=neutral,
        source_expression=neutral,
        source_joints=joints,
        source_translation=torch.tensor([0.02, -0.735, -0.8]),
        focal=180.0,
        width=WIDTH,
        height=HEIGHT,
        crop=(0.0, 0.0, 96.0, 96.0),
    )
    turned = joints.repeat(3, 1, 1)
    turned[1:, JOINTS.index("head"), 1] = 0.3
    motion = HeadMotion(
        model.model_id, neutral.repeat(3, 1), turned, proxy.source_translation.repeat(3, 1), torch.ones(3, dtype=torch.bool), 25.0
    )
    person = torch.zeros(HEIGHT, WIDTH)
    person[16:, 32:96] = 1
    return torch.rand(3, HEIGHT, WIDTH, generator=generator), person, proxy, motion


def rendered(scene, model, pocket, **changes):
    source, person, proxy, motion = scene
    with torch.inference_mode():
        return torch.cat(list(render_pocket(source, proxy, motion, model, pocket, **{"side": 64, "steps": 2, "person": person, **changes})))


def test_the_head_is_drawn_and_the_rest_is_the_preview(scene, model, pocket):
    source, person, proxy, motion = scene
    seen = []
    result = rendered(scene, model, pocket, progress=lambda *state: seen.append(state), chunk=2)
    with torch.inference_mode():
        # In the same chunks: several threads sum other chunks in another order.
        preview = torch.cat(list(render_preview(source, proxy, motion, model, person=person, chunk=2)))
    assert result.shape == (3, HEIGHT, WIDTH, 3) and 0 <= result.min() and result.max() <= 1 and seen == [(2, 3), (3, 3)]
    same = (result == preview).all(-1)
    assert same[:, :, :12].all() and same[:, :, -12:].all() and not same[:, 40:60, 56:72].any()


def test_a_mask_of_one_gives_the_preview_back(scene, model, pocket):
    source, person, proxy, motion = scene
    trusting = shaken(pocket.config)
    with torch.no_grad():
        trusting.leave.bias[3] = 1e4
    with torch.inference_mode():
        preview = torch.cat(list(render_preview(source, proxy, motion, model, person=person)))
    result = rendered(scene, model, trusting)
    assert (result - preview).abs().max() < 0.02 and (result - preview).abs().mean() < 0.001


def test_frames_that_stay_still_look_the_same_and_seeds_differ(scene, model, pocket):
    result = rendered(scene, model, pocket)
    assert (result[1] - result[2]).abs().max() < 1e-5 and (result[0] - result[1]).abs().max() > 0.01
    assert torch.equal(result, rendered(scene, model, pocket)) and not torch.equal(result, rendered(scene, model, pocket, seed=1))


def test_another_size(scene, model, pocket):
    assert rendered(scene, model, pocket, size=(256, 192)).shape == (3, 192, 256, 3)


def test_the_cut_holds_the_head_and_may_leave_the_picture(scene, model):
    _, _, proxy, motion = scene
    near = dataclasses.replace(motion, translation=motion.translation + torch.tensor([0.1, 0.0, 0.3]))
    small = Cut.around(proxy, motion, model, output_camera(proxy.camera))
    large = Cut.around(proxy, near, model, output_camera(proxy.camera))
    assert large.side > small.side and large.left + large.side > WIDTH
    picture = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    for cut in (small, large):
        part = cut.of(picture)
        assert part.shape[-2:] == (cut.side, cut.side)
        assert torch.equal(cut.put(picture, part, torch.ones_like(part[:, :1])), picture)
        marked = cut.put(picture, torch.full_like(part, 2.0), torch.ones_like(part[:, :1]))
        rows, columns = (slice(max(0, start), start + cut.side) for start in (cut.top, cut.left))
        assert (marked[..., rows, columns] == 2).all() and (marked == 2).sum() == marked[..., rows, columns].numel()


def test_bad_input_is_told(scene, model, pocket):
    source, person, proxy, motion = scene
    with pytest.raises(ValueError, match="give the picture that the proxy was built from"):
        render_pocket(source[:, 1:], proxy, motion, model, pocket)
    with pytest.raises(ValueError, match="trained for head model head"):
        render_pocket(source, proxy, motion, model, shaken(PocketConfig("head", 61, **TINY)))
    with pytest.raises(ValueError, match="the motion has no frames"):
        render_pocket(source, proxy, motion.select([]), model, pocket)
    with pytest.raises(ValueError, match="cannot draw 100 pixels"):
        render_pocket(source, proxy, motion, model, pocket, side=100)
    with pytest.raises(ValueError, match="another head model|made with head model"):
        render_pocket(source, proxy, dataclasses.replace(motion, model_id="other"), model, pocket)


def test_upsampling_keeps_the_guides_detail_and_the_pictures_change(generator):
    guide = torch.rand(1, 3, 96, 96, generator=generator)
    small = shrink(guide, (48, 48))
    assert (guided_upsample(small, guide) - guide).abs().mean() < 0.002
    darker = guided_upsample(0.6 * small, guide)
    assert (darker - 0.6 * guide).abs().mean() < 0.02
    assert torch.equal(guided_upsample(small, small), small)
    # A patch that the guide does not show comes from the picture.
    changed = small.clone()
    changed[..., 16:32, 16:32] = 1
    inside = guided_upsample(changed, guide)[..., 40:56, 40:56]
    assert (inside - 1).abs().mean() < 0.02 < (guide[..., 40:56, 40:56] - 1).abs().mean()
