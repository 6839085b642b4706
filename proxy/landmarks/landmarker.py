"""The face landmarker: detectors, face mesh and person segmentation with their weights, on one device."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .detector_nets import FullRange, ShortRange
from .face_detector import SURE, Detections, detect_in, merge, rows_of, thorough_views
from .face_mesh import CROP, FaceMesh
from .regions import cut, to_image, whole_image
from .segmentation import PersonSegmentation
from .track import FaceLandmarks, track

if TYPE_CHECKING:
    from ..frames import Frames

WEIGHTS = Path(__file__).parents[1] / "assets" / "landmarks.safetensors"
NEAR_SCORE, FAR_SCORE = 0.5, 0.6
THOROUGH_SCORE = 0.65
BATCH = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Landmarker:
    """See `load_landmarker`. All methods run without gradients and accept images on any device."""

    _near: ShortRange
    _far: FullRange
    _mesh: FaceMesh
    _person: PersonSegmentation
    device: torch.device

    @torch.no_grad()
    def mesh(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Crops [N, 3, 192, 192] of upright faces, RGB in 0..1, to points [N, 478, 3] in crop pixels and the score [N] of a face."""
        if crops.ndim != 4 or crops.shape[1:] != (3, CROP, CROP):
            raise ValueError(f"expected crops of shape [N, 3, {CROP}, {CROP}], found {list(crops.shape)}; cut the face first")
        parts = [self._mesh(part.to(self.device)) for part in crops.split(BATCH)]
        return torch.cat([points for points, _ in parts]), torch.cat([score for _, score in parts])

    @torch.no_grad()
    def mesh_in(self, images: Tensor, regions: Tensor, frame: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Points [M, 478, 3] in pixels of images [N, 3, H, W] within regions [M, 4], and their scores [M]."""
        images = images.to(self.device)
        regions = regions.to(self.device)
        points, score = self.mesh(cut(images, regions, CROP, frame))
        return to_image(points, regions, CROP), score

    @torch.no_grad()
    def detect(self, images: Tensor, faces: int = 1, thorough: bool = False) -> list[Detections]:
        """Faces of each of the images [N, 3, H, W], the largest first.

        The far detector looks at images in which the near one found fewer than `faces`. `thorough` looks through turned views and
        tiles (slowly) at images in which there are still fewer than `faces` sure ones.
        """
        images = images.to(self.device)
        whole = whole_image(images.shape[3], images.shape[2])
        found = detect_in(self._near, images, whole, NEAR_SCORE)
        few = [i for i, those in enumerate(found) if len(those) < faces]
        _add(found, images, few, lambda some: detect_in(self._far, some, whole, FAR_SCORE))
        if thorough:
            views = thorough_views(images.shape[3], images.shape[2])
            for net in (self._near, self._far):
                few = [i for i, those in enumerate(found) if (those.score >= SURE).sum() < faces]
                _add(found, images, few, lambda some, net=net: detect_in(net, some, views, THOROUGH_SCORE))
        return found

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in 0..1 to the mask [N, H, W] in 0..1 of all persons in them."""
        size = (self._person.size, self._person.size)
        small = F.interpolate(images.to(self.device), size, mode="bilinear", align_corners=False, antialias=True)
        mask = torch.cat([self._person(part) for part in small.split(BATCH)])
        return F.interpolate(mask[:, None], images.shape[2:], mode="bilinear", align_corners=False)[:, 0]

    @torch.no_grad()
    def track(
        self,
        frames: Frames,
        face_index: int = 0,
        missing: str = "interpolate",
        progress: Callable[[int, int], None] | None = None,
    ) -> FaceLandmarks:
        """Follows one face through a clip. See `track.track`."""
        return track(self, frames, face_index, missing, progress)


def _add(found: list[Detections], images: Tensor, few: list[int], look: Callable[[Tensor], list[Detections]]) -> None:
    """Looks again at the images `few` and adds what is new to `found`."""
    if few:
        for i, more in zip(few, look(images[few]), strict=True):
            found[i] = merge(torch.cat([rows_of(found[i]), rows_of(more)]))


def load_landmarker(device: str | torch.device = "cpu") -> Landmarker:
    """The landmarker with its embedded weights (Apache-2.0, from MediaPipe 0.10.21; `proxy/assets/README.md`) on `device`.

    Cached per process, one for each device. Raises FileNotFoundError if the weights are not installed.
    """
    return _load_landmarker(str(torch.empty(0, device=device).device))  # "cuda" is the current one of several devices


@functools.lru_cache(maxsize=None)
def _load_landmarker(device: str) -> Landmarker:
    if not WEIGHTS.is_file():
        raise FileNotFoundError(f"{WEIGHTS} is missing; install the package again")
    with torch.inference_mode(False):
        tensors = load_file(WEIGHTS)
        nets = [_load(net, prefix, tensors) for prefix, net in _networks().items()]
        return Landmarker(*(net.to(device) for net in nets), torch.device(device))


def _networks() -> dict[str, nn.Module]:
    return {"short_range": ShortRange(), "full_range": FullRange(), "mesh": FaceMesh(), "person": PersonSegmentation()}


def _load(net: nn.Module, prefix: str, tensors: dict[str, Tensor]) -> nn.Module:
    start = prefix + "."
    net.load_state_dict({key[len(start) :]: value.float() for key, value in tensors.items() if key.startswith(start)})
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
