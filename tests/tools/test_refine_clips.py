"""What tools/refine_clips.py takes of a clip."""

import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.frames import Frames

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS / "proxy")]

from painted_head import make_track  # noqa: E402
from refine_clips import SomeFrames, take  # noqa: E402

ODD = torch.arange(1, 38, 2)


@pytest.fixture
def clip():
    """40 frames of 4 x 6 pixels, each of a brightness of its own."""
    return Frames.from_images(torch.linspace(0, 1, 40)[:, None, None, None].expand(-1, 4, 6, 3), fps=20.0)


def test_some_frames_are_a_clip_of_their_own(clip):
    some, expected = SomeFrames(clip, ODD), torch.cat(list(clip.chunks()))[ODD]
    assert (len(some), some.width, some.height, some.fps) == (19, 6, 4, 9.5)
    for size, lengths in ((16, [16, 3]), (8, [8, 8, 3]), (1, [1] * 19)):
        chunks = list(some.chunks(size))
        assert [len(chunk) for chunk in chunks] == lengths and torch.equal(torch.cat(chunks), expected)
    assert torch.equal(some.pick([7, 0, 7]), expected[[7, 0, 7]]) and torch.equal(some.frame(18), expected[18])
    with pytest.raises(ValueError, match="no frame 19 among 19"):
        some.frame(19)


def test_a_walk_over_some_frames_ends_at_the_last_of_them(clip, monkeypatch):
    walked, chunks = [], clip.chunks

    def counted(size=16):
        for chunk in chunks(size):
            walked.append(len(chunk))
            yield chunk

    monkeypatch.setattr(clip, "chunks", counted)
    assert len(torch.cat(list(SomeFrames(clip, ODD[:5]).chunks()))) == 5
    assert walked == [16]


def test_a_part_of_a_track_has_its_frames_alone(model):
    track = make_track(model, 96, 96, (0.0, 0.1, 0.2, 0.3))
    part = take(track, torch.tensor([1, 3]))
    assert len(part) == 2 and part.landmarks.shape == (2, 478, 2)
    assert torch.equal(part.joints, track.joints[[1, 3]]) and torch.equal(part.identity, track.identity)
