"""Maps that are read in chunks, from a batch or a file, and the plain fit that is drawn for some frames at a time."""

import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.frames import Frames, VideoWriter, write_image
from expportrait.proxy.posing import Stage, camera_space
from expportrait.proxy.refine.observe import Observer
from expportrait.proxy.refine.outside_depth import depth_targets
from expportrait.proxy.refine.outside_maps import CHUNK, MapFrames
from expportrait.proxy.refine.outside_normals import camera_normals
from expportrait.proxy.refine.person import check_person_mask
from expportrait.proxy.refine.plain_fit import PlainFit

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track  # noqa: E402

HEIGHT, WIDTH, COUNT = 66, 50, CHUNK + 3  # a last chunk that is smaller, and masks whose bits do not fill their bytes


@pytest.fixture(scope="module")
def fit(model):
    return PlainFit(Observer(model, make_track(model, WIDTH, HEIGHT, tuple(torch.linspace(-0.4, 0.4, COUNT).tolist()))))


@pytest.fixture(scope="module")
def drawn(fit):
    return fit.at(torch.arange(COUNT))


def test_a_file_gives_what_a_batch_gives(tmp_path):
    images = torch.rand(COUNT, 4, 6, generator=torch.Generator().manual_seed(1))
    images = images.repeat_interleave(8, 1).repeat_interleave(8, 2)[..., None].expand(-1, -1, -1, 3)
    with VideoWriter(tmp_path / "maps.mp4", 25) as writer:
        writer.write(images)
    file, batch = (MapFrames(maps, COUNT, (32, 48), "map") for maps in (Frames.open(tmp_path / "maps.mp4"), images))
    places = [part for part, _ in file.chunks()]
    assert places == [part for part, _ in batch.chunks()] == [slice(0, CHUNK), slice(CHUNK, COUNT)]
    for source in (file, batch):
        torch.testing.assert_close(torch.cat([found for _, found in source.chunks()]), images, atol=0.05, rtol=0)
        chosen = torch.tensor([COUNT - 1, 2, 2])
        torch.testing.assert_close(source.pick(chosen), images[chosen], atol=0.05, rtol=0)
    with pytest.raises(ValueError, match=f"the map has {COUNT} frames, but the track has 5; connect one map per frame"):
        MapFrames(Frames.open(tmp_path / "maps.mp4"), 5, (32, 48), "map")
    with pytest.raises(ValueError, match="the map has 48 x 32 pixels, which is another shape than the frames' 48 x 48"):
        MapFrames(Frames.open(tmp_path / "maps.mp4"), COUNT, (48, 48), "map")


def test_one_picture_serves_all_frames(tmp_path):
    picture = torch.rand(8, 6, 3, generator=torch.Generator().manual_seed(1))
    write_image(tmp_path / "map.png", picture)
    maps = MapFrames(Frames.open(tmp_path / "map.png"), COUNT, (8, 6), "map")
    found = torch.cat([images for _, images in maps.chunks()])
    torch.testing.assert_close(found, picture.expand(COUNT, -1, -1, -1), atol=0.003, rtol=0)
    torch.testing.assert_close(maps.pick(torch.tensor([7])), found[7:8])


def test_the_plain_fit_is_drawn_frame_by_frame(model, fit, drawn):
    track = fit.observer.track
    shot = Stage(model, track.camera).shot(camera_space(model, track.identity, track))
    assert torch.equal(drawn.head, shot.raster.mask) and (drawn.covered <= drawn.head).all()
    (distance,) = shot.pixels(-shot.vertices[..., 2:])
    torch.testing.assert_close(drawn.distance, shot.raster.scatter(distance)[..., 0])
    length = drawn.normals.norm(dim=-1)
    torch.testing.assert_close(length, ((drawn.head & (length > 0)).float()), atol=1e-5, rtol=0)
    assert (length[drawn.covered] > 0.99).all() and not length[~drawn.head].any()
    chosen = torch.tensor([9, 1])
    torch.testing.assert_close(fit.at(chosen).normals, drawn.normals[chosen])


def test_maps_of_several_chunks_are_those_of_each_frame(fit, drawn):
    """The fit's own maps, one frame of them missing, come back in every chunk at their own frames."""
    images = torch.where(drawn.covered[..., None], (drawn.normals + 1) / 2, torch.zeros(()))
    images[CHUNK] = 0
    ticks = []
    maps = camera_normals(images, fit, "auto", ticks.append)
    normals, weight = (torch.cat(values) for values in zip(*[values for _, *values in maps.chunks()]))
    known = drawn.covered & (torch.arange(COUNT) != CHUNK)[:, None, None]
    assert torch.equal(weight[:, 0] > 0, known) and sum(ticks) == COUNT
    torch.testing.assert_close(normals.permute(0, 2, 3, 1), drawn.normals * known[..., None], atol=1e-5, rtol=0)

    near = torch.where(drawn.head, 0.5 / drawn.distance.clamp(min=0.1), torch.zeros(()))[..., None]
    near[2] = torch.nan
    chosen = torch.tensor([COUNT - 1, 2, 0])
    distance, weight = depth_targets(near, fit).at(chosen)
    assert (weight[[0, 2]][drawn.covered[chosen[[0, 2]]]] > 0.99).all() and not weight[1].any()
    torch.testing.assert_close(distance[weight > 0.99], drawn.distance[chosen][weight > 0.99], atol=1e-4, rtol=0)

    mask = drawn.head.float()
    torch.testing.assert_close(check_person_mask(1 - mask, fit).at(chosen), mask[chosen])
