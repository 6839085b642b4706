"""Bars of the expression transfer on real clips: what the driver does is seen in the result, expression and pose apart, wrinkles.

    python tools/bench_transfer_real.py real|wrinkles [--data ../shared/data] [--sheets FOLDER]

Driver and result are read alike, by the landmark detector from their pictures (tools/transfer_measures.py). Its noise on a clip is
what the same frames mirrored read otherwise. Where a driver's measure varies so little that a perfect result read with that noise
would miss the correlation asked for, there is nothing to correlate: such measures are named with their figures, but not judged.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch
from bench import DATA
from refine_clips import CLIPS, SomeFrames
from torch import Tensor
from transfer_measures import EXPRESSIONS, TURNS, Ruler, detector_noise, pearson
from wrinkle_energy import FineNormals, Skin

from expportrait.proxy.build import best_frame, build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames, write_image
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmark_points import table_of
from expportrait.proxy.landmarks import Landmarker, load_landmarker
from expportrait.proxy.posing import camera_space
from expportrait.proxy.preview import render_preview
from expportrait.proxy.refine import RefineSettings, refine_head
from expportrait.proxy.render import render_maps
from expportrait.proxy.sheet import contact_sheet
from expportrait.transfer.motion import HeadMotion
from expportrait.transfer.neutral import rest_of
from expportrait.transfer.performance import Driver
from expportrait.transfer.settings import TransferSettings
from expportrait.transfer.transfer import transfer_motion

PORTRAITS = ("d19", "s0", "s4", "s7", "s9")  # s39 is a cat
FRAMES = 30  # of each clip that are looked at, spread evenly
LEAST = {name: 0.95 if name in ("mouth opening", "left lid", "right lid") else 0.9 for name in EXPRESSIONS}
LEAST_TURN = 0.98
OPEN = 0.5  # of the median lid opening below which an eye's iris says nothing
APART = ("portrait s7", "portrait s9")  # targets, beside one clip, on which expression and pose are taken apart
SHOWN = 6  # frames of each pair on a sheet
WRINKLED = {"d0": ("clip d18", "portrait s7"), "d18": ("clip d0", "portrait s9"), "d19": ("clip d20", "portrait s4")}
WRINKLE_FRAMES = 60
LEAST_WRINKLES = 0.8


def _bar(name: str, value: float, unit: str, most: float | None = None, least: float | None = None, **figures: float) -> dict:
    ok = value <= most if least is None else value >= least
    bound = f"<= {most:g}" if least is None else f">= {least:g}"
    rounded = {key: round(figure, 3) for key, figure in figures.items()}
    return {"name": name, "value": round(value, 3), "unit": unit, "bound": bound, "ok": ok, "figures": rounded}


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
        measures, mirrored = (self.read(images, track) for images in (pictures, pictures.flip(2)))
        lids = torch.minimum(measures["left lid"], measures["right lid"])
        used = {k: lids > OPEN * lids.median() if k.startswith("gaze") else torch.ones_like(lids, dtype=torch.bool) for k in measures}
        return Performer(name, frames, track, shown, measures, used, detector_noise(measures, mirrored, used))

    def _target(self, frames: Frames, track: HeadTrack) -> Target:
        best = best_frame(track)
        source = frames.frame(best)
        return Target(source, build_proxy(source, track, self.model, best, rest_of(track, self.model).expression))

    def read(self, images: Tensor, of: HeadTrack | HeadProxy) -> dict[str, Tensor]:
        """Measures of pictures [T, H, W, 3] of that camera. At one frame per second the detector smooths nothing over time."""
        return self.ruler.measure(self.landmarker.track(Frames.from_images(images, fps=1.0)).points, of.camera)

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


# What the driver does is seen in the result


def real_bars(data: Path, sheets: Path | None = None) -> list[dict]:
    """Correlations over time between every driver and every target, and expression and pose apart."""
    with torch.inference_mode():
        studio = Studio.open(data)
        bars = [bar for performer in studio.performers.values() for bar in follow_bars(studio, performer, sheets)]
        return bars + [bar for performer in studio.performers.values() for bar in apart_bars(studio, performer)]


def follow_bars(studio: Studio, performer: Performer, sheets: Path | None = None) -> list[dict]:
    """One bar per measure: the worst correlation over all targets, with where along the way it is lost."""
    track = performer.track.at(performer.shown)
    fitted = studio.read_mesh(track.identity, track, track)
    on_mesh, on_picture, rows = {}, {}, []
    for name, target in studio.targets.items():
        if name == f"clip {performer.name}":
            continue
        motion, images = studio.act(performer, target)
        on_mesh[name] = studio.read_mesh(target.proxy, motion, target.proxy)
        on_picture[name] = studio.read(images, target.proxy)
        rows.append([cut_out(image, target.proxy) for image in images[_spread(len(images))]])
    if sheets is not None:
        own = performer.frames.pick(performer.shown[_spread(len(performer.shown))].tolist()).permute(0, 2, 3, 1)
        first = [cut_out(image, studio.targets[f"clip {performer.name}"].proxy) for image in own]
        write_image(sheets / f"{performer.name}.png", contact_sheet([first, *rows], height=224))
    return [_follow_bar(performer, name, fitted, on_mesh, on_picture) for name in EXPRESSIONS]


def _follow_bar(performer: Performer, name: str, fitted: dict, on_mesh: dict, on_picture: dict) -> dict:
    least, judged = LEAST[name], performer.varies(name, LEAST[name])
    seen = {target: performer.correlation(name, found) for target, found in on_picture.items()}
    posed = torch.tensor([performer.correlation(name, found) for found in on_mesh.values()])
    values = torch.tensor(list(seen.values()))
    figures = {
        "median": float(values.median()),
        "share of pairs that meet it": float((values >= least).float().mean()),
        "pairs": float(len(values)),
        "driver's deviation": float(performer.measures[name][performer.used[name]].std()),
        "detector's noise": performer.noise[name],
        "on the driver's fit": performer.correlation(name, fitted),
        "on the results' meshes, median": float(posed.median()),
        "on the results' meshes, worst": float(posed.min()),
        **seen,
    }
    title = f"{performer.name} drives: {name}" + ("" if judged else " (hardly varies, not judged)")
    return _bar(title, float(values.min()), "correlation, worst pair", least=least if judged else -1.0, **figures)


def _spread(count: int) -> list[int]:
    return torch.linspace(0, count - 1, SHOWN).round().long().tolist()


def cut_out(image: Tensor, proxy: HeadProxy) -> Tensor:
    """The part of a picture [H, W, 3] around the head, in its source picture's framing."""
    x, y, width, height = (round(v) for v in proxy.crop)
    x, y = max(x, 0), max(y, 0)
    return image[y : y + height, x : x + width]


# Expression and pose apart


def apart_bars(studio: Studio, performer: Performer) -> list[dict]:
    """The source's expression in the driver's pose, and the driver's expression in the source's pose."""
    names = list(studio.performers)
    beside = f"clip {names[(names.index(performer.name) + 1) % len(names)]}"
    bars = []
    for name in (beside, *APART):
        target = studio.targets[name]
        motion, images = studio.act(performer, target, TransferSettings(expression_from="source"))
        found = studio.read(images, target.proxy)
        rigid = torch.cat([part["textured"] for part in render_maps(target.proxy, motion, studio.model, ("textured",))])
        bars += _still_face(performer, name, found, studio.read(rigid, target.proxy))
        _, images = studio.act(performer, target, TransferSettings(pose_from="source"))
        bars += _still_head(performer, name, studio.read(images, target.proxy))
    return bars


def _still_face(performer: Performer, target: str, found: dict[str, Tensor], rigid: dict[str, Tensor]) -> list[dict]:
    """Nothing but the head moves. The noise is what the detector reads from a rigid head, drawn from its mesh in the same poses."""
    ratios = {}
    for name in EXPRESSIONS:
        noise = (float(rigid[name].var()) + performer.noise[name] ** 2) ** 0.5
        ratios[name] = float(found[name].std()) / noise
    title = f"{performer.name}'s pose alone on {target}"
    bars = [_bar(f"{title}: deviation of the face's measures", max(ratios.values()), "of the noise, largest", most=1.0, **ratios)]
    return bars + _turn_bars(title, performer, found)


def _turn_bars(title: str, performer: Performer, found: dict[str, Tensor]) -> list[dict]:
    turns = [name for name in TURNS if performer.varies(name, LEAST_TURN)]
    seen = {name: performer.correlation(name, found) for name in TURNS}
    judged = f": {', '.join(turns)}" if turns else ": turns (hardly vary, not judged)"
    value, least = (min(seen[name] for name in turns), LEAST_TURN) if turns else (min(seen.values()), -1.0)
    return [_bar(f"{title}{judged}", value, "correlation, worst", least=least, **seen)]


def _still_head(performer: Performer, target: str, found: dict[str, Tensor]) -> list[dict]:
    """Nothing but the face moves. The noise of a turn is that of two readings of the same frames."""
    title = f"{performer.name}'s expression alone on {target}"
    ratios = {name: float(found[name].std()) / performer.noise[name] for name in TURNS}
    judged = [name for name in EXPRESSIONS if performer.varies(name, LEAST[name])]
    seen = {name: performer.correlation(name, found) for name in judged}
    missed = {name: value - LEAST[name] for name, value in seen.items()}
    return [
        _bar(f"{title}: deviation of the head's turns", max(ratios.values()), "of the noise, largest", most=1.0, **ratios),
        _bar(f"{title}: measures against what is asked of each", min(missed.values()), "correlation beyond, worst", least=0.0, **seen),
    ]


# Wrinkles


def wrinkle_bars(data: Path, sheets: Path | None = None) -> list[dict]:
    """Energy of fine normals over time, of the driver's refined head and of the result, both with a head that stays still."""
    with torch.inference_mode():
        clips = tuple(name for name in CLIPS if name in WRINKLED or any(f"clip {name}" in to for to in WRINKLED.values()))
        portraits = tuple(name for name in PORTRAITS if any(f"portrait {name}" in to for to in WRINKLED.values()))
        studio = Studio.open(data, clips, portraits)
        return [bar for name in WRINKLED for bar in _wrinkle_bars(studio, studio.performers[name], sheets)]


def _wrinkle_bars(studio: Studio, performer: Performer, sheets: Path | None) -> list[dict]:
    model, count = studio.model, len(performer.frames)
    index = torch.linspace(0, count - 1, min(WRINKLE_FRAMES, count)).round().long().unique()
    track = dataclasses.replace(performer.track.at(index), fps=performer.track.fps * len(index) / count)
    refined = refine_head(
        SomeFrames(performer.frames, index), track, model, RefineSettings.of("standard"), neutral=rest_of(track, model).expression
    ).proxy
    own = _fine(refined, still(refined, track, refined.detail), model)
    own_plain = _fine(refined, still(refined, track, 0 * refined.detail), model)
    bars = []
    for name in WRINKLED[performer.name]:
        proxy = studio.targets[name].proxy
        settings = TransferSettings(pose_from="source", detail=1.0)
        wrinkled = _fine(proxy, transfer_motion(proxy, Driver(track, proxy=refined), model, settings), model)
        plain = _fine(proxy, transfer_motion(proxy, track, model, settings), model)
        figures = {
            "without the performer's wrinkles": pearson(own.energy, plain.energy),
            "of what the wrinkles add": pearson((own - own_plain).energy, (wrinkled - plain).energy),
            "energy swing of the driver": _swing(own.energy),
            "of the driver without wrinkles": _swing(own_plain.energy),
            "of the result": _swing(wrinkled.energy),
            "of the result without wrinkles": _swing(plain.energy),
            "energy that wrinkles add, result over driver": float((wrinkled - plain).energy.mean() / (own - own_plain).energy.mean()),
        }
        value = pearson(own.energy, wrinkled.energy)
        title = f"{performer.name}'s wrinkles on {name}: fine normals over time"
        bars.append(_bar(title, value, "correlation", least=LEAST_WRINKLES, **figures))
        if sheets is not None:
            strongest = (own - own_plain).energy.argsort(descending=True)[:1].item()
            picked = _spread(len(track))[:-1] + [strongest]
            rows = [[5 * part.normals[k].abs() for k in picked] for part in (own, wrinkled, plain)]
            write_image(sheets / f"wrinkles_{performer.name}_{name.split()[1]}.png", contact_sheet(rows, height=260))
    return bars


def still(proxy: HeadProxy, track: HeadTrack, detail: Tensor) -> HeadMotion:
    """A performer's own expression and detail [T, K], the head as in its source picture."""
    joints = track.joints.clone()
    joints[:, :3] = proxy.source_joints[:3]
    place = proxy.source_translation.repeat(len(track), 1)
    return HeadMotion(track.model_id, track.expression, joints, place, track.valid, track.fps, detail, proxy.detail_id)


def _fine(proxy: HeadProxy, motion: HeadMotion, model: HeadModel) -> FineNormals:
    return Skin(proxy, model).fine_normals(motion)


def _swing(series: Tensor) -> float:
    """Deviation over time in 1/1000, of squared unit normals."""
    return 1000 * float(series.std())


PARTS = {"real": real_bars, "wrinkles": wrinkle_bars}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with clips/ and portraits/")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of driver and results")
    options = parser.parse_args()
    if options.sheets is not None:
        options.sheets.mkdir(parents=True, exist_ok=True)
    print(json.dumps(PARTS[options.part](options.data, options.sheets), indent=1))


if __name__ == "__main__":
    main()
