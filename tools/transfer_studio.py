"""What the transfer's bars on real clips share: fitted clips and portraits, and how their pictures are read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from refine_clips import CLIPS
from torch import Tensor
from transfer_measures import Ruler, attenuation, detector_noise, pearson

from expportrait.proxy.build import best_frame, build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmark_points import table_of
from expportrait.proxy.landmarks import Landmarker, load_landmarker
from expportrait.proxy.posing import camera_space
from expportrait.proxy.preview import render_preview
from expportrait.transfer.motion import HeadMotion
from expportrait.transfer.neutral import rest_of
from expportrait.transfer.settings import TransferSettings
from expportrait.transfer.transfer import transfer_motion

PORTRAITS = ("d19", "s0", "s4", "s7", "s9")  # s39 is a cat
FRAMES = 30  # of each clip that are looked at, spread evenly
OPEN = 0.5  # of the median lid opening below which an eye's iris says nothing


@dataclasses.dataclass(frozen=True)
class Performer:
    """A fitted clip, and what the detector reads from some of its frames."""

    name: str
    frames: Frames
    track: HeadTrack
    shown: Tensor  # [N] the frames that are looked at
    measures: dict[str, Tensor]  # [N] each
    used: dict[str, Tensor]  # [N] bool: where a measure says something
    noise: dict[str, float]

    def varies(self, name: str, least: float) -> bool:
        """Whether a perfect result, read with the same noise, would reach that correlation."""
        return float(self.measures[name][self.used[name]].var()) * (1 - least) >= self.noise[name] ** 2

    def correlation(self, name: str, found: dict[str, Tensor]) -> float:
        return pearson(self.measures[name][self.used[name]], found[name][self.used[name]])

    def reachable(self, name: str, found: dict[str, Tensor], noise: dict[str, float]) -> float:
        """The correlation of a perfect result whose readings have that noise with the driver's."""
        used = self.used[name]
        return attenuation(self.measures[name][used], self.noise[name]) * attenuation(found[name][used], noise[name])


@dataclasses.dataclass(frozen=True)
class Target:
    source: Tensor  # [3, H, W]
    proxy: HeadProxy


@dataclasses.dataclass(frozen=True)
class Studio:
    """All that the bars share: the head model, the detector and the fits."""

    data: Path
    model: HeadModel
    landmarker: Landmarker
    ruler: Ruler
    performers: dict[str, Performer]
    targets: dict[str, Target]

    @staticmethod
    def open(data: Path, clips: tuple[str, ...] = CLIPS, portraits: tuple[str, ...] = PORTRAITS) -> Studio:
        """Fits every clip and portrait once."""
        model, landmarker = load_head_model(), load_landmarker()
        studio = Studio(Path(data), model, landmarker, Ruler.of(model), {}, {})
        for name in clips:
            frames = Frames.open(studio.data / "clips" / f"{name}.mp4")
            track = fit_frames(frames, model, landmarker)
            studio.performers[name] = studio._performer(name, frames, track)
            studio.targets[f"clip {name}"] = studio._target(frames, track)
        for name in portraits:
            frames = Frames.open(studio.data / "portraits" / f"{name}.jpg")
            studio.targets[f"portrait {name}"] = studio._target(frames, fit_frames(frames, model, landmarker))
        return studio

    def _performer(self, name: str, frames: Frames, track: HeadTrack) -> Performer:
        shown = torch.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().long()
        pictures = frames.pick(shown.tolist()).permute(0, 2, 3, 1)
        measures = self.read(pictures, track)
        lids = torch.minimum(measures["left lid"], measures["right lid"])
        used = {k: lids > OPEN * lids.median() if k.startswith("gaze") else torch.ones_like(lids, dtype=torch.bool) for k in measures}
        noise = detector_noise(measures, self.read(pictures.flip(2), track), used)
        return Performer(name, frames, track, shown, measures, used, noise)

    def _target(self, frames: Frames, track: HeadTrack) -> Target:
        best = best_frame(track)
        source = frames.frame(best)
        return Target(source, build_proxy(source, track, self.model, best, rest_of(track, self.model).expression))

    def read(self, images: Tensor, of: HeadTrack | HeadProxy) -> dict[str, Tensor]:
        """Measures of pictures [T, H, W, 3] of that camera. At one frame per second the detector smooths nothing over time."""
        return self.ruler.measure(self.landmarker.track(Frames.from_images(images, fps=1.0)).points, of.camera)

    def read_twice(self, images: Tensor, of: HeadTrack | HeadProxy, used: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Measures of pictures [T, H, W, 3], and their noise over the frames `used`."""
        measures = self.read(images, of)
        return measures, detector_noise(measures, self.read(images.flip(2), of), used)

    def read_mesh(self, who: HeadProxy | Tensor, motion, of: HeadTrack | HeadProxy) -> dict[str, Tensor]:
        """The same of a posed mesh, from its own landmarks."""
        points = table_of(self.model).points(camera_space(self.model, who, motion), self.model.faces)
        middle = points[..., 2].mean(1)
        depth = (middle[:, None] - points[..., 2]) * (of.camera.focal / -middle)[:, None]
        return self.ruler.measure(torch.cat([of.camera.project(points), depth[..., None]], 2), of.camera)

    def act(self, performer: Performer, target: Target, settings: TransferSettings = TransferSettings()) -> tuple[HeadMotion, Tensor]:
        """The performance on a target's head: the motion and the pictures [N, H, W, 3] of the shown frames."""
        motion = transfer_motion(target.proxy, performer.track, self.model, settings).select(performer.shown.tolist())
        return motion, torch.cat(list(render_preview(target.source, target.proxy, motion, self.model)))


def cut_out(image: Tensor, proxy: HeadProxy) -> Tensor:
    """The part of a picture [H, W, 3] around the head, in its source picture's framing."""
    x, y, width, height = (round(v) for v in proxy.crop)
    x, y = max(x, 0), max(y, 0)
    return image[y : y + height, x : x + width]
