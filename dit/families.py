"""What each family of video models wants of a clip: the single place for such facts.

Sources: the models' published configurations and ComfyUI 0.12.1's nodes for them (nodes_wan.py).
"""

from __future__ import annotations

import dataclasses
import math

TIME_STRIDE = 4  # of every Wan VAE: 4n + 1 frames become n + 1 latent frames
PATCH = 2  # latent pixels across a token
WIDEST = 16 / 9  # aspect of the widest, and upright of the tallest, picture that is made by default
LONGEST_SIDE = 8192


@dataclasses.dataclass(frozen=True)
class ModelFamily:
    """A family of models that share clip length, sizes and VAE."""

    name: str
    fps: float  # frames per second that it was trained on; it takes any
    sizes: tuple[tuple[int, int], ...]  # usual sizes width, height of a wide clip, the cheapest first; upright ones swapped
    longest: int = 81  # frames of the longest usual clip; longer ones take context windows or a chain of clips
    space_stride: int = 8  # pixels to a latent pixel
    latent_channels: int = 16

    @property
    def multiple(self) -> int:
        """Width and height are multiples of this: 16, or 32 for the VAE of Wan 2.2."""
        return self.space_stride * PATCH

    def size(self, aspect: float, width: int = 0, height: int = 0) -> tuple[int, int]:
        """Width and height for a picture of `aspect` (width by height). A side that is not 0 is taken as it is.

        A side left at 0 follows from the other, or both from the area of the first usual size, which is not exceeded;
        aspects beyond 16:9 and 9:16 are cut to those. Raises ValueError for a side that is no multiple, or out of range.
        """
        aspect = min(max(aspect, 1 / WIDEST), WIDEST)
        for name, side in (("width", width), ("height", height)):
            self._check(name, side)
        if not width and not height:
            area = self.sizes[0][0] * self.sizes[0][1]
            return self._down(math.sqrt(area * aspect)), self._down(math.sqrt(area / aspect))
        return width or self._near(height * aspect), height or self._near(width / aspect)

    def _check(self, name: str, side: int) -> None:
        if side % self.multiple or not 0 <= side <= LONGEST_SIDE:
            near = min(self._near(side), LONGEST_SIDE)
            raise ValueError(
                f"the {name} is {side}, but {self.name} wants a multiple of {self.multiple} up to {LONGEST_SIDE}; choose {near}, or 0"
            )

    def _down(self, side: float) -> int:
        return max(self.multiple, int(side + 1e-6) // self.multiple * self.multiple)

    def _near(self, side: float) -> int:
        return max(self.multiple, round(side / self.multiple) * self.multiple)


_WIDE = ((832, 480), (1280, 720))
FAMILIES = {
    family.name: family
    for family in (
        ModelFamily("Wan 2.1", 16, _WIDE),
        ModelFamily("Wan 2.2 A14B", 16, _WIDE),
        ModelFamily("Wan 2.2 TI2V-5B", 24, ((1280, 704),), longest=121, space_stride=16, latent_channels=48),
        ModelFamily("Wan VACE", 16, _WIDE),
        ModelFamily("Wan Fun-Control", 16, _WIDE),
        ModelFamily("Wan-Animate", 30, _WIDE, longest=77),
    )
}


def family_named(name: str) -> ModelFamily:
    """The family of a name in FAMILIES. Raises ValueError if there is none."""
    if name not in FAMILIES:
        raise ValueError(f"there is no model family {name!r}; choose from {', '.join(FAMILIES)}")
    return FAMILIES[name]


def floor_length(frames: int) -> int:
    """The largest 4n + 1 that is not above `frames`, which are at least 1."""
    return (frames - 1) // TIME_STRIDE * TIME_STRIDE + 1


def ceil_length(frames: int) -> int:
    """The smallest 4n + 1 that is not below `frames`, which are at least 1."""
    return floor_length(frames + TIME_STRIDE - 1)
