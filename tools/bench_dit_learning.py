"""Does an adapter learn to follow the head? A tiny Wan, adapters trained by `expportrait train-dit`, people that nobody trained on.

    python tools/bench_dit_learning.py [--folder FOLDER] [--picture FILE]

Three adapters are trained alike but for what their control shows: the face's lines, normals of the plain head, normals of the refined head.
Each makes held-out clips from one picture and the head's motion, by `dit.generate`; the refined one makes each clip from another clip's
head too. Clips are taken frame by frame, as the tiny VAE is made for single frames. Every stage is kept in the folder, so that the command
goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from bars import bar
from bench_dit_base import LAYERS, WIDTH, make_vae, train_base
from bench_dit_clips import FRAMES, SIDE, make_clips
from bench_dit_normals import NormalReader, apart, fitted_normals, normals_of, train_reader
from picture_measures import psnr
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from expportrait.dit.adapter.adapter_file import load_adapter
from expportrait.dit.generate import GenerateSettings, generate
from expportrait.dit.train.cache import performed, read_head
from expportrait.proxy.frames import Frames, write_image
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.sheet import contact_sheet

PEOPLE, HELD_OUT, LOOKED_AT = 64, 12, 2
BASE_STEPS, STEPS, READER_STEPS = 1500, 400, 300
BATCH, RATE, RANK, CONTROL_WIDTH = 8, 5e-4, 16, 16
SAMPLING = GenerateSettings(SIDE, SIDE, frames=1, steps=12, guidance=1.0)
MADE = FRAMES - 1  # frames of a clip; the last one is the reference
ARMS = {"lines": ("lines", "coarse"), "coarse": ("normals", "coarse"), "refined": ("normals", "refined")}  # control, and which heads
WRONG = "refined, another clip's head"
WORKERS = 2
FOLDER = Path(tempfile.gettempdir()) / "expportrait_learning"
LEAST_RATIO = 2.0


def learning_bars(folder: Path, picture: Path | None = None) -> list[dict]:
    """Trains what is not trained yet in `folder`, and measures. `picture` shows a few held-out clips, made in every way."""
    model = load_head_model()
    prepare(folder, model)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda kind: train_arm(folder, kind), ARMS))
    made = {kind: make_all(folder, model, kind) for kind in ARMS}
    made[WRONG] = make_all(folder, model, "refined", wrong=True)
    return measure(folder, model, made, picture)


def prepare(folder: Path, model: HeadModel) -> None:
    """Clips, VAE, shards and base."""
    for name, count, seed in (("clips", PEOPLE, 1), ("held", HELD_OUT, 2), ("look", LOOKED_AT, 3)):
        with torch.inference_mode():
            make_clips(folder / name, model, count, seed, _bar(f"{name}: people"))
    base = folder / "base"
    if not (base / "vae").exists():
        make_vae(folder / "clips", base / "vae")
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda kind: cache_arm(folder, kind), ARMS))
    if not (base / "transformer").exists():
        train_base(folder / "clips", base / "vae", BASE_STEPS, base / "transformer", progress=_bar("base: steps"))


def cache_arm(folder: Path, kind: str) -> None:
    control, heads = ARMS[kind]
    for clips, out in (("clips", "shards"), ("look", "look_shards")):
        given = ["--clips", folder / clips, "--heads", folder / clips / heads, "--out", folder / out / kind, "--vae", folder / "base/vae"]
        base = ["--width", WIDTH, "--layers", LAYERS, "--control-width", CONTROL_WIDTH, "--code", "none"]
        _run("cache", *given, *base, "--inputs", control, "--size", SIDE, "--frames", 1, "--variants", 2)


def train_arm(folder: Path, kind: str) -> None:
    run, out = folder / "runs" / kind, folder / f"{kind}.safetensors"
    if out.exists():
        return
    given = ["--shards", folder / "shards" / kind, "--transformer", folder / "base/transformer", "--run", run]
    looks = ["--held-out", folder / "look_shards" / kind, "--look-every", STEPS // 4]
    learning = ["--steps", STEPS, "--batch", BATCH, "--rate", RATE, "--rank", RANK, "--float32", "--save-every", 50]
    _run("train", *given, *looks, *learning)
    _run("export", "--run", run, "--out", out)


def _run(*arguments) -> None:
    command = [sys.executable, "-m", "expportrait.cli", "train-dit", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"OMP_NUM_THREADS": "1"})


def make_all(folder: Path, model: HeadModel, kind: str, wrong: bool = False) -> Tensor:
    """Held-out clips [N, MADE, H, W, 3] by the exported adapter of a kind; `wrong` takes all that it reads from the next clip's head."""
    path = folder / f"made_{kind}{'_wrong' if wrong else ''}.safetensors"
    if not path.exists():
        held, file, pipeline = folder / "held", load_adapter(folder / f"{kind}.safetensors"), _pipeline(folder / "base")
        names = [clip.stem for clip in sorted(held.glob("*.mp4"))]
        parts, progress = [], _bar(f"{path.stem}: clips")
        for k, name in enumerate(names):
            frames = Frames.open(held / f"{name}.mp4")
            track, head = read_head(held / ARMS[kind][1], names[(k + wrong) % len(names)], model)
            pose = {"source_expression": track.expression, "source_joints": track.joints, "source_translation": track.translation}
            head = dataclasses.replace(head, **{part: values[MADE] for part, values in pose.items()})
            motions = [performed(track, head).select([frame]) for frame in range(MADE)]
            source = frames.frame(MADE)
            parts.append(torch.cat([generate(pipeline, source, head, motion, model, file, SAMPLING) for motion in motions]))
            progress(k + 1, len(names))
        save_file({"frames": torch.stack(parts)}, path)
    return load_file(path)["frames"]


def _pipeline(base: Path):
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000)
    parts = {"tokenizer": None, "text_encoder": None, "image_encoder": None, "image_processor": None, "scheduler": scheduler}
    vae, transformer = AutoencoderKLWan.from_pretrained(base / "vae"), WanTransformer3DModel.from_pretrained(base / "transformer")
    pipeline = WanImageToVideoPipeline(**parts, vae=vae.eval(), transformer=transformer.eval())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def measure(folder: Path, model: HeadModel, made: dict[str, Tensor], picture: Path | None) -> list[dict]:
    """Bars of what was made, and the picture."""
    landmarker, reader, held = load_landmarker(), _reader(folder, model), folder / "held"
    fit: dict[str, list[float]] = {kind: [] for kind in ("true clip", *made)}
    read, close, missed = {kind: [] for kind in fit}, {kind: [] for kind in made}, dict.fromkeys(fit, 0.0)
    rows = []
    for k, clip in enumerate(tqdm(sorted(held.glob("*.mp4")), "measure: clips")):
        (track, coarse), (_, refined) = (read_head(held / kind, clip.stem, model) for kind in ("coarse", "refined"))
        motion, truth = performed(track).select(list(range(MADE))), Frames.open(clip).pick(list(range(MADE)))
        plain, face = normals_of(coarse, motion, model, track.camera)
        detailed, _ = normals_of(refined, motion, model, track.camera)
        shown = {"true clip": truth.permute(0, 2, 3, 1)} | {name: clips[k] for name, clips in made.items()}
        for kind, frames in shown.items():
            found, valid = fitted_normals(frames, model, landmarker, track.focal)
            missed[kind] += float((~valid).sum())
            if bool(valid.any()):
                fit[kind].append(float(apart(found, plain, face)[valid].mean()))
            read[kind].append(float(apart(reader(frames.permute(0, 3, 1, 2)), detailed, face).mean()))
            if kind in made:
                close[kind].append(float(psnr(frames.permute(0, 3, 1, 2), truth, face[:, None].float()).mean()))
        if k % 2 == 0:
            middle = k // 2 % MADE
            rows.append(
                [truth[middle].permute(1, 2, 0), *((detailed[middle] + 1).permute(1, 2, 0) / 2,), *(c[k, middle] for c in made.values())]
            )
    if picture is not None:
        write_image(picture, contact_sheet(list(zip(*rows)), height=160))
    return _bars(fit, read, close, missed)


def _bars(fit: dict[str, list[float]], read: dict[str, list[float]], close: dict[str, list[float]], missed: dict[str, float]) -> list[dict]:
    def mean(values: list[float]) -> float:
        return sum(values) / max(len(values), 1)

    ratio = mean(fit[WRONG]) / mean(fit["refined"]) if fit[WRONG] and fit["refined"] else 0.0  # no face in anything: nothing learned
    figures = {f"{kind}, degrees": mean(values) for kind, values in fit.items()} | {
        f"{kind}, frames without a face": n for kind, n in missed.items()
    }
    bars = [
        bar(
            "learning: fitted normals, error with another clip's head over error with its own", ratio, "times", least=LEAST_RATIO, **figures
        )
    ]
    table = {f"{kind}, degrees": mean(values) for kind, values in read.items()}
    table |= {f"{kind}, dB on the face": mean(values) for kind, values in close.items()}
    for worse, better, than in (("lines", "coarse", "landmark lines"), ("coarse", "refined", "coarse ones")):
        gain = torch.tensor(read[worse]) - torch.tensor(read[better])  # clip by clip
        error = float(gain.std() / len(gain) ** 0.5)
        title = f"learning: normals read off the shading, {better} normals better than {than} by"
        bars.append(bar(title, float(gain.mean()), "degrees", least=2 * error, standard_error=error, clips=len(gain), **table))
    return bars


def _reader(folder: Path, model: HeadModel) -> NormalReader:
    path = folder / "reader.safetensors"
    if not path.exists():
        with torch.enable_grad():
            save_file(train_reader(folder / "clips", model, READER_STEPS).state_dict(), path)
    reader = NormalReader()
    reader.load_state_dict(load_file(path))
    return reader.eval()


def _bar(name: str):
    line = tqdm(desc=name)

    def progress(done: int, total: int) -> None:
        line.total = total
        line.update(done - line.n)

    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "expportrait_learning", help="for clips, runs and results"
    )
    parser.add_argument("--picture", type=Path, help="picture of held-out clips made in every way")
    options = parser.parse_args()
    print(json.dumps(learning_bars(options.folder, options.picture), indent=1))


if __name__ == "__main__":
    main()
