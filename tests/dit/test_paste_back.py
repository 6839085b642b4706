import pytest
import torch

from expportrait.dit.colour_match import ColourMatch, from_oklab, to_oklab
from expportrait.dit.families import family_named
from expportrait.dit.framing import Framing, crop_images, make_framing
from expportrait.dit.paste_back import paste_back

VACE = family_named("Wan VACE")


def smooth(generator, frames, height, width):
    """Soft random pictures."""
    small = torch.rand(frames, 3, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)


def disc(width, height, x, y, radius):
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).float()[None]


def paste(*args, **options):
    return torch.cat(list(paste_back(*args, **options)))


def crop(images, framing):
    return torch.cat(list(crop_images(images, framing)))


@pytest.fixture
def scene(generator):
    """A clip of 6 frames, a framing inside it, and what the framing shows."""
    source = smooth(generator, 6, 120, 160)
    framing = make_framing(VACE, source, disc(160, 120, 80, 60, 20), 128, 128, margin=0.4)
    return source, framing, crop(source, framing)


def test_what_was_cut_comes_back_where_it_was(scene):
    source, framing, cut = scene
    assert len(cut) == 9
    out = paste(source, cut, framing, colour_match=0.0)
    assert out.shape == source.shape
    assert (out - source).abs().max() < 0.01  # resampled up and down again
    assert (paste(source, cut, framing, feather=0.0) - source).abs().max() < 0.01


def test_nothing_outside_the_box_changes(scene):
    source, framing, cut = scene
    out = paste(source, 1 - cut, framing, feather=5.0)
    x, y, w, h = framing.box
    outside = torch.ones(120, 160, dtype=torch.bool)
    outside[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1] = False
    assert torch.equal(out[:, outside], source[:, outside])
    middle = out[:, 55:65, 75:85] - source[:, 55:65, 75:85]
    assert middle.abs().amax() > 0.1


@pytest.mark.parametrize("feather", [0.0, 6.0, 40.0])
def test_the_source_stays_bit_by_bit_where_the_mask_is_zero(scene, generator, feather):
    source, framing, cut = scene
    mask = disc(160, 120, 75, 60, 14)
    out = paste(source, torch.rand(cut.shape, generator=generator), framing, mask, feather=feather)
    assert torch.equal(out[:, mask[0] == 0], source[:, mask[0] == 0])
    assert not torch.equal(out[:, mask[0] == 1], source[:, mask[0] == 1])


def test_a_mask_over_the_box_is_the_same_mask(scene):
    source, framing, cut = scene
    mask = disc(160, 120, 80, 60, 15)
    over_box = crop(mask[..., None].expand(-1, -1, -1, 3), framing)[..., 0]
    pasted = [paste(source, 1 - cut, framing, which, feather=3.0, colour_match=0.0) for which in (mask, over_box)]
    assert (pasted[0] - pasted[1]).abs().mean() < 0.25 * (pasted[0] - source).abs().mean()


def test_the_feather_fades_inwards_but_not_at_the_pictures_border():
    source = torch.zeros(1, 80, 100, 3)
    framing = Framing((100, 80), (0.0, 20.0, 50.0, 50.0), (64, 64), 1, 1, 1)
    row = paste(source, torch.ones(1, 64, 64, 3), framing, feather=10.0, colour_match=0.0)[0, 45, :, 0]
    assert torch.all(row[:38] > 0.9999) and torch.all(row[50:] == 0)
    assert torch.all(row[40:50].diff() < 0)


def test_a_still_takes_every_result(scene):
    source, framing, cut = scene
    out = paste(source[:1], cut, framing)
    assert len(out) == framing.kept == 6
    assert len(paste(source[:1], cut[:3], framing)) == 3


def test_enlarged_results_fit_too(scene):
    source, framing, cut = scene
    twice = cut.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (paste(source, twice, framing, colour_match=0.0) - source).abs().mean() < 0.01


def test_a_box_that_leaves_the_picture(generator):
    source = smooth(generator, 1, 60, 90)
    framing = Framing((90, 60), (-10.0, -5.0, 110.0, 70.0), (176, 112), 1, 1, 1)
    out = paste(source, crop(source, framing), framing, colour_match=0.0)
    assert (out - source).abs().max() < 0.01


def cast(images, gain, offset):
    """Another contrast and tint, as generated pictures have them."""
    return from_oklab(to_oklab(images) * torch.tensor(gain) + torch.tensor(offset)).clamp(0, 1)


def test_colours_are_brought_back(scene):
    source, framing, cut = scene
    tinted = cast(cut, (0.85, 0.9, 0.9), (0.09, 0.015, -0.02))
    plain = (paste(source, tinted, framing, colour_match=0.0) - source).abs()[:, 50:70, 70:90].mean()
    matched = (paste(source, tinted, framing, colour_match=1.0) - source).abs()[:, 50:70, 70:90].mean()
    half = (paste(source, tinted, framing, colour_match=0.5) - source).abs()[:, 50:70, 70:90].mean()
    assert plain > 0.03 and matched < 0.15 * plain and matched < half < 0.7 * plain


def test_what_moved_through_the_ring_does_not_count(scene):
    source, framing, cut = scene
    tinted = cast(cut, (1.0, 1.0, 1.0), (0.06, 0.0, 0.02))
    tinted[:, :20, :60] = torch.tensor([0.9, 0.1, 0.1])  # a fifth of the ring shows something else
    out = paste(source, tinted, framing, colour_match=1.0)
    assert (out - source).abs()[:, 55:70, 75:90].mean() < 0.01


@pytest.mark.parametrize("other", ["texture", "plain"])
def test_another_background_tints_nothing(scene, generator, other):
    source, framing, cut = scene
    result = cut.clone()
    edge = torch.ones(128, 128, dtype=torch.bool)
    edge[20:-20, 20:-20] = False
    foreign = torch.rand(len(cut), 128, 128, 3, generator=generator) if other == "texture" else torch.tensor([0.1, 0.25, 0.9])
    result[:, edge] = foreign[:, edge] if other == "texture" else foreign
    out = paste(source, result, framing, feather=2.0)
    assert (out - source).abs()[:, 55:65, 75:85].mean() < 0.02


def test_the_match_does_not_flicker(generator):
    count = 40
    source = smooth(generator, 1, 90, 90)
    framing = make_framing(VACE, source, disc(90, 90, 45, 45, 20).expand(count, -1, -1), 64, 64)
    cut = crop(source, framing).expand(framing.length, -1, -1, -1).clone()
    cut[:, :5] += 0.2 * torch.rand(framing.length, 1, 1, 3, generator=generator)  # the ring's upper side jumps about
    centre = paste(source, cut.clamp(0, 1), framing, feather=2.0)[:, 40:50, 40:50]
    assert centre.diff(dim=0).abs().amax() < 1 / 255


def test_oklab_returns():
    colours = torch.rand(1000, 3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(from_oklab(to_oklab(colours)), colours, atol=1e-4)
    white = to_oklab(torch.ones(1, 3))
    assert torch.allclose(white, torch.tensor([[1.0, 0.0, 0.0]]), atol=1e-4)


def test_a_ring_of_few_pixels_changes_nothing():
    few = torch.rand(5, 3)
    match = ColourMatch.between([(few, few * 0.5)])
    images = torch.rand(1, 4, 4, 3)
    assert torch.allclose(match.apply(images, 0, 1.0), images, atol=1e-4)


def test_bad_input_is_one_sentence(scene):
    source, framing, cut = scene
    for words, arguments in {
        "empty": (source[:0], cut, framing),
        "there are 5 frames, but the framing was made for 6": (source[:5], cut, framing),
        "160 x 100 pixels, but the framing was made for 160 x 120": (source[:, :100], cut, framing),
        "10 pictures of 128 x 128, but the framing is of 9": (source, torch.cat([cut, cut[:1]]), framing),
        "9 pictures of 128 x 96": (source, cut[:, :96], framing),
        "the mask has 50 x 50 pixels": (source, cut, framing, torch.ones(1, 50, 50)),
        "expected 1 or at least 6 frames": (source, cut, framing, torch.ones(4, 120, 160)),
    }.items():
        with pytest.raises(ValueError) as caught:
            paste_back(*arguments)
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_works_inside_inference_mode(scene):
    source, framing, cut = scene
    with torch.inference_mode():
        assert torch.isfinite(paste(source, cut, framing, disc(160, 120, 80, 60, 15))).all()
