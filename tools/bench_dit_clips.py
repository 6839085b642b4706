"""Clips of random people for the learning bar, with the heads that are in them: nothing has to be fitted, so nothing is misjudged.

Each head has relief on its skin that no coefficient of the head model tells: deep folds and lumps, as a refined proxy would hold them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from expportrait.dit.pocket.people import Person
from expportrait.dit.pocket.studio import Poses, Studio
from expportrait.dit.pocket.waves import Dice, Waves
from expportrait.dit.train.cache import PROXY, TRACK
from expportrait.proxy.build import source_proxy
from expportrait.proxy.camera import Camera
from expportrait.proxy.frames import VideoWriter
from expportrait.proxy.head_model import HeadModel
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.posing import camera_space

SIDE, FRAMES, FPS = 128, 4, 5.0
FOCAL, SIZE = 2.0, 0.66  # focal length and height of the head, over the picture's side
RELIEF, WAVES = 0.0012, (0.018, 0.045)  # metres: RMS of the relief and range of its wavelengths
LIVELY = 1.25  # of what the pocket model's training shows
ALIKE = 0.6  # what differs between faces, over what differs in that training: a fit of 128 pixels tells no more
SEED_SPAN = 1_000_000


def make_clips(folder: Path, model: HeadModel, people: int, seed: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Writes clips NAME.mp4 of random people, and their heads: NAME's track and proxies, without relief in `coarse`, with it in `refined`.

    Clips that are there already are kept.
    """
    studio = Studio(model, SIDE)
    for number in range(people):
        path = folder / f"{number:03}.mp4"
        if not path.exists():
            images, track, proxy = _clip(studio, model, torch.Generator().manual_seed(seed * SEED_SPAN + number))
            for kind, head in (("refined", proxy), ("coarse", dataclasses.replace(proxy, displacement=None))):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                head.save(folder / kind / (path.stem + PROXY))
                track.save(folder / kind / (path.stem + TRACK))
            with VideoWriter(path, FPS) as writer:
                writer.write(images)
        if progress is not None:
            progress(number + 1, people)


def _clip(studio: Studio, model: HeadModel, generator: torch.Generator):
    """Pictures [T, H, W, 3] of a random person moving from one random pose to another, track and refined proxy."""
    dice = Dice(generator)
    person = _with_relief(studio.people.random(generator), studio, dice)
    camera = Camera.centred(FOCAL * SIDE, SIDE, SIDE)
    light = studio.light(dice, person)
    backdrop = dice.colour(0.1, 0.8)[None, :, None, None].expand(1, 3, SIDE, SIDE)
    ends = studio.poses(dice, 2, FOCAL * SIDE, SIZE, LIVELY)
    share = torch.linspace(0, 1, FRAMES)[:, None]
    poses = Poses(*(_between(getattr(ends, field.name), share) for field in dataclasses.fields(Poses)))
    images = studio.photograph(person, poses, camera, light, backdrop).images.permute(0, 2, 3, 1)
    track = _track(model, person, poses, camera)
    return images, track, dataclasses.replace(source_proxy(track, model), displacement=person.displacement[0])


def _with_relief(person: Person, studio: Studio, dice: Dice) -> Person:
    people = studio.people
    relief = RELIEF * people.skin[:, None] * Waves.of(dice, *WAVES, 24).at(people.points)
    displacement = person.displacement + relief * people.normals
    return dataclasses.replace(person, identity=ALIKE * person.identity, displacement=displacement, locks=None)


def _between(ends: Tensor, share: Tensor) -> Tensor:
    first, second = ends.flatten(1)
    return ((1 - share) * first + share * second).unflatten(1, ends.shape[1:])


def _track(model: HeadModel, person: Person, poses: Poses, camera: Camera) -> HeadTrack:
    """What a fit without any error would find."""
    vertices = camera_space(model, person.identity, poses)
    points = camera.project(model.landmarks.points(vertices, model.faces))
    count = len(points)
    return HeadTrack(
        model_id=model.model_id,
        identity=person.identity,
        expression=poses.expression,
        joints=poses.joints,
        translation=poses.translation,
        focal=camera.focal,
        width=camera.width,
        height=camera.height,
        fps=FPS,
        valid=torch.ones(count, dtype=torch.bool),
        confidence=torch.ones(count),
        landmarks=points,
        landmarks_fit=points,
    )
