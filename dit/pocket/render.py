"""A portrait animated by the pocket model: the preview, its head drawn anew.

The head's surroundings are cut out of the preview at one place for the whole clip, drawn at the model's own size from one noise,
enlarged by the preview's detail and put back with a soft edge. What lies beyond stays the preview's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ...proxy.camera import Camera
from ...proxy.head_model import HeadModel
from ...proxy.head_proxy import HeadProxy
from ...proxy.inpaint import box_blur, dilate
from ...proxy.posing import SourcePose, camera_space, check_models, frames_at_once, output_camera
from ...proxy.source_picture import one_source
from .conditions import ConditionMaker, Conditions
from .flow import one_noise, sample
from .model import PocketModel
from .upsample import guided_upsample, shrink

SIDE = 256  # pixels that the model draws
HEAD_SHARE = 0.64  # height of the head over the side of the cut, as in training
RIM, FEATHER = 0.05, 0.025  # of the cut's side: what around the head is drawn too, and the edge beyond


@dataclasses.dataclass(frozen=True)
class Cut:
    """A square of whole pixels of a picture; it may leave the picture."""

    left: int
    top: int
    side: int

    @staticmethod
    def around(proxy: HeadProxy, motion, model: HeadModel, camera: Camera) -> Cut:
        """Around the skull in the source and in all frames of a motion."""
        skull = model.weights[:, model.pivot] > 0.5
        poses = [(SourcePose.of(proxy), 0, 1)] + [(motion, k, k + 8) for k in range(0, len(motion), 8)]
        points = [camera.project(camera_space(model, proxy, *pose)[:, skull]) for pose in poses]
        low = torch.stack([p.amin((0, 1)) for p in points]).amin(0)
        high = torch.stack([p.amax((0, 1)) for p in points]).amax(0)
        side = max(16, round(float((high - low).max()) / HEAD_SHARE))
        left, top = ((low + high - side) / 2).round().int().tolist()
        return Cut(left, top, side)

    def of(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] cut out, [B, C, side, side]; beyond their borders these are repeated."""
        height, width = images.shape[-2:]
        rows = torch.arange(self.top, self.top + self.side, device=images.device).clamp(0, height - 1)
        columns = torch.arange(self.left, self.left + self.side, device=images.device).clamp(0, width - 1)
        return images[..., rows, :][..., columns]

    def put(self, images: Tensor, part: Tensor, mask: Tensor) -> Tensor:
        """Images [B, 3, H, W] with part [B, 3, side, side] over them, as far as mask [B, 1, side, side] says."""
        height, width = images.shape[-2:]
        beyond = (-self.left, self.left + self.side - width, -self.top, self.top + self.side - height)
        part, mask = (F.pad(value, [-side for side in beyond]) for value in (part, mask))
        return torch.where(mask > 0, images + mask * (part - images), images)


def render_pocket(
    source: Tensor,
    proxy: HeadProxy,
    motion,
    model: HeadModel,
    pocket: PocketModel,
    steps: int = 4,
    seed: int = 0,
    side: int = SIDE,
    chunk: int = 4,
    size: tuple[int, int] | None = None,
    person: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """Animates the source picture [3, H, W] or [1, 3, H, W] (0..1) by a motion (HeadMotion or HeadTrack).

    Yields float32 frames [t, H, W, 3] in 0..1, at most `chunk` at a time. The model draws the head at `side` pixels in `steps` steps,
    all frames from the noise of `seed`; `size`, `person` and `progress` as in `render_preview`. Runs on the devices of `model` and
    `pocket`.

    Raises ValueError if the picture has not the size of the proxy's source, for a bad size or side, an empty motion, or parts of
    different head models.
    """
    check_models(model, proxy, motion)
    source = one_source(source, proxy)
    if pocket.config.model_id != model.model_id:
        raise ValueError(
            f"this pocket model was trained for head model {pocket.config.model_id}, but {model.model_id} is loaded; train one for it"
        )
    if len(motion) < 1:
        raise ValueError("the motion has no frames; transfer at least one frame")
    if side < 64 or side % 16:
        raise ValueError(f"the pocket model cannot draw {side} pixels; choose a multiple of 16, at least 64")
    camera = output_camera(proxy.camera, *(size or (None, None)))
    return _render(source, proxy, motion, model, pocket, steps, seed, side, camera, frames_at_once(camera, chunk), person, progress)


def _render(source, proxy, motion, model, pocket, steps, seed, side, camera, chunk, person, progress) -> Iterator[Tensor]:
    cut = Cut.around(proxy.to(model.template.device), motion, model, camera)
    maker = ConditionMaker(source, proxy, model, camera, person)
    where = next(pocket.parameters())
    reference = shrink(cut.of(maker.reference()), (side, side)).to(where)
    noise = one_noise(side, side, seed).to(where)
    for start in range(0, len(motion), chunk):
        seen = maker.frames(motion, start, start + chunk)
        with torch.no_grad():
            yield _draw(seen, cut, pocket, reference, noise, steps).permute(0, 2, 3, 1)
        if progress is not None:
            progress(min(start + chunk, len(motion)), len(motion))


def _draw(seen: Conditions, cut: Cut, pocket: PocketModel, reference: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Frames [t, 3, H, W] of the preview in `seen` with the model's head."""
    frames, side = len(seen.warp), noise.shape[-1]
    control, guide = shrink(cut.of(seen.control), (side, side)).to(noise), cut.of(seen.warp)
    reference, code = reference.expand(frames, -1, -1, -1), seen.code.to(noise)
    clip = frames if pocket.config.temporal else 1
    answer = sample(lambda x, sigma: pocket(x, sigma, control, reference, code, clip), noise.expand(frames, -1, -1, -1), steps)
    result = guided_upsample(((answer + 1) / 2).clamp(0, 1).to(guide), guide)
    return cut.put(seen.warp, result, _mask(cut.of(seen.normals)))


def _mask(normals: Tensor) -> Tensor:
    """Soft mask [t, 1, S, S] of the head and what is around it, zero at the border of the cut."""
    covered = (normals.amax(1, keepdim=True) > 0.1).float()
    rim, feather = (max(1, round(share * covered.shape[-1])) for share in (RIM, FEATHER))
    mask = dilate(covered, rim)
    inner = 2 * feather + 1
    mask = F.pad(mask[..., inner:-inner, inner:-inner], [inner] * 4)
    return box_blur(mask, feather)
