"""Clips to shards: fit, frame, render what the adapter reads, encode what the base makes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ...proxy.build import build_proxy, source_proxy
from ...proxy.camera import Camera
from ...proxy.fit import fit_frames
from ...proxy.frames import Frames
from ...proxy.head_model import JOINTS, HeadModel
from ...proxy.head_proxy import HeadProxy
from ...proxy.head_track import HeadTrack
from ...proxy.inpaint import dilate
from ...proxy.landmarks import Landmarker
from ...proxy.posing import camera_space
from ...proxy.render import render_maps
from ...transfer.motion import HeadMotion
from ...transfer.neutral import neutral_expression
from ..adapter.config import CONDITION_CHANNELS, INPUTS, AdapterConfig
from ..face_crops import face_crops
from ..families import family_named
from ..framing import Framing, crop_images, make_framing
from ..head_conditions import control_video, explicit_numbers, reference_geometry
from .another_crop import CACHED
from .shards import Shard, to_bytes

FACE, FEATURES = 2.0, 4.0  # weight of the loss on the face, and on mouth and eyes, against 1 elsewhere
REACH = 0.02  # of the picture's height by which the face's weight reaches beyond it
LIPS, EYES = (61, 291, 0, 17), ((33, 133, 159, 145), (362, 263, 386, 374))  # corners, upper and lower edge: MediaPipe's numbers
ROOM, HIDDEN = 0.6, 1.2  # of its own size by which the box of mouth or eye reaches beyond it: to weigh it, and to hide it at rest
MOVED = tuple(JOINTS.index(name) for name in ("jaw", "left_eye", "right_eye"))
SCALED, SHIFTED, TINTED = 0.15, 0.08, 0.15  # of a reference variant's cut and colours
TRACK, PROXY = ".track.safetensors", ".proxy.safetensors"  # what the names of a known head's files end with

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class CacheSettings:
    """Raises ValueError for values that no base takes."""

    size: int = 512  # pixels of the square cut
    frames: int = 81
    variants: int = 4  # of the reference picture
    mask_features: bool = False  # hide mouth and eyes in the control: for adapters whose control is to tell the pose alone
    seed: int = 0

    def __post_init__(self):
        if self.frames < 1 or self.frames % 4 != 1:
            raise ValueError(f"frames is {self.frames}; Wan makes 4n + 1 frames, such as {4 * max(self.frames // 4, 1) + 1}")
        if self.size < 32 or self.size % 16:
            raise ValueError(f"size is {self.size}; give a multiple of 16 of at least 32")
        if self.variants < 1:
            raise ValueError(f"variants is {self.variants}; keep at least one reference")


def cache_clip(
    path: str,
    model: HeadModel,
    landmarker: Landmarker,
    vae: nn.Module,
    config: AdapterConfig,
    settings: CacheSettings = CacheSettings(),
    head: tuple[HeadTrack, HeadProxy] | None = None,
    progress: Progress | None = None,
) -> Iterator[Shard]:
    """Shards of a clip's windows of `settings.frames`; what is left over at its end is not used.

    `vae` is diffusers' AutoencoderKLWan. `head` is the clip's track and proxy where they are known; a refined proxy shows its
    displacement in what the adapter reads. Else the clip is fitted. Raises ValueError if the clip is shorter than a window, shows no
    face, or is not the one that `head` was made from.
    """
    frames = Frames.open(path)
    if len(frames) < settings.frames:
        raise ValueError(f"{path} has {len(frames)} frames, but a shard takes {settings.frames}; give longer clips or fewer --frames")
    track, proxy = (fit_frames(frames, model, landmarker), None) if head is None else head
    if len(track) != len(frames):
        raise ValueError(f"{path} has {len(frames)} frames, but its track has {len(track)}; fit the very same clip")
    generator = torch.Generator().manual_seed(settings.seed)
    starts = range(0, len(frames) - settings.frames + 1, settings.frames)
    for done, start in enumerate(starts):
        numbers = list(range(start, start + settings.frames))
        if bool(track.valid[numbers].all()):
            yield _Window(frames, track, proxy, model, vae, config, settings, numbers, generator).shard()
        if progress is not None:
            progress(done + 1, len(starts))


class _Window:
    """One window of a clip."""

    def __init__(
        self,
        frames: Frames,
        track: HeadTrack,
        known: HeadProxy | None,
        model: HeadModel,
        vae: nn.Module,
        config: AdapterConfig,
        settings: CacheSettings,
        numbers: list[int],
        generator: torch.Generator,
    ):
        self.frames, self.track, self.model, self.vae = frames, track, model, vae
        self.config, self.settings, self.numbers, self.generator = config, settings, numbers, generator
        self.known, self.neutral = known, neutral_expression(track, model)
        self.motion = performed(track, known).select(numbers)

    def shard(self) -> Shard:
        config, settings = self.config, self.settings
        references = torch.randint(len(self.frames), (settings.variants,), generator=self.generator).tolist()
        proxies = [self._proxy(number) for number in references]
        images = self.frames.pick(self.numbers).permute(0, 2, 3, 1)
        masks = self._masks(proxies[0], None)
        framing = make_framing(family_named("Wan 2.1"), images, masks, settings.size, settings.size, longest=settings.frames)
        camera = framing.camera(proxies[0].camera)
        boxes = feature_boxes(self.track.landmarks[self.numbers], framing)
        control = control_video(proxies[0], self.motion, self.model, config, camera, self._picture(references[0]))[0]
        if settings.mask_features:
            control = hide(control, feature_boxes(self._calm_landmarks(proxies[0]), framing, HIDDEN), config)
        pictures = torch.cat(list(crop_images(images, framing)))
        latents = encode(self.vae, pictures.permute(3, 0, 1, 2)[None])[0]
        made = [self._reference(number, proxy, framing, k > 0) for k, (number, proxy) in enumerate(zip(references, proxies))]
        faces = torch.zeros(len(self.numbers), 3, 0, 0, dtype=torch.uint8)
        if config.code == "face":
            crops = face_crops(self.frames, self.track.landmarks, self.numbers, CACHED)[0]
            faces = ((crops + 1) * 127.5).round().to(torch.uint8)
        code = explicit_numbers(self.motion, self.model, config)[0] if config.code == "explicit" else torch.zeros(len(self.numbers), 0)
        return Shard(
            latents=latents.to(torch.float16),
            references=torch.stack([condition for condition, _ in made]).to(torch.float16),
            control=to_bytes(control),
            geometry=torch.stack([geometry for _, geometry in made]),
            numbers=code.float(),
            faces=faces,
            weight=loss_weight(self._masks(proxies[0], camera), boxes, latents.shape[1:]),
        )

    def _masks(self, proxy: HeadProxy, camera: Camera | None) -> Tensor:
        """[F, H, W] 1 where the head is."""
        return torch.cat([part["mask"][..., 0] for part in render_maps(proxy, self.motion, self.model, ("mask",), camera=camera)])

    def _calm_landmarks(self, proxy: HeadProxy) -> Tensor:
        """[F, 478, 2] where the features of the face at rest would be: boxes around the true ones would tell how far the mouth opens."""
        joints = self.motion.joints.clone()
        joints[:, MOVED] = 0
        calm = HeadMotion(**vars(self.motion) | {"expression": self.neutral.expand_as(self.motion.expression), "joints": joints})
        vertices = camera_space(self.model, proxy.identity, calm)
        return self.track.camera.project(self.model.landmarks.points(vertices, self.model.faces)).cpu()

    def _picture(self, number: int) -> Tensor:
        return self.frames.frame(number).to(self.model.template)

    def _proxy(self, number: int) -> HeadProxy:
        """The head as it stands in a frame; its albedo only where the adapter reads it."""
        neutral = self.neutral if self.known is None else self.known.neutral
        if "reference" in self.config.inputs + self.config.reference_inputs:
            proxy = build_proxy(self._picture(number), self.track, self.model, number, neutral)
        else:
            proxy = source_proxy(self.track, self.model, number, neutral)
        if self.known is None:
            return proxy
        refined = ("identity", "displacement", "detail_basis", "detail", "detail_by_expression", "detail_kept")
        return dataclasses.replace(proxy, **{name: getattr(self.known, name) for name in refined})

    def _reference(self, number: int, proxy: HeadProxy, framing: Framing, jittered: bool) -> tuple[Tensor, Tensor]:
        """Image condition of one reference picture and the geometry of its head in the same cut."""
        picture = self._picture(number).permute(1, 2, 0)[None].cpu()
        if jittered:
            framing = self._jittered(framing)
            picture = (picture * (1 + TINTED * (2 * torch.rand(3, generator=self.generator) - 1))).clamp(0, 1)
        still = dataclasses.replace(framing, frames=1, kept=1, length=1)
        cut = next(iter(crop_images(picture, still)))
        count = (len(self.numbers) + 3) // 4
        if self.config.reference == "condition":
            condition = image_condition(self.vae, cut.permute(3, 0, 1, 2)[None], len(self.numbers))[0]
        else:
            side = self.settings.size // self.config.spatial
            condition = torch.zeros(0, count, side, side)
        if self.config.reference == "none":
            return condition, torch.zeros(0, self.settings.size, self.settings.size, dtype=torch.int8)
        camera = framing.camera(proxy.camera)
        return condition, to_bytes(reference_geometry(proxy, self.model, self.config, camera, self._picture(number))[0])

    def _jittered(self, framing: Framing) -> Framing:
        x, y, width, height = framing.box
        scale, right, down = (2 * torch.rand(3, generator=self.generator) - 1).tolist()
        grown = 1 + SCALED * scale
        x += width * ((1 - grown) / 2 + SHIFTED * right)
        y += height * ((1 - grown) / 2 + SHIFTED * down)
        return dataclasses.replace(framing, box=(x, y, width * grown, height * grown))


def read_head(folder: str | os.PathLike, name: str, model: HeadModel) -> tuple[HeadTrack, HeadProxy] | None:
    """Track and proxy of the clip `name` in a folder, None if it holds neither. Raises ValueError if only one is there, or they differ."""
    paths = [Path(folder) / (name + ending) for ending in (TRACK, PROXY)]
    there = [path.is_file() for path in paths]
    if not any(there):
        return None
    if not all(there):
        raise ValueError(f"{paths[there.index(False)]} is missing, but {paths[there.index(True)]} is there; give both, or neither")
    track, proxy = HeadTrack.load(paths[0], model.model_id), HeadProxy.load(paths[1], model.model_id)
    if proxy.detail is not None and len(proxy.detail) != len(track):
        raise ValueError(f"{paths[1]} was refined on {len(proxy.detail)} frames, but {paths[0]} has {len(track)}; refine the same clip")
    device = model.template.device
    return track.to(device), proxy.to(device)


def performed(track: HeadTrack, proxy: HeadProxy | None = None) -> HeadMotion:
    """What a fitted person does, on that person's own head; `proxy` is that head, refined on the same frames."""
    motion = HeadMotion(track.model_id, track.expression, track.joints, track.translation, track.valid, track.fps)
    if proxy is None or proxy.detail is None:
        return motion
    return dataclasses.replace(motion, detail=proxy.detail, detail_id=proxy.detail_id)


def hide(control: Tensor, boxes: Tensor, config: AdapterConfig) -> Tensor:
    """Control video [C, F, H, W] as if there were no head where boxes [F, H, W] are 1; rays tell the pose alone and stay."""
    parts = control.split([INPUTS[name] for name in config.inputs])
    empty = {name: -1.0 if config.range == "signed" and name != "normals" else 0.0 for name in config.inputs}
    shown = [part if name == "rays" else torch.where(boxes > 0, empty[name], part) for name, part in zip(config.inputs, parts)]
    return torch.cat(shown)


def feature_boxes(landmarks: Tensor, framing: Framing, room: float = ROOM) -> Tensor:
    """[F, H, W] 1 in boxes around mouth and eyes of landmarks [F, 478, 2] in the source's pixels, in the framing's cut; `room` is what
    they have around them, as a share of their width."""
    x, y, width, height = framing.box
    scale = landmarks.new_tensor([framing.size[0] / width, framing.size[1] / height])
    points = (landmarks - landmarks.new_tensor([x, y])) * scale
    rows = torch.arange(framing.size[1]).to(points)[None, :, None] + 0.5
    columns = torch.arange(framing.size[0]).to(points)[None, None] + 0.5
    inside = torch.zeros(len(points), framing.size[1], framing.size[0]).to(points)
    for corners in (LIPS, *EYES):
        low, high = points[:, corners].amin(1), points[:, corners].amax(1)
        around = room * (high - low)[:, :1] / 2
        low, high = (low - around)[..., None, None], (high + around)[..., None, None]
        box = (columns > low[:, 0]) & (columns < high[:, 0]) & (rows > low[:, 1]) & (rows < high[:, 1])
        inside = torch.maximum(inside, box.to(inside))
    return inside


def loss_weight(mask: Tensor, features: Tensor, size: tuple[int, ...]) -> Tensor:
    """Weight [T, h, w] of the loss from masks [F, H, W] of the head and of mouth and eyes."""
    reach = max(1, round(REACH * mask.shape[1]))
    weight = 1 + (FACE - 1) * dilate(mask[:, None], reach)[:, 0]
    weight = torch.maximum(weight, FEATURES * features)
    weight = torch.cat([weight[:1].expand(3, -1, -1), weight])
    return nn.functional.interpolate(weight[None, None], size=tuple(size), mode="area")[0, 0]


@torch.no_grad()
def encode(vae: nn.Module, video: Tensor) -> Tensor:
    """Normalised latents [1, C, T, h, w] of a video [1, 3, F, H, W] in 0..1."""
    like = next(vae.parameters())
    found = vae.encode((2 * video - 1).to(like)).latent_dist.mode().float()
    mean, deviation = _statistics(vae, found)
    return (found - mean) / deviation


@torch.no_grad()
def decode(vae: nn.Module, latents: Tensor) -> Tensor:
    """The video [1, 3, F, H, W] in 0..1 of normalised latents [1, C, T, h, w]."""
    like = next(vae.parameters())
    mean, deviation = _statistics(vae, latents.float())
    video = vae.decode((latents.float() * deviation + mean).to(like)).sample
    return ((video.float() + 1) / 2).clamp(0, 1)


def _statistics(vae: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = (torch.tensor(values).to(like)[:, None, None, None] for values in (vae.config.latents_mean, vae.config.latents_std))
    return mean, deviation


def image_condition(vae: nn.Module, picture: Tensor, frames: int) -> Tensor:
    """Wan's image condition [1, 20, T, h, w] of a picture [1, 3, 1, H, W] in 0..1 as first frame: mask, then latent of it and grey."""
    grey = torch.full_like(picture, 0.5).expand(-1, -1, frames - 1, -1, -1)
    latents = encode(vae, torch.cat([picture, grey], 2))
    mask = torch.zeros_like(latents[:, : CONDITION_CHANNELS - 16])
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], 1)
