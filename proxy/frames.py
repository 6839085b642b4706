"""Pictures and clips as one thing: a known number of frames of one size that can be walked in chunks, again and again.

A video file is decoded anew on each walk, so a long clip costs no more memory than one chunk of it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .files import whole_file

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
DEFAULT_FPS = 25.0


class Frames:
    """`len(frames)` frames of `width` x `height` pixels at `fps` frames per second. See `open` and `from_images`."""

    def __init__(self, count: int, width: int, height: int, fps: float):
        self._count, self.width, self.height, self.fps = count, width, height, fps

    def __len__(self) -> int:
        return self._count

    def chunks(self, size: int = 16) -> Iterator[Tensor]:
        """Consecutive float32 batches [t, 3, H, W] in 0..1 with t at most `size`."""
        raise NotImplementedError

    def frame(self, index: int) -> Tensor:
        """One frame [3, H, W]. Raises ValueError if there is no frame of that number."""
        return self.pick([index])[0]

    def pick(self, indices: Sequence[int]) -> Tensor:
        """The chosen frames [N, 3, H, W] in the order asked, repeats allowed, in one walk that ends at the last of them.

        Raises ValueError if no frame is asked for or there is no frame of such a number.
        """
        if not len(indices):
            raise ValueError("no frame was chosen; give at least one frame number")
        for index in indices:
            if not 0 <= index < len(self):
                raise ValueError(f"there is no frame {index} among {len(self)}; give a number from 0 to {len(self) - 1}")
        return self._picked(indices)

    def _picked(self, indices: Sequence[int]) -> Tensor:
        """`pick` of numbers that exist."""
        wanted = set(indices)
        walk = itertools.islice(self.chunks(1), max(wanted) + 1)
        found = {number: frame for number, (frame,) in enumerate(walk) if number in wanted}
        return torch.stack([found[index] for index in indices])

    @staticmethod
    def from_images(images: Tensor, fps: float = DEFAULT_FPS) -> Frames:
        """Wraps a ComfyUI IMAGE batch [T, H, W, C] with C = 1 (grey), 3 or 4 (alpha dropped), 0..1.

        Raises ValueError for an empty batch or another shape. NaN becomes 0.
        """
        if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
            raise ValueError(f"expected images of shape [T, H, W, 1, 3 or 4], found {list(images.shape)}; connect an IMAGE batch")
        if min(images.shape) == 0:
            raise ValueError(f"the image batch is empty (shape {list(images.shape)}); connect at least one image")
        return _TensorFrames(images, fps)

    @staticmethod
    def open(path: str | os.PathLike) -> Frames:
        """Opens a picture or a video file.

        Raises FileNotFoundError if it does not exist and ValueError if it cannot be decoded or holds no frame.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; give a picture or a video file")
        if path.suffix.lower() in PICTURES:
            return Frames.from_images(read_image(path)[None])
        return _VideoFrames(path)


class _TensorFrames(Frames):
    def __init__(self, images: Tensor, fps: float):
        super().__init__(images.shape[0], images.shape[2], images.shape[1], fps)
        self._images = images

    def chunks(self, size: int = 16) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield self._frames(slice(start, start + size))

    def _picked(self, indices: Sequence[int]) -> Tensor:
        return self._frames(list(indices))

    def _frames(self, index: slice | list[int]) -> Tensor:
        images = self._images[index][..., :3].float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
        return images.expand(-1, -1, -1, 3).permute(0, 3, 1, 2)


class _VideoFrames(Frames):
    def __init__(self, path: Path):
        self._path = path
        count, width, height, fps = 0, 0, 0, DEFAULT_FPS
        for frame in self._decode():
            if count == 0:
                height, width = frame.shape[:2]
            count += 1
        if count == 0:
            raise ValueError(f"{path} holds no video frame; give a clip with at least one frame")
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
            fps = float(rate) if rate else DEFAULT_FPS
        super().__init__(count, width, height, fps)

    def _decode(self) -> Iterator[np.ndarray]:
        try:
            with av.open(str(self._path)) as container:
                if not container.streams.video:
                    raise ValueError(f"{self._path} has no video stream; give a picture or a video file")
                for frame in container.decode(video=0):
                    # Phones store upright clips lying down, with a rotation (degrees, counter-clockwise) to show them by.
                    yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        except av.FFmpegError as error:
            raise ValueError(f"{self._path} cannot be decoded ({error.strerror}); the file is damaged or no video") from None

    def chunks(self, size: int = 16) -> Iterator[Tensor]:
        batch: list[np.ndarray] = []
        for image in self._decode():
            batch.append(image)
            if len(batch) == size:
                yield _to_tensor(batch)
                batch = []
        if batch:
            yield _to_tensor(batch)


def _to_tensor(batch: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float().div_(255)


def read_image(path: str | os.PathLike) -> Tensor:
    """Picture file to float32 [H, W, 3] in 0..1, turned upright by its EXIF tag; alpha is dropped.

    Raises ValueError if it is no readable picture.
    """
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16-bit grey, which convert() would clip
                upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
            pixels = np.asarray(upright.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}); the file is damaged or of another kind") from None
    return torch.from_numpy(pixels.copy()).float().div_(255)


def to_uint8(images: Tensor) -> np.ndarray:
    """Float images in 0..1 to uint8 on the CPU, rounded."""
    return images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def write_image(path: str | os.PathLike, image: Tensor) -> None:
    """Writes [H, W, 3] in 0..1; the suffix chooses the format."""
    with whole_file(path) as temporary:
        Image.fromarray(to_uint8(image)).save(temporary, quality=92)


def read_audio(file: str | os.PathLike | BinaryIO) -> tuple[Tensor, int] | None:
    """Sound of a video file as a waveform [1 or 2, N] in -1..1 and its samples per second; None if it has none.

    Pictures are not decoded; of more than two channels two are made. Raises ValueError for a file that is no video.
    """
    try:
        with av.open(file if hasattr(file, "read") else str(file)) as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            layout = "mono" if stream.channels == 1 else "stereo"
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=stream.rate)
            heard = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
            heard += [part.to_ndarray() for part in resampler.resample(None)]
    except av.error.FFmpegError as error:
        raise ValueError(f"the sound of {file} cannot be read ({error.strerror}); give another file or convert it") from None
    channels = 1 if layout == "mono" else 2
    return torch.from_numpy(np.concatenate([np.zeros((channels, 0), np.float32), *heard], axis=1)), stream.rate


class VideoWriter:
    """Context manager that encodes H.264 (yuv420p, even size by repeating the last row or column) frame by frame.

    `audio`, a waveform [C, N] in -1..1 (C is 1 or 2) and its samples per second, becomes an AAC track that ends with the last frame.
    The file appears under its name only when the block ends without an error; a block that wrote no frame ends with
    ValueError. Raises ValueError for a waveform of another shape.
    """

    def __init__(self, path: str | os.PathLike, fps: float, audio: tuple[Tensor, int] | None = None):
        if audio is not None and (audio[0].ndim != 2 or audio[0].shape[0] not in (1, 2)):
            raise ValueError(f"the sound has shape {list(audio[0].shape)}; give [1, N] or [2, N]")
        self._path, self._fps = path, Fraction(fps).limit_denominator(1001)
        self._audio = None if audio is None or audio[0].shape[1] == 0 else audio

    def __enter__(self) -> VideoWriter:
        self._stream, self._written = None, 0
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(whole_file(self._path))
            self._container = stack.enter_context(av.open(str(temporary), "w", format="mp4"))
            self._open = stack.pop_all()
        return self

    def write(self, images: Tensor) -> None:
        """Appends float images [t, H, W, 3] in 0..1."""
        pixels = to_uint8(images)
        height, width = pixels.shape[1:3]
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._begin(*pixels.shape[1:3])
        for image in pixels:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            self._container.mux(self._stream.encode(frame))
        self._written += len(pixels)

    def _begin(self, height: int, width: int) -> None:
        # Every stream has to be there before the first packet.
        self._stream = self._container.add_stream("libx264", rate=self._fps)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "18"}
        if self._audio is not None:
            self._sound = self._container.add_stream("aac", rate=self._audio[1])
            self._sound.layout = "mono" if len(self._audio[0]) == 1 else "stereo"

    def __exit__(self, kind, error, trace) -> None:
        with self._open:  # closes the container, then renames the file, or removes it on any error
            if error is not None:
                raise error
            if self._stream is None:
                raise ValueError(f"no frame was written to {self._path}; write at least one")
            self._container.mux(self._stream.encode())
            if self._audio is not None:
                self._write_audio(*self._audio)

    def _write_audio(self, waveform: Tensor, rate: int) -> None:
        samples = waveform[:, : math.ceil(rate * self._written / self._fps)].detach().float().clamp(-1, 1).cpu().contiguous()
        frame = av.AudioFrame.from_ndarray(samples.numpy(), format="fltp", layout=self._sound.layout.name)
        frame.sample_rate, frame.pts = rate, 0
        self._container.mux(self._sound.encode(frame))
        self._container.mux(self._sound.encode())
