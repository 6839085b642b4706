"""What a fit believes before it has seen a landmark, and how long it works."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Priors and limits of `fit_landmarks`. Sigmas are standard deviations; sizes are shares of the face's size, which is
    the distance of the outer eye corners as if seen from the front."""

    noise: float = 0.012  # sigma of one landmark, share of the face's size
    robust: float = 0.06  # distance at which a landmark counts as an outlier (Geman-McClure), share of the face's size
    evidence: float = 2000.0  # how many independent points the 478 are worth: their errors go together
    back_facing: float = 0.4  # weight of a landmark whose surface looks away from the camera
    identity_modes: int = 120  # leading identity coefficients that are fitted; the others stay 0
    identity: float = 0.75  # sigma of a standardised identity coefficient
    expression: float = 0.25  # sigma of an expression coefficient, share of the larger of its bounds
    head: float = 0.43  # sigma of the rotation of neck and head together, radians
    turn: float = 0.001  # sigma of the head's rotation that the landmarks' own depth suggests, radians
    jaw: float = 0.04  # sigma of the jaw's rotation beyond what the expression gives, radians
    jaw_alone: float = 0.25  # the same for a model whose expression does not turn the jaw
    eyes: float = 0.3  # sigma of the gaze, radians
    vergence: float = 0.03  # sigma of the difference between the two eyes, radians
    torso_free: float = 0.6  # mean rotation of a clip that neck and head take alone; the rest turns the root, radians
    field_of_view: float = math.radians(32)  # vertical, of a picture as high as wide; used where no focal length is given
    focal: float = 0.08  # sigma of the logarithm of the focal length
    speed_expression: float = 0.25  # sigma of an expression's change in 1/25 s, share of the larger of its bounds
    speed_rotation: float = 0.08  # sigma of a joint's turn in 1/25 s, radians
    speed_translation: float = 0.02  # sigma of the head's shift in 1/25 s, metres
    keyframes: int = 24  # frames that identity and focal length are fitted on
    shape_rounds: int = 12  # at most so many Gauss-Newton rounds for the key frames
    motion_rounds: int = 6  # and for all frames, identity fixed
    tolerance: float = 5e-3  # a relative drop of the cost below this ends the rounds
