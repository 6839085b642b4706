"""How much a refinement believes, and how long it works."""

from __future__ import annotations

import dataclasses

QUALITIES = ("draft", "standard", "fine")


@dataclasses.dataclass(frozen=True)
class ShadingPrior:
    """What is expected of a head before its shading is looked at. Sigmas are standard deviations; lengths are metres."""

    relief: float  # sigma of the relief
    pull: float  # times as strongly it is held to 0: of its long waves much is what the fit has wrong in expressions
    albedo_change: float  # sigma of the logarithm of the skin's albedo
    albedo_length: float  # how far that is alike; what changes over a shorter way is shading
    wrinkle: float  # sigma of a wrinkle's relief by how far the expression moves the face

    def toward(self, other: ShadingPrior, share: float) -> ShadingPrior:
        """What lies between the two, 0: this one, 1: the other; all values geometrically."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other))
        return ShadingPrior(*(own ** (1 - share) * its**share for own, its in pairs))


@dataclasses.dataclass(frozen=True)
class RefineSettings:
    """Weights of `refine_head`. Sigmas are standard deviations; lengths are metres."""

    levels: tuple[float, ...] = (4.0, 2.0, 1.0)  # blur of the frames in each round of registration, pixels
    noise: float = 0.05  # sigma of a colour, of 0..1: camera noise, gloss, and light that nine coefficients cannot tell
    outlier: float = 0.15  # colour difference at which a vertex counts little: hands, glasses, hair
    strain: float = 0.3  # sigma of the change of a shift along the skin over its distance
    shift: float = 0.003  # sigma of a shift along the skin
    strain_step: float = 0.03  # sigma of the change of a strain from one frame to the next: small, or noise flickers in the normals
    landmark: float = 0.0002  # sigma of a detected landmark: 0.7 mm, but the colours around it, taken as independent, are not
    landmark_outlier: float = 0.005  # distance at which a landmark counts a quarter: closed eyes, hands, the far side of a profile
    normal_outlier: float = 0.25  # distance of two unit normals at which a vertex counts half in the end: ears, hair, folds the mesh lacks
    normal_bias: float = 0.045  # RMS angle between frames in low frequencies of outside normals that the fit explains; more is a bias
    normal_bias_length: float = 0.02  # sigma of the Gaussian that takes these low frequencies
    normal_rounds: int = 4  # rounds of integrating outside normals; each takes the normals of the round before
    bend: float = 0.0005  # wavelength (over 2 pi) below which a relief is stiff against outside normals
    static_reach: float = 0.06  # how far a relief of the static field may rise before it is pulled back to the fitted head
    dynamic_reach: float = 0.06  # the same for the dynamic field
    meeting_reach: float = 0.015  # the same of both at lids and lips
    shading_rounds: int = 8  # rounds of finding relief from shading, each under the light that the round before shows; 0: none
    shading_frames: int = 24  # frames that are looked at for it, spread over the clip
    shading_noise: float = 0.03  # sigma of a vertex's brightness, of the face's mean: wrong pose, gloss, cast shadows
    shading_outlier: float = 0.1  # difference of brightness at which a vertex counts a quarter: brows, hair, teeth, cast shadows
    # Of a head that turns, and of one that does not. There shadows in folds, stubble and shape look the same: the albedo takes nearly all.
    turned: ShadingPrior = ShadingPrior(relief=0.002, pull=2.7, albedo_change=0.07, albedo_length=0.02, wrinkle=0.5)
    still: ShadingPrior = ShadingPrior(relief=0.001, pull=1.0, albedo_change=0.2, albedo_length=0.01, wrinkle=0.15)
    relief_length: float = 0.006  # how far a relief is alike: 1 / (2 pi) of the wavelength from which on it is free
    asymmetry: float = 0.001  # sigma of a relief's difference between the two sides of the face
    wrinkle_length: float = 0.006  # how far a wrinkle is alike
    wrinkle_modes: int = 4  # kinds of expression, the strongest of the clip, that have wrinkles of their own; 0: none
    position_frames: int = 8  # frames whose silhouette and depth are looked at, spread over the clip
    position_independent: float = 2.0  # as many frames' errors are independent
    outline_noise: float = 0.004  # sigma of where a silhouette's edge lies, metres across the view: half a pixel of the segmentation
    depth_noise: float = 0.006  # sigma of an estimator's depth after scale and shift, metres
    position: float = 0.0025  # sigma of the head's offset from the fit
    position_length: float = 0.015  # how far it is alike; finer shape is left to normals and shading
    detail: float = 1.0  # strength of the dynamic field
    texture_frames: int = 12  # frames whose colours make the albedo
    texture_size: int = 1024  # texels on each side
    ridge: float = 1e-3  # of the regression of detail on expression; an expression is half believed at RMS ridge^(1/4)

    @staticmethod
    def of(quality: str, detail: float = 1.0) -> RefineSettings:
        """Settings of one of QUALITIES. Raises ValueError for another name or a strength below 0."""
        if quality not in QUALITIES:
            raise ValueError(f"there is no quality {quality!r}; choose {', '.join(QUALITIES)}")
        if not 0 <= detail < float("inf"):
            raise ValueError(f"the strength of the detail is {detail}; give a number of at least 0")
        if quality == "draft":
            few = {"normal_rounds": 2, "shading_rounds": 3, "shading_frames": 8, "position_frames": 4, "texture_frames": 4}
            return RefineSettings(levels=(4.0, 1.5), **few, detail=detail)
        if quality == "fine":
            levels = (4.0, 2.0, 1.0, 1.0, 0.5, 0.5)
            return RefineSettings(levels=levels, normal_rounds=6, shading_rounds=10, texture_frames=24, texture_size=2048, detail=detail)
        return RefineSettings(detail=detail)
