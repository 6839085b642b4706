import math
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from expportrait.proxy.frames import Frames, VideoWriter, read_audio, read_image, write_image


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """The astronaut [64, 96, 3]."""
    return torch.from_numpy(data.astronaut()[::8, ::8][:, 10:].copy()).float()[:64, :54] / 255


@pytest.fixture
def clip(tmp_path, picture):
    """A clip of seven frames that grow brighter, as file and as tensor [7, 64, 54, 3]."""
    images = picture * torch.linspace(0.3, 1, 7)[:, None, None, None]
    with VideoWriter(tmp_path / "clip.mp4", 24000 / 1001) as writer:
        writer.write(images[:4])
        writer.write(images[4:])
    return tmp_path / "clip.mp4", images


def test_png_round_trip(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    frames = Frames.open(tmp_path / "a.png")
    assert (len(frames), frames.width, frames.height) == (1, 54, 64)
    torch.testing.assert_close(frames.frame(0).permute(1, 2, 0), picture, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK", "I;16"])
def test_pictures_of_every_kind_become_rgb(tmp_path, picture, mode):
    grey = (picture.mean(2).numpy() * 255).astype(np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    found = read_image(path)
    assert found.shape == (64, 54, 3) and found.dtype == torch.float32
    tolerance = 0.6 if mode == "1" else 0.03
    assert (found - torch.from_numpy(grey)[..., None] / 255).abs().mean() < tolerance
    if mode != "1":
        torch.testing.assert_close(found, (torch.from_numpy(grey).float() / 255)[..., None].expand(-1, -1, 3), atol=0.06, rtol=0)


def test_picture_is_turned_upright(tmp_path, picture):
    image = Image.fromarray((picture.numpy() * 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    image.save(tmp_path / "a.png", exif=exif)
    torch.testing.assert_close(read_image(tmp_path / "a.png"), picture.rot90(-1), atol=5e-3, rtol=0)


def test_images_of_comfyui(picture):
    grey = Frames.from_images(picture[None, :, :, :1].half())
    assert torch.equal(grey.frame(0)[0], grey.frame(0)[2]) and grey.frame(0).dtype == torch.float32
    alpha = Frames.from_images(torch.cat([picture, torch.zeros(64, 54, 1)], -1)[None].expand(5, -1, -1, -1), fps=12)
    assert [chunk.shape for chunk in alpha.chunks(2)] == [(2, 3, 64, 54), (2, 3, 64, 54), (1, 3, 64, 54)]
    assert torch.equal(alpha.frame(4), picture.permute(2, 0, 1)) and alpha.fps == 12
    broken = torch.tensor([math.nan, math.inf, -math.inf, 7.0, -1.0, 0.5]).reshape(1, 2, 1, 3)
    assert next(Frames.from_images(broken).chunks())[0].permute(1, 2, 0).flatten().tolist() == [0, 1, 0, 1, 0, 0.5]


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (1, 0, 8, 3), (8, 8, 3), (1, 8, 8, 2)])
def test_batches_that_are_no_images(shape):
    with pytest.raises(ValueError, match="connect"):
        Frames.from_images(torch.zeros(shape))


def test_clip_round_trip(clip):
    path, images = clip
    frames = Frames.open(path)
    assert (len(frames), frames.width, frames.height) == (7, 54, 64)
    assert frames.fps == pytest.approx(24000 / 1001)
    for _ in range(2):  # a clip can be walked again
        chunks = list(frames.chunks(3))
        assert [len(chunk) for chunk in chunks] == [3, 3, 1]
        assert (torch.cat(chunks).permute(0, 2, 3, 1) - images).abs().mean() < 0.02
    assert torch.equal(frames.frame(5), torch.cat(chunks)[5])
    with pytest.raises(ValueError, match="no frame 7 among 7"):
        frames.frame(7)
    assert os.listdir(path.parent) == ["clip.mp4"]


@pytest.mark.parametrize("indices", [[5, 0, 5, 2], [3], range(7), (6, 6)])
def test_chosen_frames_come_in_the_order_asked(clip, indices):
    path, images = clip
    video, batch = Frames.open(path), Frames.from_images(images)
    for frames in (video, batch):
        whole = torch.cat(list(frames.chunks()))
        assert torch.equal(frames.pick(indices), whole[list(indices)])
    assert torch.equal(batch.pick(indices), images[list(indices)].permute(0, 3, 1, 2))


def test_a_video_is_decoded_once_up_to_the_last_frame_chosen(clip, monkeypatch):
    frames, decoded = Frames.open(clip[0]), []
    decode = frames._decode

    def counted():
        for image in decode():
            decoded.append(image)
            yield image

    monkeypatch.setattr(frames, "_decode", counted)
    frames.pick([4, 1, 4])
    assert len(decoded) == 5
    frames.frame(0)
    assert len(decoded) == 6


def test_a_batch_is_picked_from_without_a_walk(clip, monkeypatch):
    frames = Frames.from_images(clip[1])
    monkeypatch.setattr(frames, "chunks", None)
    assert torch.equal(frames.frame(6), clip[1][6].permute(2, 0, 1)) and frames.pick([2, 0]).shape == (2, 3, 64, 54)


def test_frames_that_cannot_be_picked(clip):
    for frames in (Frames.open(clip[0]), Frames.from_images(clip[1])):
        for index in (7, -1):
            with pytest.raises(ValueError, match=f"there is no frame {index} among 7; give a number from 0 to 6"):
                frames.pick([0, index, 1])
        with pytest.raises(ValueError, match="no frame was chosen; give at least one frame number"):
            frames.pick([])


def test_clip_of_a_phone_is_turned_upright(clip):
    path, images = clip
    content = path.read_bytes()
    at = content.index(b"tkhd") + 4 + 40  # the display matrix of a version 0 track header
    one = 0x10000
    assert struct.unpack_from(">9i", content, at) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    quarter_turn = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # clockwise, ISO 14496-12 section 8.3.2
    path.write_bytes(content[:at] + quarter_turn + content[at + 36 :])
    frames = Frames.open(path)
    assert (frames.width, frames.height) == (64, 54)
    assert (frames.frame(6).permute(1, 2, 0) - images[6].rot90(-1)).abs().mean() < 0.04


def test_odd_sizes_are_padded(tmp_path):
    with VideoWriter(tmp_path / "odd.mp4", 25) as writer:
        writer.write(torch.full((2, 17, 33, 3), 0.5))
    frames = Frames.open(tmp_path / "odd.mp4")
    assert (frames.width, frames.height) == (34, 18)
    assert (frames.frame(1) - 0.5).abs().max() < 0.03


def test_one_pixel(tmp_path):
    write_image(tmp_path / "a.png", torch.ones(1, 1, 3))
    assert Frames.open(tmp_path / "a.png").frame(0).flatten().tolist() == [1, 1, 1]
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(torch.ones(1, 1, 1, 3))
    assert len(Frames.open(tmp_path / "a.mp4")) == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_clip(clip, share):
    path, _ = clip
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="cannot be decoded|no video frame"):
        Frames.open(path)


def test_files_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Frames.open(tmp_path / "none.mp4")
    for name, message in {"text.mp4": "cannot be decoded|no video", "text.png": "cannot be read as a picture"}.items():
        (tmp_path / name).write_text("This is a letter, not a film. " * 20)
        with pytest.raises(ValueError, match=message):
            Frames.open(tmp_path / name)


def test_truncated_picture(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        Frames.open(tmp_path / "a.png")


def test_cancelled_or_empty_clip_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(torch.rand(2, 16, 16, 3))
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="no frame was written"), VideoWriter(tmp_path / "a.mp4", 25):
        pass
    assert os.listdir(tmp_path) == []


def test_inference_mode(tmp_path, picture):
    with torch.inference_mode():
        with VideoWriter(tmp_path / "a.mp4", 25) as writer:
            writer.write(picture[None].clone())
        assert Frames.open(tmp_path / "a.mp4").frame(0).shape == (3, 64, 54)
        assert Frames.open(tmp_path / "a.mp4").pick([0, 0]).shape == (2, 3, 64, 54)
        assert Frames.from_images(picture[None].clone()).frame(0).shape == (3, 64, 54)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_video_has_the_sound_it_was_given_as_long_as_its_frames(tmp_path, picture, channels):
    rate, seconds = 16000, torch.arange(32000) / 16000
    tone = 0.5 * torch.sin(2 * math.pi * 440 * seconds).expand(channels, -1)
    with VideoWriter(tmp_path / "a.mp4", 10, (tone, rate)) as writer:
        writer.write(picture.expand(3, -1, -1, -1))
        writer.write(picture.expand(2, -1, -1, -1))
    heard, found = read_audio(tmp_path / "a.mp4")
    assert len(Frames.open(tmp_path / "a.mp4")) == 5
    assert found == rate and heard.shape[0] == channels and abs(heard.shape[1] / rate - 0.5) < 0.1
    spectrum = torch.fft.rfft(heard[0, :7000]).abs()
    assert float(spectrum.argmax()) * rate / 7000 == pytest.approx(440, abs=5)


def test_silence_of_no_length_and_sound_of_another_shape(tmp_path, picture):
    with VideoWriter(tmp_path / "a.mp4", 10, (torch.zeros(1, 0), 16000)) as writer:
        writer.write(picture[None])
    assert len(Frames.open(tmp_path / "a.mp4")) == 1 and read_audio(tmp_path / "a.mp4") is None
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="cannot be read"):
        read_audio(tmp_path / "b.mp4")
    with pytest.raises(ValueError, match="the sound has shape"):
        VideoWriter(tmp_path / "a.mp4", 10, (torch.zeros(3, 5), 16000))
