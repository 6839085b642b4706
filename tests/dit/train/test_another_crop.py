import torch

from expportrait.dit.adapter.face_encoder import SIZE
from expportrait.dit.train.another_crop import CACHED, another_crop, centre_crop


def faces_of(generator, frames=3):
    """Smooth pictures with a bright spot in the middle."""
    small = torch.rand(frames, 3, 9, 9, generator=generator)
    small[:, :, 4, 4] = 3
    pictures = torch.nn.functional.interpolate(small, size=(CACHED, CACHED), mode="bicubic")
    return (pictures.clamp(0, 1) * 255).to(torch.uint8)


def spot(crops):
    """Centre of what is white [F, 2], in pixels."""
    bright = crops.mean(1).flatten(1).softmax(1)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return torch.stack([bright @ row.flatten().float(), bright @ column.flatten().float()], 1)


def test_the_centre_is_what_the_cut_without_room_shows(generator):
    faces = faces_of(generator)
    start = (CACHED - SIZE) // 2
    assert torch.equal(centre_crop(faces), faces[:, :, start:-start, start:-start].float() / 127.5 - 1)
    bare = faces[:, :, :SIZE, :SIZE]
    assert torch.equal(centre_crop(bare), bare.float() / 127.5 - 1)


def test_a_crop_is_another_one_each_time_and_alike_over_the_clip(generator):
    faces = faces_of(generator)[:1].expand(3, -1, -1, -1)
    first, second = (another_crop(faces, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert first.shape == (3, 3, SIZE, SIZE) and first.abs().max() <= 1
    assert torch.equal(first[0], first[2])
    assert (first - second).abs().mean() > 0.05
    assert torch.equal(first, another_crop(faces, torch.Generator().manual_seed(1)))


def test_crops_move_grow_and_change_colour_within_bounds(generator):
    grey = torch.full((1, 3, CACHED, CACHED), 160, dtype=torch.uint8)
    marked = grey.clone()
    marked[:, :, CACHED // 2 - 8 : CACHED // 2 + 8, CACHED // 2 - 8 : CACHED // 2 + 8] = 255
    places, colours = [], []
    for seed in range(40):
        crop = another_crop(marked, torch.Generator().manual_seed(seed))
        bright = crop[0].mean(0) > another_crop(grey, torch.Generator().manual_seed(seed))[0].mean(0) + 0.05
        if bright.any():  # not where all is clipped to white
            places.append(bright.nonzero().float().mean(0) / SIZE - 0.5)
        colours.append(another_crop(grey, torch.Generator().manual_seed(seed))[0, :, 0, 0])
    places, colours = torch.stack(places), torch.stack(colours)
    assert 0.02 < places.std(0).min() and places.abs().max() < 0.12
    assert colours.std(0).min() > 0.05 and (colours - colours.mean(1, keepdim=True)).abs().max() > 0.02
