import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy import rotation
from expportrait.transfer.edit_motion import concatenate, loop, retime, trim

sys.path.insert(0, str(Path(__file__).parent))
from motions import make_motion  # noqa: E402

TENSORS = ("expression", "joints", "translation", "valid", "detail")


def same(first, second):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in TENSORS)


def largest_step(motion):
    """Largest change from frame to frame, the step from the last frame back to the first included, in its own units."""
    closed = motion.select([*range(len(motion)), 0])
    turned = rotation.to_matrix(closed.joints)
    turns = rotation.to_rotvec(turned[:-1].mT @ turned[1:]).norm(dim=-1).max()
    return max(turns, *(getattr(closed, name).diff(dim=0).abs().max() for name in ("expression", "translation", "detail")))


def test_trim_counts_both_ends(generator):
    motion = make_motion(generator, frames=10)
    assert same(trim(motion), motion)
    assert same(trim(motion, 2, -3), motion.select([2, 3, 4, 5, 6, 7]))
    assert same(trim(motion, -1, -1), motion.select([9]))


@pytest.mark.parametrize("start, end, words", [(10, -1, "start is frame 10"), (0, -11, "end is frame -11"), (6, 5, "nothing is left")])
def test_trim_refuses_what_is_not_there(generator, start, end, words):
    with pytest.raises(ValueError, match=words):
        trim(make_motion(generator, frames=10), start, end)


def test_loop_shows_no_seam(generator):
    wave = make_motion(generator, frames=200)
    motion = trim(wave, 0, 120)  # ends far from where it begins
    assert largest_step(motion) > 10 * largest_step(wave)
    looped = loop(motion, times=3, blend=40)
    assert len(looped) == 3 * (121 - 40)
    assert largest_step(looped) < 2.5 * largest_step(wave)
    assert same(looped.select(list(range(41))), motion.select(list(range(40, 81))))


def test_there_and_back(generator):
    motion = make_motion(generator, frames=4)
    assert same(loop(motion, 2, mode="there and back"), motion.select([0, 1, 2, 3, 2, 1] * 2))
    assert same(loop(motion.select([0]), 3, mode="there and back"), motion.select([0, 0, 0]))


def test_short_motions_loop_with_what_fade_they_have(generator):
    motion = make_motion(generator, frames=5)
    assert len(loop(motion, 2, blend=100)) == 6
    assert same(loop(motion.select([1]), 4, blend=8), motion.select([1, 1, 1, 1]))
    assert same(loop(motion, 2, blend=0), motion.select([0, 1, 2, 3, 4] * 2))


def test_loop_refuses(generator):
    motion = make_motion(generator, frames=5)
    for options, words in (({"times": 0}, "times is 0"), ({"blend": -1}, "blend is -1"), ({"mode": "mirror"}, "there and back")):
        with pytest.raises(ValueError, match=words):
            loop(motion, **options)


def test_concatenate_fades_from_one_to_the_other(generator):
    wave = make_motion(generator, frames=120)
    first, second = trim(wave, 0, 59), trim(wave, 30, -1)
    joined = concatenate([first, second], blend=30)
    assert torch.allclose(joined.expression, wave.expression, atol=1e-6)  # the overlap is the same motion
    assert torch.allclose(joined.joints, wave.joints, atol=1e-5) and torch.allclose(joined.detail, wave.detail, atol=1e-6)
    cut = concatenate([first, second, first], blend=0)
    assert same(cut, wave.select([*range(60), *range(30, 120), *range(60)]))
    three = concatenate([first.select([0, 1, 2, 3]), second, second.select([7])], blend=12)
    assert len(three) == 4 + 90 + 1 - 2 - 0
    assert same(concatenate([first]), first)


def test_concatenate_retimes_to_the_first(generator):
    slow, fast = make_motion(generator, frames=20, fps=25.0, detail=0), make_motion(generator, frames=60, fps=50.0, detail=0)
    joined = concatenate([slow, fast], blend=0)
    assert joined.fps == 25.0 and len(joined) == 20 + 30
    assert torch.equal(joined.expression[20:], fast.expression[::2])


def test_motions_on_different_fields_get_shared_ones(generator):
    """As two transfers onto one person have them: each keeps its displacements."""
    motion = make_motion(generator, frames=10)
    other = dataclasses.replace(motion.select([3, 1, 4]), detail_basis=motion.detail_basis.flip(1) + 1e-4)

    def shown(one):
        return torch.einsum("tk,kvx->tvx", one.detail, one.detail_basis)

    joined = concatenate([motion, other], blend=0)
    assert joined.detail_id == motion.detail_id
    expected = torch.cat([shown(motion), shown(other)])
    assert (shown(joined) - expected).abs().max() < 0.01 * expected.abs().max()


def test_detail_is_kept_only_of_one_proxy(generator):
    motion = make_motion(generator, frames=10)
    other_person = dataclasses.replace(motion, detail_id="else")
    no_detail = dataclasses.replace(motion, detail=None, detail_id=None, detail_basis=None)
    copy = dataclasses.replace(motion, detail_basis=motion.detail_basis.clone())
    assert concatenate([motion, copy]).detail is not None
    for other in (other_person, no_detail, dataclasses.replace(motion, detail_basis=None)):
        joined = concatenate([motion, other])
        assert joined.detail is None and joined.detail_id is None and joined.detail_basis is None


def test_concatenate_refuses(generator):
    motion = make_motion(generator, frames=10)
    with pytest.raises(ValueError, match="no motion to join"):
        concatenate([])
    with pytest.raises(ValueError, match="motion 2 was made with head model other"):
        concatenate([motion, dataclasses.replace(motion, model_id="other")])
    with pytest.raises(ValueError, match="motion 2 has no frame"):
        concatenate([motion, motion.select([])])


def test_retime_keeps_the_duration_and_the_course(generator):
    motion = make_motion(generator, frames=101, fps=25.0)
    finer = retime(motion, 75.0)
    assert len(finer) == 303 and finer.fps == 75.0
    assert torch.allclose(finer.expression[:300:3], motion.expression[:100], atol=1e-6)
    back = retime(finer, 25.0)
    assert len(back) == 101
    assert torch.allclose(rotation.to_matrix(back.joints), rotation.to_matrix(motion.joints), atol=1e-5)
    assert same(retime(motion, 25.0), motion) and retime(motion) is motion


def test_retime_follows_the_true_course_and_stays_in_bounds():
    generator = torch.Generator().manual_seed(7)
    coarse = make_motion(generator, frames=41)
    fine = make_motion(generator.manual_seed(7), frames=401)  # the same waves, ten times as dense
    guess = retime(coarse, 250.0)
    assert (guess.expression[:401] - fine.expression).abs().max() < 5e-3
    turned = rotation.to_matrix(guess.joints[:401]).mT @ rotation.to_matrix(fine.joints)
    assert rotation.to_rotvec(turned).norm(dim=-1).max() < 5e-3
    steps = torch.zeros(8, 1)
    steps[3:6] = 1.0
    blocks = retime(dataclasses.replace(coarse.select(list(range(8))), expression=steps), 240.0)
    assert blocks.expression.min() >= 0 and blocks.expression.max() <= 1


def test_speed_and_validity(generator):
    motion = make_motion(generator, frames=40)
    valid = torch.ones(40, dtype=torch.bool)
    valid[10] = False
    motion = dataclasses.replace(motion, valid=valid)
    twice = retime(motion, speed=2.0)
    assert len(twice) == 20 and torch.equal(twice.expression, motion.expression[::2]) and twice.valid.sum() == 19
    half = retime(motion, speed=0.5)
    assert len(half) == 80 and (~half.valid).nonzero()[:, 0].tolist() == [19, 20, 21]
    assert len(retime(motion, speed=1000.0)) == 1
    still = retime(motion.select([0]), 100.0)
    assert len(still) == 4 and torch.equal(still.joints, motion.joints[:1].expand(4, -1, -1))


@pytest.mark.parametrize("fps, speed", [(0.0, 1.0), (float("nan"), 1.0), (25.0, 0.0), (-3.0, 1.0)])
def test_retime_refuses(generator, fps, speed):
    with pytest.raises(ValueError, match="give a number above 0"):
        retime(make_motion(generator), fps, speed)


def test_motions_without_a_frame_are_refused(generator):
    empty = make_motion(generator).select([])
    for tool in (trim, loop, lambda m: retime(m, 50.0)):
        with pytest.raises(ValueError, match="has no frame"):
            tool(empty)
