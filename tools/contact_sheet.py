"""Contact sheet to look at: source, fit overlay, normals, landmark lines and preview, one row per picture.

    python tools/contact_sheet.py OUT.jpg PICTURE... [--driver expressions] [--frames 4]
"""

from __future__ import annotations

import argparse

import torch

from expportrait.proxy.build import best_frame, build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames, write_image
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.overlay import render_overlay
from expportrait.proxy.preview import render_preview
from expportrait.proxy.render import render_maps
from expportrait.proxy.sheet import contact_sheet
from expportrait.transfer.neutral import rest_of
from expportrait.transfer.performance import Driver
from expportrait.transfer.presets import load_preset
from expportrait.transfer.transfer import transfer_motion


def rows_of(path: str, model, landmarker, preset: str, count: int) -> list[list[torch.Tensor]]:
    frames = Frames.open(path)
    track = fit_frames(frames, model, landmarker)
    best = best_frame(track)
    source = frames.frame(best)
    proxy = build_proxy(source, track, model, best, rest_of(track, model).expression)
    driver, rest = load_preset(preset, model)
    motion = transfer_motion(proxy, Driver(driver, rest), model)
    motion = motion.select(torch.linspace(0.1, 0.9, count).mul(len(motion)).long().tolist())
    overlay = next(render_overlay(frames, track, model))[0]
    maps = next(render_maps(proxy, motion, model, ("normals", "landmarks"), chunk=count))
    preview = torch.cat(list(render_preview(source, proxy, motion, model)))
    picture = source.permute(1, 2, 0)
    return [[picture, overlay, maps["normals"][i], maps["landmarks"][i], preview[i]] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--driver", default="expressions", help="name of a motion preset")
    parser.add_argument("--frames", type=int, default=4, help="rows per picture")
    options = parser.parse_args()
    model, landmarker = load_head_model(), load_landmarker()
    with torch.inference_mode():
        rows = [r for path in options.pictures for r in rows_of(path, model, landmarker, options.driver, options.frames)]
    write_image(options.out, contact_sheet(rows, ["source", "overlay", "normals", "landmarks", "preview"]))


if __name__ == "__main__":
    main()
