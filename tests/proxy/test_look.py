import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.build import build_proxy
from expportrait.proxy.frames import Frames
from expportrait.proxy.look import SMALL, fit_sheet, proxy_sheet
from expportrait.proxy.sheet import GAP, LABEL

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track, paint, skin_paint  # noqa: E402

YAWS = (0.0, 0.3, -0.3)
SIDE = 128


@pytest.fixture(scope="module")
def clip(model):
    track, colours = make_track(model, SIDE, SIDE, YAWS), skin_paint(model)
    shots = [dataclasses.replace(track, joints=track.joints[i : i + 1]) for i in range(len(YAWS))]
    return torch.stack([paint(model, shot, colours) for shot in shots]), track


def frames_of(pictures):
    return Frames.from_images(pictures.permute(0, 2, 3, 1))


def test_the_fit_is_shown_over_its_frames(model, clip):
    pictures, track = clip
    with torch.inference_mode():
        sheet = fit_sheet(frames_of(pictures), track, model)
    assert sheet.shape[0] == 2 * SMALL + GAP and sheet.isfinite().all()
    cell = (sheet.shape[1] + GAP) // len(YAWS)
    top, bottom = sheet[:SMALL], sheet[SMALL + GAP :]
    for k in range(len(YAWS)):
        part = slice(k * cell, (k + 1) * cell - GAP)
        assert (top[:, part] - bottom[:, part]).abs().max() > 0.1
    turned = fit_sheet(frames_of(pictures), dataclasses.replace(track, joints=track.joints.flip(0)), model)
    assert not torch.allclose(turned[SMALL + GAP :, : cell - GAP], bottom[:, : cell - GAP])


def test_frames_without_a_face_are_left_out(model, clip):
    pictures, track = clip
    lost = dataclasses.replace(track, valid=torch.tensor([True, False, True]))
    assert fit_sheet(frames_of(pictures), lost, model).shape[1] < fit_sheet(frames_of(pictures), track, model).shape[1]
    with pytest.raises(ValueError, match="no frame of the track has a face"):
        fit_sheet(frames_of(pictures), dataclasses.replace(track, valid=torch.zeros(3, dtype=torch.bool)), model)
    with pytest.raises(ValueError, match="give the images that the track was fitted to"):
        fit_sheet(frames_of(pictures[:2]), track, model)


def test_a_proxy_is_shown_with_photo_normals_and_texture(model, clip):
    pictures, track = clip
    proxy = build_proxy(pictures[0], track, model, 0, texture_size=64, person=torch.ones(SIDE, SIDE))
    with torch.inference_mode():
        sheet = proxy_sheet(pictures[0], proxy, model)
    assert sheet.shape[0] == LABEL + SMALL and sheet.isfinite().all()
    with pytest.raises(ValueError, match="give the picture that the proxy was built from"):
        proxy_sheet(pictures[0, :, 1:], proxy, model)
