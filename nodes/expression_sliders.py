"""What the widgets of Edit Expression move."""

from __future__ import annotations

from collections.abc import Mapping

# Slider: what it moves together, and its tooltip.
SLIDERS = {
    "smile": (("mouthSmile",), "Pulls the corners of the mouth up."),
    "frown": (("mouthFrown",), "Pulls the corners of the mouth down."),
    "jaw_open": (("jawOpen",), "Opens the mouth."),
    "pucker": (("mouthPucker",), "Rounds the lips as for a kiss."),
    "funnel": (("mouthFunnel",), "Opens the lips to a funnel, as for an O."),
    "upper_lip_up": (("mouthUpperUp",), "Raises the upper lip and shows the upper teeth."),
    "lower_lip_down": (("mouthLowerDown",), "Lowers the lower lip and shows the lower teeth."),
    "cheek_puff": (("cheekPuff",), "Blows the cheeks up."),
    "tongue_out": (("tongueOut",), "Sticks the tongue out; open the jaw with it."),
    "sneer": (("noseSneer",), "Wrinkles the nose."),
    "brows_up": (("browInnerUp", "browOuterUp"), "Raises both brows."),
    "brows_down": (("browDown",), "Lowers both brows."),
    "blink_left": (("eyeBlinkLeft",), "Closes the person's left eye, which is on the right in the picture."),
    "blink_right": (("eyeBlinkRight",), "Closes the person's right eye, which is on the left in the picture."),
    "eyes_wide": (("eyeWide",), "Opens the eyes wide."),
    "squint": (("eyeSquint", "cheekSquint"), "Narrows the eyes and lifts the cheeks."),
}
ANGLES = {
    "gaze_pitch": ("gazePitch", "Turns the eyes, in degrees: positive looks down."),
    "gaze_yaw": ("gazeYaw", "Turns the eyes, in degrees: positive looks to the right of the picture."),
    "head_pitch": ("headPitch", "Turns the head, in degrees: positive nods down."),
    "head_yaw": ("headYaw", "Turns the head, in degrees: positive turns to the right of the picture."),
    "head_roll": ("headRoll", "Tilts the head, in degrees: positive tilts to the left of the picture."),
}


def edit_amounts(expression: str, strength: float, sliders: Mapping[str, float]) -> dict[str, float]:
    """Amounts for `edit_expression` from the values of the widgets; sliders are named as in SLIDERS and ANGLES.

    Raises ValueError for a slider that is not there.
    """
    amounts = {expression: strength}
    for name, value in sliders.items():
        if name not in SLIDERS and name not in ANGLES:
            raise ValueError(f"there is no slider {name!r}; choose from {', '.join((*SLIDERS, *ANGLES))}")
        amounts |= dict.fromkeys(SLIDERS[name][0] if name in SLIDERS else (ANGLES[name][0],), value)
    return amounts
