"""Training data: random people as a photo and as the preview of that photo sees them, in compact files of bytes.

The proxy is the person's own but for what a fit gets wrong, and knows nothing of hair. So the warp has the preview's real
faults: shifted features, a texture with wrong patches and holes, seams at covered parts, light that does not follow.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...proxy.camera import Camera
from ...proxy.files import FORMAT_KEY, read_metadata, whole_file
from ...proxy.head_model import HeadModel
from ...proxy.head_proxy import HeadProxy
from ...proxy.posing import SourcePose, Stage, camera_space
from ...proxy.texture import unwrap_albedo
from .conditions import ConditionMaker
from .studio import Photo, Poses, Studio
from .waves import Dice

FORMAT, VERSION = "expportrait.pocket_data", 1
PEOPLE_AT_ONCE = 8  # in a file
SEED_SPAN = 1_000_000  # people that a seed has; torch's CPU generator reads only 32 bits of a seed
TEXTURE = 384
FOCAL, SIZE = (1.3, 3.0), (0.50, 0.74)  # over the picture's side: focal length, and height of the head
IDENTITY_ERROR, EXPRESSION_ERROR, TURN_ERROR, PLACE_ERROR = 0.3, 0.04, 0.012, 0.0008  # of fits: deviations, shares, radians, metres
STILL, LIVELY, CARELESS = 0.4, (0.08, 1.2), (0.0, 1.2)  # poses of source pictures, of clips, and what fits have of these errors
FOCUS_LEVELS = 3  # of the map that tells where errors count: person, head, mouth and eyes


@dataclasses.dataclass(frozen=True)
class Example:
    """One person: a source picture, and t frames as the model is shown them and as they should be."""

    reference: Tensor  # [9, S, S]
    control: Tensor  # [t, 13, S, S]
    code: Tensor  # [t, K]
    target: Tensor  # [t, 3, S, S]
    focus: Tensor  # [t, 1, S, S] 0 backdrop, 1/3 person, 2/3 head, 1 mouth and eyes


class ExampleMaker:
    """Draws examples, pictures of side x side pixels."""

    def __init__(self, model: HeadModel, side: int):
        self.model, self.side, self.studio = model, side, Studio(model, side)

    def random(self, generator: torch.Generator, frames: int, in_motion: bool = False) -> Example:
        """A random person with `frames` random poses, or in motion from one to another."""
        dice = Dice(generator)
        person = self.studio.people.random(generator)
        light, backdrop = self.studio.light(dice, person), self.studio.backdrop(dice)
        focal = self.side * dice.uniform(*FOCAL)
        camera, size = Camera.centred(focal, self.side, self.side), dice.uniform(*SIZE)
        still = self.studio.poses(dice, 1, focal, size, STILL)
        # Most real clips turn little and are fitted well, some are not: the model has to see both, and the first more often.
        low, high = LIVELY
        lively = low * (high / low) ** dice.uniform(0, 1)
        poses = self.studio.poses(dice, 2 if in_motion else frames, focal, size, lively)
        poses = _path(poses, frames) if in_motion else poses
        careless = dice.uniform(*CARELESS)
        source, photo = (self.studio.photograph(person, each, camera, light, backdrop) for each in (still, poses))
        proxy = self._proxy(dice, person.identity, still, camera, source, careless)
        maker = ConditionMaker(source.images[0], proxy, self.model, camera, _soft(source.person)[0, 0])
        seen = maker.frames(self._misfit(dice, poses, careless, together=in_motion))
        return Example(maker.reference()[0], seen.control, seen.code, photo.images, _focus(photo))

    def _proxy(self, dice: Dice, identity: Tensor, still: Poses, camera: Camera, source: Photo, careless: float = 1.0) -> HeadProxy:
        """The proxy that a fit to the source picture finds, its errors scaled by `careless`."""
        fitted = self._misfit(dice, still, careless)
        proxy = HeadProxy(
            model_id=self.model.model_id,
            identity=identity + careless * IDENTITY_ERROR * dice.normal(len(identity)),
            albedo=torch.zeros(3, 1, 1),
            albedo_confidence=torch.zeros(1, 1, 1),
            neutral=torch.zeros_like(fitted.expression[0]),
            source_expression=fitted.expression[0],
            source_joints=fitted.joints[0],
            source_translation=fitted.translation[0],
            focal=camera.focal,
            width=self.side,
            height=self.side,
            crop=(0.0, 0.0, float(self.side), float(self.side)),
        )
        shot = Stage(self.model, camera).shot(camera_space(self.model, proxy, SourcePose.of(proxy)))
        albedo, confidence = unwrap_albedo(source.images, _soft(source.person), shot, TEXTURE)
        return dataclasses.replace(proxy, albedo=albedo, albedo_confidence=confidence)

    def _misfit(self, dice: Dice, poses: Poses, careless: float, together: bool = False) -> Poses:
        """Poses as a fit finds them, each with errors of its own or all with the same."""
        count = 1 if together else len(poses.expression)
        low, high = self.model.expression_bounds.unbind(1)
        active = (poses.expression.abs() > 0.01).float()
        expression = poses.expression + careless * EXPRESSION_ERROR * (0.3 + 2 * active) * dice.normal(count, len(low))
        joints, place = poses.joints.clone(), dice.normal(count, 3) * torch.tensor([1.0, 1.0, 4.0])
        joints[:, 1:] += careless * TURN_ERROR * dice.normal(count, joints.shape[1] - 1, 3)
        return Poses(torch.minimum(torch.maximum(expression, low), high), joints, poses.translation + careless * PLACE_ERROR * place)


def _path(ends: Poses, frames: int) -> Poses:
    """From the first of two poses to the second, slow at both ends."""
    share = (0.5 - 0.5 * torch.cos(torch.linspace(0, torch.pi, frames)))[:, None]

    def between(value: Tensor) -> Tensor:
        first, second = value.flatten(1)
        return ((1 - share) * first + share * second).unflatten(1, value.shape[1:])

    return Poses(between(ends.expression), between(ends.joints), between(ends.translation))


def _soft(person: Tensor) -> Tensor:
    """A coverage as segmentation gives it, with a soft edge."""
    return F.avg_pool2d(person, 5, 1, 2)


def _focus(photo: Photo) -> Tensor:
    levels = [photo.person > 0.5, photo.head > 0.5, photo.focus > 0.3]
    return torch.stack([(k + 1) / FOCUS_LEVELS * level for k, level in enumerate(levels)]).amax(0)


# Files


def make_data(
    folder: str | os.PathLike,
    model: HeadModel,
    people: int,
    frames: int = 6,
    side: int = 256,
    seed: int = 0,
    in_motion: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes examples of `people` persons into a folder, PEOPLE_AT_ONCE to a file; files that are there already are kept.

    Person k of a seed is the same whatever else is made, so a stopped run goes on where it was, and two seeds share nobody.
    Raises ValueError for fewer than one person or frame, a seed out of range, or a side that is not a multiple of 16.
    """
    if not 1 <= people <= SEED_SPAN or frames < 1:
        raise ValueError(f"{people} people with {frames} frames were asked for; make at least one of each, and {SEED_SPAN} people at most")
    if not 0 <= seed < 2**32 // SEED_SPAN:
        raise ValueError(f"seed is {seed}; choose one from 0 to {2**32 // SEED_SPAN - 1}")
    if side < 64 or side % 16:
        raise ValueError(f"pictures of {side} pixels were asked for; choose a multiple of 16, at least 64")
    folder, maker = Path(folder), ExampleMaker(model, side)
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {FORMAT_KEY: FORMAT, "version": str(VERSION), "model_id": model.model_id}
    metadata["made"] = json.dumps({"seed": seed, "frames": frames, "side": side, "in_motion": in_motion})
    for start in range(0, people, PEOPLE_AT_ONCE):
        stop = min(start + PEOPLE_AT_ONCE, people)
        path = folder / f"people_{seed}_{start:06d}_{stop - start}.safetensors"
        if not path.exists():
            examples = []
            for person in range(start, stop):
                examples.append(maker.random(torch.Generator().manual_seed(seed * SEED_SPAN + person), frames, in_motion))
                if progress is not None:
                    progress(person + 1, people)
            tensors = {f.name: torch.stack([getattr(e, f.name) for e in examples]) for f in dataclasses.fields(Example)}
            stored = {name: value.half() if name == "code" else _bytes(value) for name, value in tensors.items()}
            with whole_file(path) as temporary:
                save_file(stored, temporary, metadata=metadata)


def _bytes(value: Tensor) -> Tensor:
    return value.clamp(0, 1).mul(255).round().to(torch.uint8).contiguous()


class Examples:
    """The examples of a folder, read from the files as they are asked for."""

    def __init__(self, folder: str | os.PathLike, model_id: str | None = None):
        """Raises FileNotFoundError for a folder without data, ValueError for files of another kind or head model."""
        paths = sorted(Path(folder).glob("people_*.safetensors"))
        if not paths:
            raise FileNotFoundError(f"{folder} holds no training data; make some with `expportrait train-pocket data`")
        self._files, self._frames, self._place = [], [], []
        shapes = set()
        for path in paths:
            metadata = read_metadata(path)
            if metadata.get(FORMAT_KEY) != FORMAT or metadata.get("version") != str(VERSION):
                raise ValueError(f"{path} is no training data of this version; make it again with `expportrait train-pocket data`")
            if model_id is not None and metadata["model_id"] != model_id:
                raise ValueError(f"{path} was made with head model {metadata['model_id']}, but {model_id} is loaded; make it again")
            file = safe_open(path, framework="pt")
            people, frames, *_, side = file.get_slice("control").get_shape()
            shapes.add((side, file.get_slice("code").get_shape()[2]))
            self._place += [(len(self._files), person, frame) for person in range(people) for frame in range(frames)]
            self._files.append(file)
            self._frames.append(frames)
        if len(shapes) != 1:
            raise ValueError(f"{folder} holds pictures of several sizes or heads ({sorted(shapes)}); keep one kind to a folder")
        ((self.side, self.code),) = shapes

    def __len__(self) -> int:
        return len(self._place)

    def clips(self, frames: int) -> list[int]:
        """Places from which `frames` frames of one person follow each other. Raises ValueError if there are none."""
        last = range(frames - 1, len(self))
        starts = [k - frames + 1 for k in last if self._place[k][:2] == self._place[k - frames + 1][:2]]
        if not starts:
            raise ValueError(f"nobody in the data has {frames} frames; make data with more frames, or train on fewer")
        return starts

    def check_side(self, side: int) -> None:
        """Raises ValueError if the pictures cannot be read at this size."""
        if side < 16 or side % 16 or self.side % side:
            raise ValueError(f"examples of {self.side} pixels cannot be read at {side}; choose a multiple of 16 that divides their size")

    def read(self, index: list[int], side: int | None = None) -> dict[str, Tensor]:
        """Batch {name: [B, ...]} of `Example`'s fields, reference [B, 9, S, S]; float32 in 0..1.

        "stale" [B, 4, S, S] is the warp with its validity of the person's next frame, which is another pose. At a smaller side
        pictures are averaged, and what is told by levels takes the highest.
        """
        self.check_side(side or self.side)
        rows = []
        for k in index:
            number, person, frame = self._place[k]
            file = self._files[number]
            following = (frame + 1) % self._frames[number]
            row = {"reference": file.get_slice("reference")[person : person + 1][0]}
            row["stale"] = file.get_slice("control")[person : person + 1, following : following + 1, :4][0, 0]
            for name in ("control", "code", "target", "focus"):
                row[name] = file.get_slice(name)[person : person + 1, frame : frame + 1][0, 0]
            rows.append(row)
        batch = {name: torch.stack([row[name] for row in rows]).float() for name in rows[0]}
        factor = self.side // (side or self.side)
        if factor > 1:
            pooled = {name: F.avg_pool2d(batch[name], factor) for name in ("reference", "stale", "control", "target")}
            batch = batch | pooled | {"focus": F.max_pool2d(batch["focus"], factor)}
        return {name: value if name == "code" else value / 255 for name, value in batch.items()}
