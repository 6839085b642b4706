"""Bars of the expression transfer on real clips: what the driver does is seen in the result, expression and pose apart, wrinkles.

    python tools/bench_transfer_real.py real|wrinkles [--data ../shared/data] [--sheets FOLDER]

Driver and result are read alike, by the landmark detector from their pictures (tools/transfer_measures.py). Its noise on a clip is
what the same frames mirrored read otherwise. Where a driver's measure varies so little that a perfect result read with that noise
would miss the correlation asked for, there is nothing to correlate: such measures are named with their figures, but not judged.
A result's own pictures are read with noise too: about how far a perfect result could come against both is told with each pair.
It is an estimate: where a mirror changes a reading in step with the expression, results pass it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path

import torch
from bars import bar as _bar
from bench import DATA
from refine_clips import CLIPS, SomeFrames
from torch import Tensor
from transfer_measures import EXPRESSIONS, TURNS, pearson, turns_of
from transfer_studio import PORTRAITS, Performer, Studio, cut_out
from wrinkle_energy import Skin, energy, since

from expportrait.proxy.frames import write_image
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.refine import RefineSettings, refine_head
from expportrait.proxy.render import render_maps
from expportrait.proxy.rotation import to_matrix
from expportrait.proxy.sheet import contact_sheet
from expportrait.transfer.motion import HeadMotion
from expportrait.transfer.neutral import quiet_frames, rest_of
from expportrait.transfer.performance import Driver
from expportrait.transfer.settings import TransferSettings
from expportrait.transfer.transfer import transfer_motion

LEAST = {name: 0.95 if name in ("mouth opening", "left lid", "right lid") else 0.9 for name in EXPRESSIONS}
LEAST_TURN = 0.98
POSE_ALONE = ("clip d0", "clip d18", "clip d20", "portrait s4", "portrait s7", "portrait s9")  # targets
EXPRESSION_ALONE = ("portrait s7", "portrait s9")
SWAY, RHYTHM = (8.0, 12.0, 8.0), (1.0, 2.0, 3.0)  # degrees of pitch, yaw and roll to either side; sways in a clip
SHOWN = 6  # frames of each pair on a sheet
WRINKLED = {"d0": ("clip d18", "portrait s7"), "d18": ("clip d0", "portrait s9"), "d19": ("clip d20", "portrait s4")}
WRINKLE_FRAMES = 60
LEAST_WRINKLES = 0.8
BRIGHT = 5.0  # fine normals on sheets


# What the driver does is seen in the result


def real_bars(data: Path, sheets: Path | None = None) -> list[dict]:
    """Correlations over time between every driver and every target, and expression and pose apart."""
    with torch.inference_mode():
        studio = Studio.open(data)
        bars = [bar for performer in studio.performers.values() for bar in follow_bars(studio, performer, sheets)]
        return bars + apart_bars(studio)


def follow_bars(studio: Studio, performer: Performer, sheets: Path | None = None) -> list[dict]:
    """One bar per measure: the worst correlation over all targets, with where along the way it is lost."""
    track = performer.track.at(performer.shown)
    fitted = studio.read_mesh(track.identity, track, track)
    on_mesh, on_picture, reachable, rows = {}, {}, {}, []
    for name, target in studio.targets.items():
        if name == f"clip {performer.name}":
            continue
        motion, images = studio.act(performer, target)
        on_mesh[name] = studio.read_mesh(target.proxy, motion, target.proxy)
        on_picture[name], noise = studio.read_twice(images, target.proxy, performer.used)
        reachable[name] = {k: performer.reachable(k, on_picture[name], noise) for k in EXPRESSIONS}
        rows.append([cut_out(image, target.proxy) for image in images[_spread(len(images))]])
    if sheets is not None:
        own = performer.frames.pick(performer.shown[_spread(len(performer.shown))].tolist()).permute(0, 2, 3, 1)
        first = [cut_out(image, studio.targets[f"clip {performer.name}"].proxy) for image in own]
        write_image(sheets / f"{performer.name}.png", contact_sheet([first, *rows], height=224))
    return [_follow_bar(performer, name, fitted, on_mesh, on_picture, reachable) for name in EXPRESSIONS]


def _follow_bar(performer: Performer, name: str, fitted: dict, on_mesh: dict, on_picture: dict, reachable: dict) -> dict:
    least, judged = LEAST[name], performer.varies(name, LEAST[name])
    seen = {target: performer.correlation(name, found) for target, found in on_picture.items()}
    posed = torch.tensor([performer.correlation(name, found) for found in on_mesh.values()])
    values = torch.tensor(list(seen.values()))
    most = torch.tensor([found[name] for found in reachable.values()])
    figures = {
        "median": float(values.median()),
        "share of pairs that meet it": float((values >= least).float().mean()),
        "pairs": float(len(values)),
        "driver's deviation": float(performer.measures[name][performer.used[name]].std()),
        "detector's noise": performer.noise[name],
        "on the driver's fit": performer.correlation(name, fitted),
        "on the results' meshes, median": float(posed.median()),
        "on the results' meshes, worst": float(posed.min()),
        "share of pairs whose readings can meet it": float((most >= least).float().mean()),
        **seen,
        **{f"{target}, reachable": found[name] for target, found in reachable.items()},
    }
    title = f"{performer.name} drives: {name}" + ("" if judged else " (hardly varies, not judged)")
    return _bar(title, float(values.min()), "correlation, worst pair", least=least if judged else -1.0, **figures)


def _spread(count: int) -> list[int]:
    return torch.linspace(0, count - 1, SHOWN).round().long().tolist()


# Expression and pose apart


def apart_bars(studio: Studio) -> list[dict]:
    """The source's expression on a head that turns, and the driver's expression on a head that stays still.

    The clips' heads hardly turn, so the pose is that of a clip with a turn put in, which is then known without a detector. What
    should stay still stays so on the mesh by construction. What the detector reads from it, drawn alone, is noise, and so is what
    it reads otherwise from a mirrored clip.
    """
    first = next(iter(studio.performers.values()))
    turner = dataclasses.replace(first, track=turned(first.track))
    still_ones = [(performer, target) for performer in studio.performers.values() for target in EXPRESSION_ALONE]
    bars = [bar for target in POSE_ALONE for bar in pose_alone_bars(studio, turner, target)]
    return bars + [bar for performer, target in still_ones for bar in expression_alone_bars(studio, performer, target)]


def turned(track: HeadTrack) -> HeadTrack:
    """A track whose head sways about all three axes, each at a rhythm of its own."""
    time = torch.linspace(0, 2 * math.pi, len(track))[:, None]
    joints = track.joints.clone()
    joints[:, 1] = 0
    joints[:, 2] = torch.deg2rad(torch.tensor(SWAY)) * torch.sin(time * torch.tensor(RHYTHM))
    return dataclasses.replace(track, joints=joints)


def pose_alone_bars(studio: Studio, turner: Performer, target: str) -> list[dict]:
    motion, images = studio.act(turner, studio.targets[target], TransferSettings(expression_from="source"))
    found, alone = studio.read(images, studio.targets[target].proxy), _read_alone(studio, target, motion)
    root, _, head = to_matrix(turner.track.joints[turner.shown, :3]).unbind(1)
    true = turns_of(root @ head)
    ratios = {name: float(found[name].std()) / _noise(turner, alone, name) for name in EXPRESSIONS}
    seen = {name: pearson(true[name], found[name]) for name in TURNS}
    title = f"a turning head's pose alone on {target}"
    return [
        _bar(f"{title}: deviation of the face's measures", max(ratios.values()), "of the noise, largest", most=1.0, **ratios),
        _bar(f"{title}: turns", min(seen.values()), "correlation, worst", least=LEAST_TURN, **seen),
    ]


def expression_alone_bars(studio: Studio, performer: Performer, target: str) -> list[dict]:
    motion, images = studio.act(performer, studio.targets[target], TransferSettings(pose_from="source"))
    found, alone = studio.read(images, studio.targets[target].proxy), _read_alone(studio, target, motion)
    ratios = {name: float(found[name].std()) / _noise(performer, alone, name) for name in TURNS}
    seen = {name: performer.correlation(name, found) for name in EXPRESSIONS if performer.varies(name, LEAST[name])}
    beyond = [value - LEAST[name] for name, value in seen.items()]
    title = f"{performer.name}'s expression alone on {target}"
    return [
        _bar(f"{title}: deviation of the head's turns", max(ratios.values()), "of the noise, largest", most=1.0, **ratios),
        _bar(f"{title}: measures", min(beyond, default=0.0), "correlation beyond what is asked, worst", least=0.0, **seen),
    ]


def _noise(performer: Performer, alone: dict[str, Tensor], name: str) -> float:
    """Of a measure: what moves with the head or the face though it should not, and the error of one reading of a film."""
    return (float(alone[name].var()) + performer.noise[name] ** 2) ** 0.5


def _read_alone(studio: Studio, target: str, motion: HeadMotion) -> dict[str, Tensor]:
    """Measures of a target's mesh with its texture, drawn without the picture around it."""
    proxy = studio.targets[target].proxy
    drawn = torch.cat([part["textured"] for part in render_maps(proxy, motion, studio.model, ("textured",))])
    return studio.read(drawn, proxy)


# Wrinkles


def wrinkle_bars(data: Path, sheets: Path | None = None) -> list[dict]:
    """Energy of fine normals over time, of the driver's refined head and of the result, both heads still.

    The expression alone already bends skin in step with the driver's wrinkles. So what wrinkles add to it is compared too.
    """
    with torch.inference_mode():
        clips = tuple(name for name in CLIPS if name in WRINKLED or any(f"clip {name}" in to for to in WRINKLED.values()))
        portraits = tuple(name for name in PORTRAITS if any(f"portrait {name}" in to for to in WRINKLED.values()))
        studio = Studio.open(data, clips, portraits)
        return [bar for name, to in WRINKLED.items() for bar in _wrinkle_bars(studio, studio.performers[name], to, sheets)]


def _wrinkle_bars(studio: Studio, performer: Performer, targets: tuple[str, ...], sheets: Path | None) -> list[dict]:
    model, count = studio.model, len(performer.frames)
    index = torch.linspace(0, count - 1, min(WRINKLE_FRAMES, count)).round().long()
    track = dataclasses.replace(performer.track.at(index), fps=performer.track.fps * len(index) / count)
    neutral = rest_of(track, model).expression
    refined = refine_head(
        SomeFrames(performer.frames, index), track, model, RefineSettings.of("standard"), neutral=neutral
    ).proxy
    calm = quiet_frames(track, model)
    at_rest = refined.detail[calm].median(0).values.expand_as(refined.detail)
    own_skin = Skin(refined, model)
    own, own_bare = (own_skin.fine_normals(still(refined, track, detail)) for detail in (refined.detail, at_rest))
    bars = []
    for name in targets:
        skin, settings = Skin(studio.targets[name].proxy, model), TransferSettings(pose_from="source", detail=1.0)
        motion = transfer_motion(skin.proxy, track, model, settings)
        plain = dataclasses.replace(motion, detail=None, detail_id=None, detail_basis=None)
        performed = transfer_motion(skin.proxy, Driver(track, proxy=refined), model, settings)
        wrinkled, predicted, bare = (skin.fine_normals(each) for each in (performed, motion, plain))
        title = f"{performer.name}'s wrinkles on {name}: energy of fine normals over time"
        bars.append(_wrinkle_bar(title, calm, own, own_bare, wrinkled, predicted, bare))
        if sheets is not None:
            picked = [*_spread(len(track))[:-1], int(energy(own - own_bare).argmax())]
            drawn = [(own_skin, own), (own_skin, own_bare), (skin, wrinkled), (skin, predicted), (skin, bare)]
            rows = [[where.picture(BRIGHT * part[k].abs()) for k in picked] for where, part in drawn]
            write_image(sheets / f"wrinkles_{performer.name}_{name.split()[1]}.png", contact_sheet(rows, height=224))
    return bars


def _wrinkle_bar(
    title: str,
    calm: Tensor,
    own: Tensor,
    own_bare: Tensor,
    wrinkled: Tensor,
    predicted: Tensor,
    bare: Tensor,
) -> dict:
    """The driver with its wrinkles and with those of its rest; the result with the driver's, with predicted ones, and with none."""
    performed, change, added = energy(own), energy(since(own, calm)), energy(own - own_bare)
    figures = {
        "with predicted detail instead": pearson(performed, energy(predicted)),
        "with the expression alone": pearson(performed, energy(bare)),
        "change since rest": pearson(change, energy(since(wrinkled, calm))),
        "change since rest by expression alone": pearson(change, energy(since(bare, calm))),
        "what wrinkles add to the expression": pearson(added, energy(wrinkled - bare)),
        "energy that they add, result over driver": float(energy(wrinkled - bare).mean() / added.mean()),
        "energy that predicted detail adds": float(energy(predicted - bare).mean() / added.mean()),
        "energy of the driver's change, 1/1000": 1000 * float(change.mean()),
        "of the result's": 1000 * float(energy(since(wrinkled, calm)).mean()),
        "of the result's by expression alone": 1000 * float(energy(since(bare, calm)).mean()),
    }
    return _bar(title, pearson(performed, energy(wrinkled)), "correlation", least=LEAST_WRINKLES, **figures)


def still(proxy: HeadProxy, track: HeadTrack, detail: Tensor) -> HeadMotion:
    """A performer's own expression and detail [T, K], the head as in its source picture."""
    joints = track.joints.clone()
    joints[:, :3] = proxy.source_joints[:3]
    place = proxy.source_translation.repeat(len(track), 1)
    return HeadMotion(track.model_id, track.expression, joints, place, track.valid, track.fps, detail, proxy.detail_id)


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
