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
from .conditions import ConditionMaker
from .flow import one_noise, sample
from .model import PocketConfig, PocketModel
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


class HeadClip:
    """A source picture and a motion as a pocket model is shown them: the head's surroundings in all frames, at the model's size."""

    def __init__(
        self,
        source: Tensor,
        proxy: HeadProxy,
        motion,
        model: HeadModel,
        side: int = SIDE,
        size: tuple[int, int] | None = None,
        person: Tensor | None = None,
    ):
        """`source` [3, H, W] or [1, 3, H, W] in 0..1; `size` and `person` as in `render_preview`. Runs on the device of `model`.

        Raises ValueError if the picture has not the size of the proxy's source, for a bad size or side, an empty motion, or parts of
        different head models.
        """
        check_models(model, proxy, motion)
        source = one_source(source, proxy)
        if len(motion) < 1:
            raise ValueError("the motion has no frames; transfer at least one frame")
        if side < 64 or side % 16:
            raise ValueError(f"the pocket model cannot draw {side} pixels; choose a multiple of 16, at least 64")
        self.motion, self.side = motion, side
        self.camera = output_camera(proxy.camera, *(size or (None, None)))
        self.cut = Cut.around(proxy.to(model.template.device), motion, model, self.camera)
        self._maker = ConditionMaker(source, proxy, model, self.camera, person)

    def __len__(self) -> int:
        return len(self.motion)

    def reference(self) -> Tensor:
        """The source picture with the maps of its own pose, [1, REFERENCE, side, side]."""
        return shrink(self.cut.of(self._maker.reference()), (self.side, self.side))

    def frames(self, start: int, stop: int) -> HeadFrames:
        """Frames start..stop."""
        seen = self._maker.frames(self.motion, start, stop)
        control = shrink(self.cut.of(seen.control), (self.side, self.side))
        covered = self.cut.of(seen.head) > 0.5
        return HeadFrames(control, seen.code, seen.warp, covered)

    def chunks(self, chunk: int) -> Iterator[HeadFrames]:
        """All frames, at most `chunk` at a time, fewer for large pictures."""
        chunk = frames_at_once(self.camera, chunk)
        for start in range(0, len(self), chunk):
            yield self.frames(start, start + chunk)


@dataclasses.dataclass(frozen=True)
class HeadFrames:
    """Of t frames, what the model is shown and what its answer goes into."""

    control: Tensor  # [t, CONTROL, side, side] 0..1
    code: Tensor  # [t, K]
    preview: Tensor  # [t, 3, H, W] 0..1, the whole picture
    covered: Tensor  # [t, 1, S, S] boolean, where the head is in the cut


def paste_heads(heads: Tensor, preview: Tensor, covered: Tensor, cut: Cut) -> Tensor:
    """Frames [t, 3, H, W] of the preview with heads [t, 3, side, side] in -1..1 in their place; the others as in `HeadFrames`."""
    guide = cut.of(preview)
    result = guided_upsample(((heads + 1) / 2).clamp(0, 1).to(guide), guide)
    return cut.put(preview, result, _mask(covered))


def check_head(config: PocketConfig, model_id: str) -> None:
    """Raises ValueError if a pocket model was trained for another head model."""
    if config.model_id != model_id:
        raise ValueError(f"this pocket model was trained for head model {config.model_id}, but {model_id} is loaded; train one for it")


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
    check_head(pocket.config, model.model_id)
    return _render(HeadClip(source, proxy, motion, model, side, size, person), pocket, steps, seed, chunk, progress)


def _render(clip: HeadClip, pocket: PocketModel, steps: int, seed: int, chunk: int, progress) -> Iterator[Tensor]:
    where, done = next(pocket.parameters()), 0
    reference, noise = clip.reference().to(where), one_noise(clip.side, clip.side, seed).to(where)
    for seen in clip.chunks(chunk):
        with torch.no_grad():
            yield paste_heads(_draw(seen, pocket, reference, noise, steps), seen.preview, seen.covered, clip.cut).permute(0, 2, 3, 1)
        done += len(seen.code)
        if progress is not None:
            progress(done, len(clip))


def _draw(seen: HeadFrames, pocket: PocketModel, reference: Tensor, noise: Tensor, steps: int) -> Tensor:
    """Heads [t, 3, side, side] in -1..1."""
    frames = len(seen.code)
    control, code, reference = seen.control.to(noise), seen.code.to(noise), reference.expand(frames, -1, -1, -1)
    together = frames if pocket.config.temporal else 1
    return sample(lambda x, sigma: pocket(x, sigma, control, reference, code, together), noise.expand(frames, -1, -1, -1), steps)


def _mask(covered: Tensor) -> Tensor:
    """Soft mask [t, 1, S, S] of the head and what is around it, zero at the border of the cut."""
    rim, feather = (max(1, round(share * covered.shape[-1])) for share in (RIM, FEATHER))
    mask = dilate(covered.float(), rim)
    inner = 2 * feather + 1
    mask = F.pad(mask[..., inner:-inner, inner:-inner], [inner] * 4)
    return box_blur(mask, feather)
