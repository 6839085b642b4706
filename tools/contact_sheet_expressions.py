"""Named expressions of Edit Expression on a portrait, result over normals: contact_sheet_expressions.py OUT.jpg [PICTURE]"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from expportrait.proxy.build import best_frame, build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames, write_image
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.preview import render_preview
from expportrait.proxy.render import render_maps
from expportrait.proxy.sheet import contact_sheet
from expportrait.transfer.expression_controls import named_expressions
from expportrait.transfer.expression_edit import TimeRange, edit_expression, resting_motion
from expportrait.transfer.neutral import neutral_expression
from expportrait.transfer.skin_detail import with_edited_detail

PORTRAIT = Path(__file__).resolve().parents[1] / "proxy" / "assets" / "portrait.jpg"
COLUMNS, HEIGHT = 6, 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("picture", nargs="?", default=str(PORTRAIT))
    options = parser.parse_args()
    model, frames = load_head_model(), Frames.open(options.picture)
    with torch.inference_mode():
        track = fit_frames(frames, model, load_landmarker())
        best = best_frame(track)
        source = frames.frame(best)
        proxy = build_proxy(source, track, model, best, neutral_expression(track, model))
        left, top, side, _ = (round(value) for value in proxy.crop)
        crop = (slice(max(0, top), top + side), slice(max(0, left), left + side))
        at_rest, results, normals = resting_motion(proxy, 0.04, 25.0), [], []
        for name in named_expressions():
            edited = edit_expression(at_rest, {name: 1.0}, proxy, model, TimeRange(ease_in=0.0, ease_out=0.0))
            motion = with_edited_detail(edited, at_rest, proxy, model)
            results.append(torch.cat(list(render_preview(source, proxy, motion, model)))[0][crop])
            normals.append(next(render_maps(proxy, motion, model, ("normals",)))["normals"][0][crop])
        rows = [row[start : start + COLUMNS] for start in range(0, len(results), COLUMNS) for row in (results, normals)]
    write_image(options.out, contact_sheet(rows, height=HEIGHT))


if __name__ == "__main__":
    main()
