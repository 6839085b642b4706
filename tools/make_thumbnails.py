"""Writes the thumbnails of workflows/: what each of them makes of the pack's own portrait and preset motions.

    python tools/make_thumbnails.py
"""

from pathlib import Path

import torch

from expportrait.cli import PORTRAIT
from expportrait.dit.families import family_named
from expportrait.dit.framing import crop_images, make_framing
from expportrait.dit.pocket.render import render_pocket
from expportrait.dit.pocket.weights import SHIPPED, load_model
from expportrait.proxy.build import build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames, write_image
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.preview import render_preview
from expportrait.proxy.refine import RefineSettings, refine_head
from expportrait.proxy.refine.sheet import refine_sheet
from expportrait.proxy.render import render_maps
from expportrait.proxy.sheet import contact_sheet
from expportrait.transfer.expression_edit import TimeRange, edit_expression, resting_motion
from expportrait.transfer.neutral import rest_of
from expportrait.transfer.performance import Driver
from expportrait.transfer.presets import load_preset
from expportrait.transfer.settings import TransferSettings
from expportrait.transfer.transfer import transfer_motion

FOLDER = Path(__file__).resolve().parents[1] / "workflows"
SECONDS = (1.2, 2.04)  # of the preset "expressions": a laugh, a surprise
TURN, TURN_STRENGTH = 3.24, 2.0  # seconds, of the preset "speaking"
EDITS = ({"smile": 1.0}, {"surprise": 1.0}, {"eyeBlinkLeft": 1.0, "smile": 0.6, "headRoll": 8.0})
LINES = 0.4  # share of the landmark lines in VACE's control video, as in its workflow
PERFORMERS = (("driver", "source"), ("source", "other driver"), ("driver", "other driver"))  # whose pose, whose expression

if __name__ == "__main__":
    frames, model = Frames.open(PORTRAIT), load_head_model()
    source = frames.frame(0)
    track = fit_frames(frames, model, load_landmarker("cpu"))
    proxy = build_proxy(source, track, model, 0, rest_of(track, model).expression)
    preset, rest = load_preset("expressions", model)
    motion = transfer_motion(proxy, Driver(preset, rest), model).select([round(s * preset.fps) for s in SECONDS])
    maps = next(render_maps(proxy, motion, model, ("normals", "depth", "landmarks")))
    preview = torch.cat(list(render_preview(source, proxy, motion, model)))
    drawn = torch.cat(list(render_pocket(source, proxy, motion, model, load_model(SHIPPED, model.model_id))))
    portrait = source.permute(1, 2, 0)
    lines, control = maps["landmarks"], torch.lerp(maps["depth"], maps["landmarks"], LINES)
    faces = next(crop_images(preview, make_framing(family_named("Wan-Animate"), preview, lines[..., 0], 512, 512, margin=0.15)))

    speaking, straight = load_preset("speaking", model)
    turn = Driver(speaking.select([round(TURN * speaking.fps)]), straight)
    laugh = Driver(preset.select([round(SECONDS[0] * preset.fps)]), rest)
    apart = []
    for pose, expression in PERFORMERS:
        settings = TransferSettings(pose_from=pose, expression_from=expression, pose_strength=TURN_STRENGTH)
        apart += render_preview(source, proxy, transfer_motion(proxy, turn, model, settings, laugh), model)
    edits = [
        edit_expression(resting_motion(proxy, 0.04, 25.0), amounts, proxy, model, TimeRange(0.0, -1.0, 0.0, 0.0)) for amounts in EDITS
    ]
    edited = [next(render_preview(source, proxy, edit, model))[0] for edit in edits]
    refined = refine_head(frames, track, model, RefineSettings.of("draft"), neutral=rest_of(track, model).expression)
    for name, rows in {
        "edit_an_expression": [[portrait, edited[0]], edited[1:]],
        "refine_with_outside_normals": [[refine_sheet(frames, track, model, refined).permute(1, 2, 0)]],
        "portrait_and_clip_to_preview": [[portrait, preview[0], preview[1]], [maps["depth"][0], maps["normals"][0], maps["normals"][1]]],
        "two_performers_one_portrait": [[portrait, apart[0][0]], [apart[1][0], apart[2][0]]],
        "portrait_with_pocket_model": [[portrait, drawn[0], drawn[1]]],
        "wan_vace_from_maps": [[portrait, control[0]], [maps["depth"][1], control[1]]],
        "wan_fun_control_from_depth": [[portrait, maps["depth"][0], maps["depth"][1]]],
        "wan_i2v_with_portrait_adapter": [[portrait, maps["normals"][0], maps["normals"][1]]],
        "wan_animate_from_proxy": [[portrait, faces[0]], [lines[1], faces[1]]],
    }.items():
        write_image(FOLDER / f"{name}.jpg", contact_sheet(rows))
