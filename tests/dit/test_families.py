import pytest

from expportrait.dit.families import FAMILIES, ceil_length, family_named, floor_length


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_size_fits_the_family(family):
    usual = max(width * height for width, height in family.sizes[:1])
    for aspect in (0.1, 9 / 16, 0.7, 1.0, 1.3, 16 / 9, 5.0):
        width, height = family.size(aspect)
        assert width % family.multiple == 0 and height % family.multiple == 0
        assert 0.85 * usual < width * height <= usual
        held = min(max(aspect, 9 / 16), 16 / 9)
        assert width / height == pytest.approx(held, rel=0.08)
    assert family.longest % 4 == 1
    for width, height in family.sizes:
        assert width % family.multiple == 0 and height % family.multiple == 0


def test_usual_sizes_come_back_for_their_aspect():
    assert family_named("Wan VACE").size(832 / 480) == (832, 480)
    assert family_named("Wan VACE").size(480 / 832) == (480, 832)
    assert family_named("Wan 2.2 TI2V-5B").size(1280 / 704 * 0.975) == (1248, 704)


def test_given_sides_are_kept():
    family = family_named("Wan-Animate")
    assert family.size(0.5, 512, 512) == (512, 512)
    assert family.size(0.75, width=480) == (480, 640)
    assert family.size(0.75, height=640) == (480, 640)


@pytest.mark.parametrize(("name", "side"), [("Wan VACE", 500), ("Wan 2.2 TI2V-5B", 720), ("Wan VACE", -16), ("Wan VACE", 16384)])
def test_bad_sides_are_told_with_a_good_one(name, side):
    family = family_named(name)
    with pytest.raises(ValueError, match=f"is {side}, but {name} wants a multiple of {family.multiple}") as caught:
        family.size(1.0, width=side)
    proposed = int(str(caught.value).split("choose ")[1].split(",")[0])
    assert family.size(1.0, width=proposed)[0] == proposed


def test_lengths_are_four_n_plus_one():
    assert [floor_length(n) for n in (1, 4, 5, 8, 9, 81, 84)] == [1, 1, 5, 5, 9, 81, 81]
    assert [ceil_length(n) for n in (1, 2, 5, 6, 9, 78, 81)] == [1, 5, 5, 9, 9, 81, 81]


def test_unknown_family_is_told():
    with pytest.raises(ValueError, match="no model family 'Sora'; choose from Wan 2.1"):
        family_named("Sora")
