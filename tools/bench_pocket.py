"""Bars of the pocket model: random people that it never saw, and real clips against the preview.

    python tools/bench_pocket.py synthetic|real [--model FILE] [--data ../shared/data] [--sheets FOLDER]

Real clips show each person as they are in other frames than the source: the fitted track drives the proxy of one frame, and preview
and pocket model are compared with the true frame, inside the square around the head.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from bars import bar
from bench import DATA
from picture_measures import edge_distance, psnr, ssim
from refine_clips import SomeFrames
from torch import Tensor

from expportrait.dit.pocket.conditions import CHANNELS
from expportrait.dit.pocket.data import SEED_SPAN, ExampleMaker
from expportrait.dit.pocket.model import PocketModel
from expportrait.dit.pocket.render import Cut, render_pocket
from expportrait.dit.pocket.train import grid_picture, head_psnr, predict
from expportrait.dit.pocket.weights import SHIPPED, load_model
from expportrait.proxy.build import best_frame, build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames, write_image
from expportrait.proxy.head_model import HeadModel, load_head_model
from expportrait.proxy.inpaint import dilate
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.posing import output_camera
from expportrait.proxy.preview import render_preview
from expportrait.proxy.sheet import contact_sheet

SEED = 4000  # of people that nobody trains on
PEOPLE, POSES = 16, 2
MOUTH_RIM = 0.03  # of the picture's side
LEAST_GAIN = LEAST_COST = 3.0  # dB
LEAST_MOUTH = 1.0
STILL_FRAMES, MOST_FLICKER = 8, 1.0  # frames; 1/255
REAL_FRAMES = 24  # of each clip, spread evenly, of which one is the source
THREADS = 2


def pocket_synthetic_bars(path: Path = SHIPPED, side: int = 256, sheets: Path | None = None) -> list[dict]:
    """Held-out people: gain over the warp, what wrong inputs cost, and flicker on a still input."""
    with torch.inference_mode():
        model = load_head_model()
        pocket, batch = load_model(path, model.model_id), held_out(model, side)
        truth, own = batch["target"], predict_all(pocket, batch)
        if sheets is not None:
            write_image(sheets / "synthetic.png", grid_picture({k: v[:16:2] for k, v in batch.items()}, own[:16:2]))
        warp = batch["control"][:, :3]
        own_psnr, warp_psnr = head_psnr(own, batch).mean(), head_psnr(warp, batch).mean()
        by_steps = {f"{steps} steps": float(head_psnr(predict_all(pocket, batch, steps), batch).mean()) for steps in (1, 2, 8)}
        looks = {"PSNR of the warp": float(warp_psnr), "PSNR": float(own_psnr), "SSIM of the warp": float(ssim(warp, truth).mean())}
        looks |= {"SSIM": float(ssim(own, truth).mean()), "mouth and eyes, dB": float(_features(own, batch) - _features(warp, batch))}
        title = "pocket, held-out people: gain over the warp on the head"
        bars = [bar(title, float(own_psnr - warp_psnr), "dB", least=LEAST_GAIN, **looks, **by_steps)]

        def cost(wrong: dict[str, Tensor]) -> float:
            return float(own_psnr - head_psnr(predict_all(pocket, batch | wrong), batch).mean())

        other, turned = batch["control"].roll(POSES, 0), batch["control"].unflatten(0, (-1, POSES)).roll(1, 1).flatten(0, 1)
        reference, code = batch["reference"].roll(POSES, 0), batch["code"].roll(POSES, 0)
        strange = swap(batch["control"], other, "warp", "validity", "background")
        tokens_alone = cost({"reference": reference})
        value = cost({"control": strange, "reference": reference})
        bars.append(bar("pocket: cost of another person's reference", value, "dB", least=LEAST_COST, reference_tokens_alone=tokens_alone))
        wrong = swap(batch["control"], turned, "normals", "regions")
        value = cost({"control": wrong})
        bars.append(bar("pocket: cost of another frame's normals and regions", value, "dB", least=LEAST_COST))
        mouth = mouth_box(batch["control"])
        at_mouth = psnr(own, truth, mouth).mean()
        swapped = predict_all(pocket, batch | {"code": code})
        drawn = predict_all(pocket, batch | {"code": code, "control": swap(batch["control"], other, "regions")})
        figures = {"PSNR in the mouth box": float(at_mouth), "of the warp": float(psnr(warp, truth, mouth).mean())}
        figures["code alone"] = float(at_mouth - psnr(swapped, truth, mouth).mean())
        value = float(at_mouth - psnr(drawn, truth, mouth).mean())
        title = "pocket: cost of another's expression (code and regions) in the mouth box"
        bars.append(bar(title, value, "dB", least=LEAST_MOUTH, **figures))
        bars.append(_flicker(pocket, batch))
        return bars


def held_out(model: HeadModel, side: int) -> dict[str, Tensor]:
    """Batch of PEOPLE random people with POSES frames each, person by person."""
    maker = ExampleMaker(model, side)
    examples = [maker.random(torch.Generator().manual_seed(SEED * SEED_SPAN + k), POSES) for k in range(PEOPLE)]
    batch = {name: torch.cat([getattr(e, name) for e in examples]) for name in ("control", "code", "target", "focus")}
    return batch | {"reference": torch.stack([e.reference for e in examples]).repeat_interleave(POSES, 0)}


def predict_all(pocket: PocketModel, batch: dict[str, Tensor], steps: int = 4) -> Tensor:
    """`predict` a few examples at a time."""
    count = len(batch["control"])
    parts = [{name: value[k : k + 4] for name, value in batch.items()} for k in range(0, count, 4)]
    return torch.cat([predict(pocket, part, steps) for part in parts])


def swap(control: Tensor, other: Tensor, *names: str) -> Tensor:
    """A control picture with some of its channels from another."""
    parts = zip(CHANNELS, control.split(list(CHANNELS.values()), 1), other.split(list(CHANNELS.values()), 1))
    return torch.cat([second if name in names else first for name, first, second in parts], dim=1)


def mouth_box(control: Tensor) -> Tensor:
    """Mask [t, 1, H, W] of the upright box around lips and mouth, with a rim."""
    start = CHANNELS["warp"] + CHANNELS["validity"] + CHANNELS["normals"]
    mouth = dilate((control[:, start : start + 2].amax(1, keepdim=True) > 0.3).float(), max(1, round(MOUTH_RIM * control.shape[-1])))
    return _filled(mouth.amax(2, keepdim=True), 3) * _filled(mouth.amax(3, keepdim=True), 2)


def _filled(mask: Tensor, dim: int) -> Tensor:
    """1 from the first to the last 1 along a dimension."""
    return torch.minimum(mask.cummax(dim).values, mask.flip(dim).cummax(dim).values.flip(dim))


def _features(result: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return head_psnr(result, batch, least=3).mean()


def _flicker(pocket: PocketModel, batch: dict[str, Tensor]) -> dict:
    """Largest change between frames of a still input, drawn in two portions of different lengths."""
    still = {name: value[:1].expand(STILL_FRAMES, *value.shape[1:]) for name, value in batch.items()}
    portions = (slice(0, 3), slice(3, STILL_FRAMES))
    frames = torch.cat([predict(pocket, {name: value[portion] for name, value in still.items()}) for portion in portions])
    other = predict(pocket, {name: value[:1] for name, value in still.items()}, seed=1)
    value = 255 * float(frames.diff(dim=0).abs().max())
    seeds = float(psnr(other, frames[:1]).mean())
    return bar("pocket: flicker on a still input", value, "1/255, largest", most=MOST_FLICKER, two_seeds_psnr=seeds)


# Real clips


def pocket_real_bars(data: Path, path: Path = SHIPPED, sheets: Path | None = None) -> list[dict]:
    """Self-reenactment of every clip on frames other than the source, against the preview, and the time for it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.inference_mode():
            model = load_head_model()
            pocket = load_model(path, model.model_id)
            return [bar for clip in sorted((Path(data) / "clips").glob("*.mp4")) for bar in _clip_bars(clip, model, pocket, sheets)]
    finally:
        torch.set_num_threads(threads)


def _clip_bars(path: Path, model: HeadModel, pocket: PocketModel, sheets: Path | None) -> list[dict]:
    frames = Frames.open(path)
    frames = SomeFrames(frames, torch.linspace(0, len(frames) - 1, min(REAL_FRAMES, len(frames))).round().long().unique())
    images = torch.cat(list(frames.chunks()))
    track = fit_frames(frames, model, load_landmarker())
    source = best_frame(track)
    proxy = build_proxy(images[source], track, model, source)
    others = torch.tensor([k for k in range(len(track)) if k != source and bool(track.valid[k])])
    motion = track.at(others)
    cut = Cut.around(proxy, motion, model, output_camera(proxy.camera))
    results, seconds = {}, {}
    for name, draw in (("preview", render_preview), ("pocket", lambda *given: render_pocket(*given, pocket))):
        start = time.perf_counter()
        frames_drawn = torch.cat(list(draw(images[source], proxy, motion, model)))
        seconds[name] = (time.perf_counter() - start) / len(motion)
        results[name] = cut.of(frames_drawn.permute(0, 3, 1, 2))
    size = results["preview"].shape[-1]
    truth = cut.of(torch.nn.functional.interpolate(images[others], size=frames_drawn.shape[1:3], mode="area"))
    if sheets is not None:
        shown = torch.linspace(0, len(others) - 1, 6).round().long().tolist()
        rows = [[image.permute(1, 2, 0) for image in part[shown]] for part in (truth, results["preview"], results["pocket"])]
        write_image(sheets / f"{path.stem}.png", contact_sheet(rows, height=min(size, 288)))
    measures = {"PSNR": psnr, "SSIM": ssim, "MS-GMSD": edge_distance}
    found = {label: {name: measure(result, truth) for name, result in results.items()} for label, measure in measures.items()}
    bars = []
    for label, values in found.items():
        gain = (values["pocket"] - values["preview"]) * (-1 if label == "MS-GMSD" else 1)
        figures = {name: float(value.mean()) for name, value in values.items()}
        figures |= {"share of frames that gain": float((gain > 0).float().mean()), "frames": float(len(others))}
        unit, title = "dB" if label == "PSNR" else "", f"pocket, {path.stem}: {label} gained over the preview"
        bars.append(bar(title, float(gain.mean()), unit, least=0.0, **figures))
    bars[0]["figures"] |= {f"seconds per frame, {name}": round(value, 3) for name, value in seconds.items()}
    return bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("synthetic", "real"))
    parser.add_argument("--model", type=Path, default=SHIPPED, help="exported pocket model")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with clips/")
    parser.add_argument("--size", type=int, default=256, help="side of the synthetic pictures")
    parser.add_argument("--sheets", type=Path, help="folder for pictures")
    options = parser.parse_args()
    if options.sheets is not None:
        options.sheets.mkdir(parents=True, exist_ok=True)
    if options.part == "synthetic":
        bars = pocket_synthetic_bars(options.model, options.size, options.sheets)
    else:
        bars = pocket_real_bars(options.data, options.model, options.sheets)
    print(json.dumps(bars, indent=1))


if __name__ == "__main__":
    main()
