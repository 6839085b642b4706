"""Bars of the expression transfer: identity, synthetic pairs of known geometry, contact, speed; real clips and wrinkles apart.

    python tools/bench_transfer.py identity|synthetic|contact|speed|real|wrinkles [--data ../shared/data]

Real clips and wrinkles: tools/bench_transfer_real.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import time
from pathlib import Path

import torch
from bars import bar
from bench import DATA
from bench_transfer_real import real_bars, wrinkle_bars
from measure_contact import lid_gap, lip_gap, pierced
from synthetic_head import waves
from torch import Tensor
from transfer_pairs import Pair, known_pairs

from expportrait.proxy.build import source_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import JOINTS, HeadModel, load_head_model
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.posing import camera_space
from expportrait.proxy.refine import RefineSettings, refine_head
from expportrait.transfer.motion import HeadMotion
from expportrait.transfer.neutral import Rest, rest_of
from expportrait.transfer.performance import Driver
from expportrait.transfer.settings import TransferSettings
from expportrait.transfer.transfer import transfer_motion

LEAST_GAIN = 0.75  # of the coefficient copy's error
MOST_LID_GAP, MOST_LIP_GAP, SHARE = 0.3, 0.5, 0.95  # millimetres, and share of the pairs
PAIRS, IDENTITY_SIGMA = 200, 0.8
LEAST_RATE = 200.0  # frames per second on two cores
LEFT_OPEN, PARTED = 0.25, 0.03  # of a blink and of jawOpen: what a fit may leave
RELIEF = 0.0007  # metres RMS of a target's displacement along each axis
IDENTITIES = 12  # drivers that the identity bar tries
SPEED_FRAMES, CHUNK = 1000, 32
JAW, EYES = JOINTS.index("jaw"), tuple(JOINTS.index(name) for name in ("left_eye", "right_eye"))


def transfer_bars(data: Path) -> list[dict]:
    """Bars as {name, value, unit, bound, ok, figures}, from the shared data's folder."""
    return [bar for part in PARTS.values() for bar in part(Path(data))]


# Identity


def identity_bars(data: Path) -> list[dict]:
    """Shape, static displacement and albedo of the target after transfer from random drivers, against what they were."""
    model, generator = load_head_model(), torch.Generator().manual_seed(1)
    proxy = _random_proxy(model, generator)
    proxy = dataclasses.replace(proxy, displacement=1e-3 * torch.randn(model.vertex_count, 3, generator=generator))
    kept = {name: getattr(proxy, name).clone() for name in ("identity", "displacement", "albedo", "neutral")}
    changed = 0
    for _ in range(IDENTITIES):
        driver = _random_track(model, generator)
        stranger = dataclasses.replace(driver, identity=torch.randn(driver.identity.shape, generator=generator), focal=400.0)
        first, second = (transfer_motion(proxy, who, model) for who in (driver, stranger))
        same = all(torch.equal(getattr(proxy, name), value) for name, value in kept.items())
        same &= all(torch.equal(getattr(first, n), getattr(second, n)) for n in ("expression", "joints", "translation"))
        changed += not same
    return [bar("identity: drivers that changed shape, static displacement, albedo or parameters", changed, f"of {IDENTITIES}", most=0)]


def _random_proxy(model: HeadModel, generator: torch.Generator) -> HeadProxy:
    track = _random_track(model, generator)
    still = dataclasses.replace(track.at(torch.tensor([0])), expression=torch.zeros(1, len(model.expression_names)))
    still = dataclasses.replace(still, joints=torch.zeros_like(still.joints))
    return source_proxy(still, model, 0, torch.zeros(len(model.expression_names)))


def _random_track(model: HeadModel, generator: torch.Generator, frames: int = 10) -> HeadTrack:
    count = len(model.expression_names)
    acted = torch.rand(1, count, generator=generator) * (torch.rand(1, count, generator=generator) < 0.2)
    joints = 0.1 * torch.randn(frames, len(JOINTS), 3, generator=generator)
    return HeadTrack(
        model_id=model.model_id,
        identity=IDENTITY_SIGMA * torch.randn(model.identity_basis.shape[0], generator=generator),
        expression=acted * torch.linspace(0, 1, frames)[:, None],
        joints=joints * (torch.arange(len(JOINTS)) > 0)[:, None],
        translation=torch.tensor([0.0, -0.75, -1.0]).repeat(frames, 1),
        focal=900.0,
        width=512,
        height=512,
        fps=25.0,
        valid=torch.ones(frames, dtype=torch.bool),
        confidence=torch.ones(frames),
        landmarks=torch.zeros(frames, 478, 2),
        landmarks_fit=torch.zeros(frames, 478, 2),
    )


# Synthetic pairs of known geometry


def synthetic_bars(data: Path) -> list[dict]:
    model, landmarker = load_head_model(), load_landmarker()
    rows = [_pair_errors(pair, model) for _, pair in known_pairs(data, model, landmarker)]
    bars = []
    for rival in ("copy", "offset copy"):
        ratios = [row["transfer"][1] / row[rival][1] for row in rows]
        totals = [row["transfer"][0] / row[rival][0] for row in rows]
        figures = {f"pair {k}": ratio for k, ratio in enumerate(ratios)}
        most = LEAST_GAIN if rival == "copy" else 1.0
        name = f"synthetic pairs: error of the movement over that of {'coefficient' if rival == 'copy' else 'offset'} copy"
        bars.append(bar(name, sum(ratios) / len(ratios), "ratio", most=most, with_static_error=sum(totals) / len(totals), **figures))
    for name in ("still", "copy", "offset copy", "transfer", "with the performer's wrinkles"):
        for kind, part in (("points", 0), ("movement", 1)):
            bars[0]["figures"][f"{name}, {kind}, mm"] = round(sum(row[name][part] for row in rows) / len(rows), 3)
    return bars


def _pair_errors(pair: Pair, model: HeadModel) -> dict[str, tuple[float, float]]:
    """Errors of the points and of their movement, millimetres, for each way to carry the expression over."""
    settings = TransferSettings(pose_from="source")
    moved = transfer_motion(pair.target, pair.track, model, settings)
    performer = refine_head(
        pair.clip.frames, pair.track, model, RefineSettings.of("standard"), neutral=rest_of(pair.track, model).expression
    ).proxy
    wrinkled = transfer_motion(pair.target, Driver(pair.track, proxy=performer), model, settings)
    copied = coefficient_copy(pair.target, pair.track)
    offsets = dataclasses.replace(
        copied, detail=performer.detail, detail_basis=performer.detail_basis, detail_id=pair.target.detail_id
    )
    still = dataclasses.replace(
        copied,
        expression=pair.target.source_expression.expand_as(copied.expression),
        joints=pair.target.source_joints.expand_as(copied.joints),
    )
    ways = {"still": still, "copy": copied, "offset copy": offsets, "transfer": moved, "with the performer's wrinkles": wrinkled}
    return {name: pair.errors(model, motion) for name, motion in ways.items()}


def coefficient_copy(target: HeadProxy, driver: HeadTrack) -> HeadMotion:
    """What transfer is to be better than: the driver's expression, jaw and gaze as they are, the head as in the source."""
    joints = target.source_joints.repeat(len(driver), 1, 1)
    for joint in (JAW, *EYES):
        joints[:, joint] = driver.joints[:, joint]
    place = target.source_translation.repeat(len(driver), 1)
    return HeadMotion(driver.model_id, driver.expression, joints, place, driver.valid, driver.fps)


# Contact


def contact_bars(data: Path) -> list[dict]:
    """Gaps by rendering, over random pairs of persons: a blink as fits see it, up to a quarter open, and lips that are sealed on the
    driver's own head. The targets' skin is displaced, as a refinement does it."""
    model, generator = load_head_model(), torch.Generator().manual_seed(2)
    lids, lips, teeth, before_lids, before_lips, before_teeth = ([] for _ in range(6))
    for _ in range(PAIRS):
        proxy, driver = _displaced(_random_proxy(model, generator), model, generator), _sealed_track(model, generator)
        rest = Rest(driver.expression[0], driver.joints[0], driver.translation[0])
        for contact, (lid, lip, tooth) in ((True, (lids, lips, teeth)), (False, (before_lids, before_lips, before_teeth))):
            settings = TransferSettings(pose_from="none", contact=contact)
            motion = transfer_motion(proxy, Driver(driver, rest), model, settings)
            heads = camera_space(model, proxy, dataclasses.replace(motion, translation=torch.zeros_like(motion.translation)))
            lid.append(1e3 * lid_gap(model, heads[1:2])[0].amax())
            lip.append(1e3 * lip_gap(model, heads[2:]).amax())
            tooth.append(pierced(model, heads[2:]).amax())
    bars = []
    for name, found, before, most, unit in (
        ("lid gap of a driver's blink", lids, before_lids, MOST_LID_GAP, "mm"),
        ("lip gap of a driver's sealed lips", lips, before_lips, MOST_LIP_GAP, "mm"),
    ):
        values, free = torch.stack(found), torch.stack(before)
        share = float((values <= most).float().mean())
        figures = {f"median, {unit}": float(values.median()), f"largest, {unit}": float(values.max())}
        figures |= {"share without contact": float((free <= most).float().mean()), "median without, mm": float(free.median())}
        bars.append(bar(f"{name}: pairs with at most {most} {unit}", share, f"of {PAIRS} pairs", least=SHARE, **figures))
    shown, free = (1e3 * torch.stack(values) for values in (teeth, before_teeth))
    bars[1]["figures"] |= {
        "teeth through lips, 1/1000 of the lips": round(float(shown.mean()), 3),
        "the same without contact": round(float(free.mean()), 3),
    }
    return bars


def _displaced(proxy: HeadProxy, model: HeadModel, generator: torch.Generator) -> HeadProxy:
    """A proxy whose face is displaced smoothly, as a refinement's static field does it."""
    rest = model.canonical(proxy.identity[None], proxy.neutral[None])[0]
    shift = torch.stack([RELIEF * waves(rest, (0.04, 0.12), generator) for _ in range(3)], dim=1)
    return dataclasses.replace(proxy, displacement=shift * model.regions["face"][:, None])


def _sealed_track(model: HeadModel, generator: torch.Generator) -> HeadTrack:
    """The next random driver whose lips are sealed as a camera sees them."""
    while True:
        track = _closing_track(model, generator)
        head = model.forward(track.identity[None], track.expression[2:], track.joints[2:])
        if 1e3 * float(lip_gap(model, head)) <= MOST_LIP_GAP:
            return track


def _closing_track(model: HeadModel, generator: torch.Generator) -> HeadTrack:
    """A random person at rest, blinking, and with lips that one of several expressions seals."""
    track = _random_track(model, generator, frames=3)
    expression = torch.zeros_like(track.expression)
    names = list(model.expression_names)

    def act(frame: int, **amounts: float) -> None:
        for name, amount in amounts.items():
            expression[frame, names.index(name)] = amount

    blink = 1 - LEFT_OPEN * float(torch.rand(1, generator=generator))
    act(1, eyeBlinkLeft=blink, eyeBlinkRight=blink, mouthSmileLeft=0.5, mouthSmileRight=0.5)
    kinds = (
        {},
        {"mouthPressLeft": 0.6, "mouthPressRight": 0.6},
        {"mouthPucker": 0.8},
        {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7},
        {"mouthRollLower": 0.4, "mouthRollUpper": 0.4},
        {"mouthFrownLeft": 0.7, "mouthFrownRight": 0.7},
    )
    act(2, **kinds[int(torch.randint(len(kinds), (1,), generator=generator))])
    act(2, jawOpen=PARTED * float(torch.rand(1, generator=generator)))
    return dataclasses.replace(track, expression=expression, joints=torch.zeros_like(track.joints))


# Speed


def speed_bars(data: Path) -> list[dict]:
    """Frames per second of a transfer and of its dense displacements, and memory for a clip ten times as long."""
    model, clip = load_head_model(), Path(data) / "clips" / "d0.mp4"
    track = fit_frames(Frames.open(clip), model, load_landmarker())
    driver = track.at(torch.arange(SPEED_FRAMES) % len(track))
    proxy = _random_proxy(model, torch.Generator().manual_seed(3))
    transfer_motion(proxy, track, model)  # rims and network are found and loaded once
    start = time.perf_counter()
    motion = transfer_motion(proxy, driver, model)
    parameters = time.perf_counter() - start
    start = time.perf_counter()
    _dense(proxy, motion)
    dense = time.perf_counter() - start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    long = transfer_motion(proxy, driver.at(torch.arange(10 * SPEED_FRAMES) % SPEED_FRAMES), model)
    _dense(proxy, long)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    own = sum(value.nbytes for value in vars(long).values() if isinstance(value, Tensor)) / 2**20
    rate = SPEED_FRAMES / (parameters + dense)
    figures = {"transfer, s": parameters, "dense displacements, s": dense, "fields": float(len(motion.detail_basis))}
    more = {"memory grown for 9000 more frames, MiB": grown, "their motion, MiB": own}
    return [bar(f"transfer with dense detail, {torch.get_num_threads()} threads", rate, "frames/s", least=LEAST_RATE, **figures, **more)]


def _dense(proxy: HeadProxy, motion: HeadMotion) -> None:
    for start in range(0, len(motion), CHUNK):
        part = slice(start, start + CHUNK)
        proxy.displaced(motion.expression[part], motion.detail[part], motion.detail_basis)


PARTS = {
    "identity": identity_bars,
    "synthetic": synthetic_bars,
    "contact": contact_bars,
    "speed": speed_bars,
    "real": real_bars,
    "wrinkles": wrinkle_bars,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with clips/, portraits/ and heads/")
    options = parser.parse_args()
    with torch.inference_mode():
        print(json.dumps(PARTS[options.part](options.data), indent=2))


if __name__ == "__main__":
    main()
