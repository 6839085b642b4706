"""Soft region masks and plain colours of the control vertices, read off MakeHuman's own targets where they tell."""

from __future__ import annotations

import numpy as np
from head_cut import Cut, rings

SKIN, LIP, CAVITY = (0.76, 0.57, 0.48), (0.67, 0.38, 0.36), (0.58, 0.28, 0.27)
TONGUE, GUM, TOOTH = (0.62, 0.31, 0.31), (0.62, 0.33, 0.33), (0.87, 0.84, 0.77)
BROW = (0.30, 0.20, 0.15)
# Middle of the brows: distance from the plane of symmetry and height, metres, where MediaPipe sees them on this head.
BROW_LINE = ((0.0137, 0.0280, 0.0400, 0.0490, 0.0555), (0.7525, 0.7560, 0.7573, 0.7547, 0.7505))


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high` (or falling if low > high)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def on_island(cut: Cut, count: int, *names: str) -> np.ndarray:
    mask = np.zeros(count, bool)
    mask[cut.quads[np.isin(cut.islands, names)]] = True
    return mask


def regions(
    cut: Cut, template: np.ndarray, controls: dict[str, np.ndarray], expressions: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Masks [C] 0..1 by the names of proxy.head_model.REGIONS; controls and expressions are offsets [C, 3]."""
    count = len(template)
    y, z = template[:, 1], template[:, 2]

    def strength(offsets: np.ndarray, low: float, high: float) -> np.ndarray:
        size = np.linalg.norm(offsets, axis=1)
        return ramp(size / size.max(), low, high)

    skin = on_island(cut, count, "face", "torso")
    cavity = on_island(cut, count, "mouth") & ~skin
    sockets = on_island(cut, count, "left_eye", "right_eye")
    tongue = on_island(cut, count, "tongue")
    eyes = np.zeros(count, bool)
    eyes[np.concatenate([cut.anchors["helper-l-eye"], cut.anchors["helper-r-eye"]])] = True
    teeth = np.zeros(count, bool)
    teeth[np.concatenate([cut.anchors["helper-upper-teeth"], cut.anchors["helper-lower-teeth"]])] = True

    ears = np.maximum(*(strength(controls[f"{side}-ear-trans-forward"], 0.7, 0.99) for side in "lr")) * skin
    nose = strength(controls["nose-trans-forward"], 0.25, 0.9) * skin
    across = np.abs(template[:, 0])
    off_brow = np.abs(y - np.interp(across, *BROW_LINE))
    brows = ramp(off_brow, 0.0065, 0.002) * ramp(across, 0.007, 0.013) * ramp(across, 0.060, 0.053) * (z > 0.09) * skin
    mouth_ring = rings(cut, count, "face", "mouth")
    lips = np.where(cavity, ramp(mouth_ring, 6, 2), ramp(mouth_ring, 7.6, 5.4) * skin)
    blinks = [strength(expressions[f"eyeBlink{side}"], 0.08, 0.35) for side in ("Left", "Right")]
    lid_ring = np.minimum(rings(cut, count, "face", "left_eye"), rings(cut, count, "face", "right_eye"))
    lids = np.where(sockets, 1.0, np.maximum(np.maximum(*blinks), ramp(lid_ring, 9, 6)) * skin)
    torso = on_island(cut, count, "torso")
    neck_height = ramp(y, 0.555, 0.60)
    under_jaw = ramp(0.66 - y + 0.9 * (0.095 - z), 0.0, 0.02)  # below a line from the chin up to the ear lobe
    back = ramp(0.045 + 0.15 * np.clip(0.735 - y, 0, 1) - z, -0.02, 0.02)
    hairline = ramp(0.115 + (y - 0.80) - z, -0.006, 0.012)  # from the forehead down in front of and behind the ear
    scalp = np.where(skin, hairline * ramp(y, 0.645, 0.68), 0.0)
    scalp *= 1 - ears
    neck = np.where(skin, under_jaw * neck_height * (1 - scalp) * (1 - ears), 0.0)
    shoulders = np.where(torso | skin, 1 - neck_height, 0.0)
    face = np.where(skin | sockets, (1 - back) * (1 - under_jaw) * (1 - scalp) * (1 - ears), 0.0)
    face = np.where(cavity, lips, np.where(sockets, 1.0, face))
    return {
        "face": face, "lips": lips, "lids": lids, "brows": brows, "nose": nose, "ears": ears, "scalp": scalp, "neck": neck,
        "eyes": eyes.astype(float), "teeth": teeth.astype(float), "tongue": tongue.astype(float),
        "mouth": np.where(cavity, 1 - lips, 0.0), "shoulders": shoulders,
    }  # fmt: skip


def colours(masks: dict[str, np.ndarray], template: np.ndarray) -> np.ndarray:
    """Albedo [C, 3] of the control vertices; generated pieces bring their own."""
    albedo = np.tile(SKIN, (len(masks["face"]), 1))
    for mask, colour, share in (("lips", LIP, 0.9), ("brows", BROW, 0.6), ("mouth", CAVITY, 1.0), ("tongue", TONGUE, 1.0)):
        weight = share * masks[mask][:, None]
        albedo = (1 - weight) * albedo + weight * np.array(colour)
    return albedo
