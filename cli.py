"""The command `expportrait`: every stage of the library from a shell, with progress bars."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from tqdm import tqdm

from .dit.generate_command import add_arguments as add_generate_arguments
from .dit.generate_command import run_generate
from .dit.pocket.train_command import add_arguments as add_pocket_arguments
from .dit.pocket.train_command import train_pocket
from .dit.train.command import add_arguments as add_dit_arguments
from .dit.train.command import train_dit
from .proxy.build import best_frame, build_proxy
from .proxy.calibrated_head import load_calibrated_head
from .proxy.files import FORMAT_KEY, read_metadata
from .proxy.fit import fit_frames
from .proxy.frames import Frames, VideoWriter, write_image
from .proxy.glb import export_glb
from .proxy.head_model import HeadModel
from .proxy.head_proxy import HeadProxy
from .proxy.head_track import FORMAT as TRACK_FORMAT
from .proxy.head_track import HeadTrack
from .proxy.landmarks import load_landmarker
from .proxy.overlay import render_overlay
from .proxy.preview import render_preview
from .proxy.refine import QUALITIES, OutsideMaps, RefineSettings, refine_head
from .proxy.refine.sheet import refine_sheet
from .proxy.render import MAPS, render_maps
from .proxy.sheet import contact_sheet
from .transfer.arkit_curves import arkit_from_motion, motion_from_arkit
from .transfer.arkit_files import read_arkit, write_arkit
from .transfer.motion import FORMAT as MOTION_FORMAT
from .transfer.motion import HeadMotion
from .transfer.network import TransferNetwork
from .transfer.neutral import Rest, neutral_expression
from .transfer.performance import Driver
from .transfer.presets import load_preset, preset_names
from .transfer.remap import load_motion_for
from .transfer.settings import (
    AXES,
    REGIONS,
    ExpressionOrigin,
    Mode,
    PoseGains,
    PoseOrigin,
    RegionGains,
    TransferSettings,
)
from .transfer.train_command import add_arguments as add_train_arguments
from .transfer.train_command import train_transfer
from .transfer.transfer import transfer_motion

PORTRAIT = Path(__file__).parent / "proxy" / "assets" / "portrait.jpg"
PRESET = "preset:"
CURVES = (".csv", ".json")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns 0, or 1 after printing one sentence about bad input."""
    options = _parser().parse_args(arguments)
    try:
        with torch.inference_mode():
            options.run(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"expportrait: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("expportrait: stopped", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress callable `(done, total)` that draws a tqdm bar."""
    with tqdm(desc=label, unit=" steps") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


# The stages, from files or values to values


def _fit(path: str, model: HeadModel, options: argparse.Namespace, label: str = "fit") -> HeadTrack:
    frames = Frames.open(path)
    landmarker = load_landmarker(options.device)
    with _bar(label) as progress:
        return fit_frames(
            frames, model, landmarker, options.face_index, options.missing, focal=options.focal, progress=progress
        )


def _build(
    path: str, track: HeadTrack, model: HeadModel, frame: int | None, neutral_frame: int | None = None
) -> tuple[Tensor, HeadProxy]:
    """Source picture [3, H, W] and proxy, from one frame of a picture or clip."""
    frames = Frames.open(path)
    frame = _source_frame(path, track, frame)
    source = frames.frame(frame).to(model.template)
    with _bar("proxy") as progress:
        neutral = neutral_expression(track, model, neutral_frame)
        return source, build_proxy(source, track, model, frame, neutral, progress=progress)


def _source_frame(path: str, track: HeadTrack, frame: int | None) -> int:
    frame = best_frame(track) if frame is None else frame
    if not 0 <= frame < len(track):
        raise ValueError(f"frame {frame} is not in {path}, which has {len(track)}; give --frame 0 to {len(track) - 1}")
    return frame


def _refine(path: str, track: HeadTrack, model: HeadModel, options: argparse.Namespace) -> HeadProxy:
    frames = Frames.open(path)
    frame = _source_frame(path, track, options.frame)
    paths = {"normals": options.normals, "depth": options.depth, "mask": options.mask}
    maps = OutsideMaps(**{name: Frames.open(given) for name, given in paths.items() if given is not None})
    neutral = neutral_expression(track, model, options.neutral_frame)
    settings = RefineSettings.of(options.refine)
    with _bar("refine") as progress:
        refined = refine_head(frames, track, model, settings, maps, frame, neutral, progress)
    if options.sheet:
        write_image(options.sheet, refine_sheet(frames, track, model, refined).permute(1, 2, 0))
    return refined.proxy


def _driver(name: str, model: HeadModel, options: argparse.Namespace) -> tuple[HeadTrack | HeadMotion, Rest | None]:
    """A driver from `preset:NAME`, a saved track or motion, ARKit curves, or a clip that is fitted now."""
    if name.startswith(PRESET):
        return load_preset(name.removeprefix(PRESET), model)
    if Path(name).suffix == ".safetensors":
        kinds = (TRACK_FORMAT, MOTION_FORMAT)
        found = read_metadata(name).get(FORMAT_KEY, "none")
        if found not in kinds:
            raise ValueError(f"{name} has format {found}, expected one of {', '.join(kinds)}; give a track, a motion or a clip")
        if found == MOTION_FORMAT:
            return load_motion_for(name, model).to(options.device), None
        return HeadTrack.load(name, model.model_id).to(options.device), None
    if Path(name).suffix.lower() in CURVES:
        return motion_from_arkit(read_arkit(name), model), None
    return _fit(name, model, options, "fit driver"), None


def _write_video(path: str | Path, images: Iterator[Tensor], total: int, fps: float, label: str) -> None:
    with _bar(label) as progress, VideoWriter(path, fps) as writer:
        done = 0
        for chunk in images:
            writer.write(chunk)
            done += len(chunk)
            progress(done, total)


def _transfer(proxy: HeadProxy, name: str, model: HeadModel, options: argparse.Namespace) -> HeadMotion:
    main = Driver(*_driver(name, model, options))
    other = None if options.other_driver is None else Driver(*_driver(options.other_driver, model, options))
    if options.performer:
        performer = HeadProxy.load(options.performer, model.model_id).to(options.device)
        if options.expression_from == "other driver" and other is not None:
            other = dataclasses.replace(other, proxy=performer)
        else:
            main = dataclasses.replace(main, proxy=performer)
    names = ("pose_from", "expression_from", "mix", "pose_strength", "expression_strength", "smoothing", "mode", "neutral_frame")
    settings = TransferSettings(
        **{key: getattr(options, key) for key in names},
        match_amplitude=options.match_amplitude,
        detail=options.detail,
        contact=not options.no_contact,
        gains=RegionGains(**{key: value for key, value in options.gain.items() if key in REGIONS}),
        pose_gains=PoseGains(**{key: value for key, value in options.gain.items() if key in AXES}),
    )
    network = TransferNetwork.load(options.network, model.model_id).to(options.device) if options.network else None
    return transfer_motion(proxy, main, model, settings, other, network)


# The commands


def _run_fit(options: argparse.Namespace) -> None:
    model = _model(options)
    track = _fit(options.input, model, options)
    track.save(options.out)
    if options.overlay:
        images = render_overlay(Frames.open(options.input), track, model)
        _write_video(options.overlay, images, len(track), track.fps, "overlay")


def _run_build(options: argparse.Namespace) -> None:
    for name in ("normals", "depth", "mask", "sheet"):
        if getattr(options, name) and not options.refine:
            raise ValueError(f"--{name} serves the refinement only; add --refine standard, or leave it out")
    model = _model(options)
    if options.track:
        track = HeadTrack.load(options.track, model.model_id).to(options.device)
    else:
        track = _fit(options.input, model, options)
    if options.refine:
        proxy = _refine(options.input, track, model, options)
    else:
        _, proxy = _build(options.input, track, model, options.frame, options.neutral_frame)
    proxy.save(options.out)


def _run_transfer(options: argparse.Namespace) -> None:
    model = _model(options)
    proxy = HeadProxy.load(options.proxy, model.model_id).to(options.device)
    _transfer(proxy, options.driver, model, options).save(options.out)


def _run_render(options: argparse.Namespace) -> None:
    model = _model(options)
    proxy = HeadProxy.load(options.proxy, model.model_id).to(options.device)
    motion = load_motion_for(options.motion, model).to(options.device)
    width, height = options.size or (None, None)
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(VideoWriter(Path(options.out) / f"{name}.mp4", motion.fps)) for name in options.maps
        }
        progress = stack.enter_context(_bar("render"))
        for chunk in render_maps(proxy, motion, model, options.maps, width, height, progress=progress):
            for name, images in chunk.items():
                writers[name].write(images.expand(-1, -1, -1, 3))


def _run_animate(options: argparse.Namespace) -> None:
    model = _model(options)
    track = _fit(options.source, model, options, "fit source")
    source, proxy = _build(options.source, track, model, options.frame)
    motion = _transfer(proxy, options.driver, model, options)
    _write_video(options.out, render_preview(source, proxy, motion, model), len(motion), motion.fps, "preview")


def _run_export(options: argparse.Namespace) -> None:
    model = _model(options)
    proxy = HeadProxy.load(options.proxy, model.model_id).to(options.device)
    motion = load_motion_for(options.motion, model).to(options.device) if options.motion else None
    export_glb(options.glb, proxy, model, motion)


def _run_train_transfer(options: argparse.Namespace) -> None:
    train_transfer(options, _model(options), _bar)


def _run_train_pocket(options: argparse.Namespace) -> None:
    train_pocket(options, _model(options), _bar)


def _run_train_dit(options: argparse.Namespace) -> None:
    train_dit(options, _model(options), _bar)


def _run_generate(options: argparse.Namespace) -> None:
    run_generate(options, _model(options), _bar)


def _run_curves(options: argparse.Namespace) -> None:
    """Motion or curves in, curves or motion out, by the endings of the names."""
    model, into, out = _model(options), Path(options.input), Path(options.out)
    if out.suffix.lower() not in (*CURVES, ".safetensors"):
        raise ValueError(f"{out} ends in {out.suffix or 'nothing'}; give --out a name that ends in .csv, .json or .safetensors")
    if into.suffix.lower() in CURVES:
        motion = motion_from_arkit(read_arkit(into, options.fps), model)
    elif options.fps is None:
        motion = load_motion_for(into, model)
    else:
        raise ValueError(f"{into} is a motion, which knows its frame rate; leave --fps out")
    if out.suffix.lower() in CURVES:
        write_arkit(out, arkit_from_motion(motion, model))
    else:
        motion.save(out)


def _run_demo(options: argparse.Namespace) -> None:
    """The whole road on what the pack ships: portrait and preset in; video, sheet, proxy, motion and GLB out."""
    model, out = _model(options), Path(options.out)
    track = _fit(options.source, model, options, "fit source")
    source, proxy = _build(options.source, track, model, None)
    proxy.save(out / "proxy.safetensors")
    motion = _transfer(proxy, options.driver, model, options)
    motion.save(out / "motion.safetensors")
    shown = torch.linspace(0.12, 0.75, 4).mul(len(motion)).long().tolist()
    strip: dict[int, Tensor] = {}

    def keep(images: Iterator[Tensor]) -> Iterator[Tensor]:
        start = 0
        for chunk in images:
            strip.update({i: chunk[i - start] for i in shown if start <= i < start + len(chunk)})
            start += len(chunk)
            yield chunk

    images = keep(render_preview(source, proxy, motion, model))
    _write_video(out / "preview.mp4", images, len(motion), motion.fps, "preview")
    overlay = next(render_overlay(Frames.open(options.source), track, model))[0]
    rows = []
    stills = motion.select(shown)
    for chunk in render_maps(proxy, stills, model, ("normals", "depth", "landmarks"), chunk=len(shown)):
        for i, frame in enumerate(shown):
            rows.append([source.permute(1, 2, 0), overlay] + [chunk[n][i] for n in ("normals", "depth", "landmarks")] + [strip[frame]])
    labels = ["source", "fit", "normals", "depth", "landmarks", "result"]
    write_image(out / "contact_sheet.jpg", contact_sheet(rows, labels))
    export_glb(out / "head.glb", proxy, model, motion)
    for name in ("preview.mp4", "contact_sheet.jpg", "proxy.safetensors", "motion.safetensors", "head.glb"):
        print(out / name)


def _model(options: argparse.Namespace) -> HeadModel:
    with _bar("calibrate") if options.head else contextlib.nullcontext() as progress:
        return load_calibrated_head(options.head, load_landmarker("cpu"), progress=progress).to(options.device)


# The arguments


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give WIDTHxHEIGHT in pixels, such as 832x480")
    return int(width), int(height)


def _gains(text: str) -> dict[str, float]:
    gains = {}
    for part in text.split(","):
        name, _, amount = (piece.strip() for piece in part.partition("="))
        if name not in REGIONS + AXES:
            raise argparse.ArgumentTypeError(f"there is no region or axis {name!r}; choose from {', '.join(REGIONS + AXES)}")
        try:
            gains[name] = float(amount)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is no gain; give NAME=AMOUNT, such as mouth=1.3") from None
    return gains


def _map_names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MAPS:
            raise argparse.ArgumentTypeError(f"there is no map {name!r}; choose from {', '.join(MAPS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="expportrait", description="Portrait animation: fit, build, transfer, render, animate.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", default="cpu", help="torch device, such as cpu, cuda or mps (default: %(default)s)")
    common.add_argument("--head", help="SMPLX_*.npz to use instead of the embedded head (non-commercial licence)")

    fitting = argparse.ArgumentParser(add_help=False)
    fitting.add_argument("--face-index", type=int, default=0, help="which face, the largest being 0")
    fitting.add_argument("--missing", default="interpolate", choices=("interpolate", "previous", "empty"), help="frames without a face")
    fitting.add_argument("--focal", type=float, help="focal length in pixels (default: estimated)")

    moving = argparse.ArgumentParser(add_help=False)
    for side, origins in (("pose", PoseOrigin), ("expression", ExpressionOrigin)):
        moving.add_argument(f"--{side}-from", default="driver", choices=get_args(origins), help=f"where the {side} comes from")
        moving.add_argument(f"--{side}-strength", type=float, default=1.0, help=f"scales the driver's {side}")
    moving.add_argument("--mix", type=float, default=0.5, help="share of the driver where an origin is mix")
    moving.add_argument("--smoothing", type=float, default=0.0, help="standard deviation of the smoothing over time, seconds")
    moving.add_argument("--other-driver", metavar="DRIVER", help="second performer, for --expression-from 'other driver'")
    moving.add_argument("--performer", metavar="PROXY", help="refined head of who acts the expression: its wrinkles go over too")
    moving.add_argument("--mode", default="relative", choices=get_args(Mode), help="take what differs from the driver's rest, or all")
    moving.add_argument("--neutral-frame", type=int, metavar="N", help="frame of the driver in which its face is at rest (default: found)")
    moving.add_argument("--match-amplitude", action="store_true", help="make the driver's strongest expressions fill the target's range")
    moving.add_argument("--detail", type=float, default=0.5, help="0: skin as predicted, 1: the performer's own wrinkles")
    moving.add_argument("--network", metavar="FILE", help="transfer network of train-transfer (default: the shipped one)")
    moving.add_argument("--no-contact", action="store_true", help="do not make lids close and lips seal on the target")
    gain_help = f"strength by region or axis, such as mouth=1.3,yaw=0.5: {', '.join(REGIONS + AXES)}"
    moving.add_argument("--gain", type=_gains, default={}, metavar="NAME=AMOUNT,...", help=gain_help)

    def command(name: str, run: Callable, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[common, *parents])
        sub.set_defaults(run=run)
        return sub

    fit = command("fit", _run_fit, "Fit a picture or clip: writes a track.", fitting)
    fit.add_argument("input", help="picture or clip")
    fit.add_argument("--out", required=True, help="track file (.safetensors)")
    fit.add_argument("--overlay", help="video of the fitted head over the frames (.mp4)")

    build = command("build", _run_build, "Build a head proxy from a picture or clip.", fitting)
    build.add_argument("input", help="picture or clip")
    build.add_argument("--out", required=True, help="proxy file (.safetensors)")
    build.add_argument("--track", help="track of the input, if it was fitted before")
    build.add_argument("--frame", type=int, help="frame that gives the looks (default: the best one)")
    build.add_argument("--neutral-frame", type=int, metavar="N", help="frame in which the face is at rest (default: found)")
    build.add_argument("--refine", choices=QUALITIES, help="displace the head to what the frames show, at this quality")
    build.add_argument("--normals", metavar="FILE_OR_CLIP", help="camera-space normal maps of the frames, for --refine")
    build.add_argument("--sheet", metavar="PICTURE", help="picture of what was found, for --refine")
    build.add_argument("--depth", metavar="FILE_OR_CLIP", help="depth maps of the frames, for --refine")
    build.add_argument("--mask", metavar="FILE_OR_CLIP", help="white where the person is, for --refine")

    driver_help = "clip, track or motion file, ARKit curves (.csv, .json), or " + ", ".join(PRESET + name for name in preset_names())
    transfer = command("transfer", _run_transfer, "Move a driver's expression and pose onto a proxy.", fitting, moving)
    transfer.add_argument("--proxy", required=True, help="proxy file")
    transfer.add_argument("--driver", required=True, help=driver_help)
    transfer.add_argument("--out", required=True, help="motion file (.safetensors)")

    render = command("render", _run_render, "Render condition maps of a proxy in motion, one video per map.")
    render.add_argument("--proxy", required=True, help="proxy file")
    render.add_argument("--motion", required=True, help="motion file")
    render.add_argument("--maps", type=_map_names, default=["normals"], help=f"comma-separated list of {', '.join(MAPS)}")
    render.add_argument("--size", type=_size, help="WIDTHxHEIGHT (default: that of the source picture)")
    render.add_argument("--out", required=True, help="folder for the videos")

    animate = command("animate", _run_animate, "Portrait and driver in, preview video out.", fitting, moving)
    animate.add_argument("--source", required=True, help="picture or clip of the person to animate")
    animate.add_argument("--driver", required=True, help=driver_help)
    animate.add_argument("--frame", type=int, help="frame of the source that gives the looks (default: the best one)")
    animate.add_argument("--out", required=True, help="video file (.mp4)")

    export = command("export", _run_export, "Write a proxy as binary glTF.")
    export.add_argument("--proxy", required=True, help="proxy file")
    export.add_argument("--motion", help="motion file, for an animated GLB")
    export.add_argument("--glb", required=True, help="file to write (.glb)")

    train = command("train-transfer", _run_train_transfer, "Train the network that predicts how expressions look on a face.")
    add_train_arguments(train)

    pocket = command("train-pocket", _run_train_pocket, "Make data for the pocket model, train it, export it.")
    add_pocket_arguments(pocket)

    adapter = command("train-dit", _run_train_dit, "Make data for a portrait adapter, train it on a Wan model, export it.")
    add_dit_arguments(adapter)

    generation = command("generate", _run_generate, "Make a portrait video with a diffusers Wan pipeline.")
    add_generate_arguments(generation)

    curves = command("curves", _run_curves, "Turn a motion into ARKit curves, or curves into a motion.")
    curves.add_argument("--in", dest="input", required=True, help="motion file, or ARKit curves (.csv of Live Link Face, .json)")
    curves.add_argument("--out", required=True, help="ARKit curves (.csv, .json) or motion file (.safetensors)")
    curves.add_argument("--fps", type=float, help="frames per second of the curves (default: what the file tells)")

    demo = command("demo", _run_demo, "The whole road on what the pack ships.", fitting, moving)
    demo.add_argument("--source", default=str(PORTRAIT), help="picture or clip of the person to animate")
    demo.add_argument("--driver", default=PRESET + "speaking", help=driver_help)
    demo.add_argument("--out", default="output/demo", help="folder for the results (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
