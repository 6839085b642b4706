"""Renders the embedded head in many faces onto one picture, to be looked at: python tools/contact_sheet_head.py out.png"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from expportrait.proxy.camera import Camera
from expportrait.proxy.frames import write_image
from expportrait.proxy.head_model import JOINTS, HeadModel, load_head_model
from expportrait.proxy.raster import Rasterizer
from expportrait.proxy.rotation import to_matrix
from expportrait.proxy.sheet import contact_sheet

SIZE, DISTANCE = 320, 1.2
HEAD, BUST, MOUTH, EYE = (
    ((0, 0.705, 0.05), 0.155),
    ((0, 0.62, 0.03), 0.27),
    ((0, 0.672, 0.13), 0.045),
    ((0.029, 0.7356, 0.125), 0.03),
)


def both(*names: str) -> dict[str, float]:
    return {name + side: 1.0 for name in names for side in ("Left", "Right")}


SMILE = both("mouthSmile", "cheekSquint", "mouthUpperUp") | {"jawOpen": 0.2}
# Expression, turn of the view in radians, (centre, half width) in metres; eight to a row.
VIEWS = (
    ({}, 0.0, BUST), ({}, -0.7, HEAD), ({}, -1.57, HEAD), ({}, 1.57, HEAD), ({"jawOpen": 1.0}, 0.0, HEAD),
    (SMILE, 0.0, HEAD), (both("eyeBlink"), 0.0, HEAD), ({"tongueOut": 1.0, "jawOpen": 0.6}, 0.0, HEAD),
    ({"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}, 0.0, HEAD),
    ({"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0}, 0.0, HEAD), (both("eyeLookUp"), 0.0, HEAD),
    (both("eyeLookDown"), 0.0, HEAD), ({"mouthPucker": 1.0}, 0.0, HEAD),
    (both("browOuterUp") | {"browInnerUp": 1.0}, 0.0, HEAD), (both("noseSneer", "browDown"), 0.0, HEAD),
    (both("eyeSquint", "cheekSquint"), 0.0, HEAD), ({}, 0.0, MOUTH), ({"jawOpen": 0.8}, 0.0, MOUTH),
    ({"jawOpen": 0.8}, 0.6, MOUTH), (SMILE, 0.0, MOUTH), (SMILE, -0.7, MOUTH),
    ({"jawOpen": 0.3} | both("mouthUpperUp", "mouthLowerDown"), 0.0, MOUTH),
    ({"tongueOut": 1.0, "jawOpen": 0.6}, -0.8, MOUTH), ({"jawOpen": 1.0, "mouthClose": 1.0}, 0.0, MOUTH),
    ({}, 0.0, EYE), ({}, -0.8, EYE), ({"eyeBlinkLeft": 0.5}, 0.0, EYE), (both("eyeBlink"), 0.0, EYE),
    (both("eyeLookUp"), 0.0, EYE), (both("eyeLookDown"), 0.0, EYE), (both("eyeWide"), 0.0, EYE),
    (both("eyeSquint", "cheekSquint"), 0.0, EYE),
)  # fmt: skip


def render(
    model: HeadModel, raster: Rasterizer, identity: Tensor, expression: dict[str, float], turn: float, view: tuple
) -> Tensor:
    """One picture [SIZE, SIZE, 3] of the head under two lights."""
    weights = torch.zeros(1, len(model.expression_names))
    for name, value in expression.items():
        weights[0, model.expression_index(name)] = value
    centre, half = view
    camera = Camera.centred(SIZE / 2 * DISTANCE / half, SIZE, SIZE)
    rotation = to_matrix(torch.tensor([0.0, turn, 0.0]))
    posed = model(identity, weights, torch.zeros(1, len(JOINTS), 3))
    seen = (posed - torch.tensor(centre)) @ rotation.T - torch.tensor([0.0, 0.0, DISTANCE])
    normals = model.vertex_normals(posed) @ rotation.T
    clip = camera.clip(seen, near=0.5, far=2.5)
    shot = raster.rasterize(clip, (SIZE, SIZE), cull=True)
    image = raster.interpolate(torch.cat([normals, model.albedo[None]], dim=-1), shot, clip)
    normal, albedo = torch.nn.functional.normalize(image[..., :3], dim=-1), image[..., 3:]
    key, fill = (torch.nn.functional.normalize(torch.tensor(d), dim=0) for d in ([0.35, 0.5, 0.8], [-0.7, 0.1, 0.5]))
    light = 0.25 + 0.65 * (normal @ key).clamp(min=0) + 0.25 * (normal @ fill).clamp(min=0)
    colour = torch.where(shot.mask[..., None], albedo * light[..., None], torch.full_like(albedo, 0.25))
    return raster.antialias(colour, shot, clip)[0].clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=11)
    arguments = parser.parse_args()
    model = load_head_model()
    raster = Rasterizer(model.faces[model.visible_faces()], model.vertex_count)
    mean = torch.zeros(1, len(model.identity_names))
    pictures = [render(model, raster, mean, e, turn, view) for e, turn, view in VIEWS]
    generator = torch.Generator().manual_seed(arguments.seed)
    for number in range(8):
        identity = torch.randn(1, len(model.identity_names), generator=generator)
        pictures += [render(model, raster, identity, {}, (0.0, -0.8)[number % 2], HEAD)]
    rows = [pictures[k : k + 8] for k in range(0, len(pictures), 8)]
    write_image(arguments.out, contact_sheet(rows, height=SIZE))


if __name__ == "__main__":
    main()
