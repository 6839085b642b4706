"""What an adapter is made of and which base it belongs to; travels as JSON in the header of its file."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal, get_args

ControlKind = Literal["pixel", "latent", "none"]
ReferenceKind = Literal["condition", "tokens", "none"]
CodeKind = Literal["explicit", "face", "none"]
INPUTS = {"normals": 3, "rays": 3, "reference": 4, "lines": 3, "depth": 1}  # channels of each control input
CONDITION_CHANNELS = 20  # of Wan's image condition: 4 mask, 16 latent
VERSION = 1


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Raises ValueError where the parts do not go together."""

    width: int  # of the base transformer
    layers: int  # of the base transformer
    latent_channels: int = 16
    spatial: int = 8  # pixels per latent cell
    control: ControlKind = "pixel"
    inputs: tuple[str, ...] = ("normals",)  # what the control video holds, in this order
    control_width: int = 32  # channels inside the pixel encoder
    reference: ReferenceKind = "condition"
    reference_inputs: tuple[str, ...] = ("normals",)
    reference_width: int = 32
    code: CodeKind = "explicit"
    code_size: int = 512  # of the expression code
    explicit_size: int = 0  # numbers that the explicit code is made from
    head_model: str = ""  # whose expressions the explicit code counts
    expression_width: int = 512  # inside the cross-attention
    expression_tokens: int = 4  # per latent frame
    expression_every: int = 5  # a cross-attention after every so many blocks
    normals: str = "opengl"  # x right, y up, z to the camera
    range: Literal["signed", "unit"] = "signed"  # of the control video's values: -1..1 or 0..1
    trained_on: str = ""  # name of the base, for people
    version: int = VERSION

    def __post_init__(self):
        for name, kind in (("control", ControlKind), ("reference", ReferenceKind), ("code", CodeKind)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"an adapter's {name} is {getattr(self, name)!r}; it must be one of {', '.join(get_args(kind))}")
        for name in ("inputs", "reference_inputs"):
            unknown = [part for part in getattr(self, name) if part not in INPUTS]
            if unknown:
                raise ValueError(f"an adapter wants {unknown[0]!r} among its {name}; this version knows {', '.join(INPUTS)}")
        for name in ("width", "layers", "latent_channels", "control_width", "reference_width", "expression_tokens", "expression_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"an adapter's {name} is {getattr(self, name)}; it must be at least 1")
        if self.normals != "opengl":
            raise ValueError(f"the adapter reads normals of the kind {self.normals!r}; this version makes opengl ones")
        if self.spatial < 8 or self.spatial & (self.spatial - 1):
            raise ValueError(f"an adapter's spatial is {self.spatial}; pixels per latent cell must be 8, 16 or 32")
        if self.code == "explicit" and self.explicit_size < 1:
            raise ValueError("an adapter with an explicit expression code must say how many numbers the code is made from")
        if self.version > VERSION:
            raise ValueError(f"the adapter has version {self.version}, this pack reads up to {VERSION}; update ExpPortrait")

    @property
    def control_channels(self) -> int:
        return sum(INPUTS[name] for name in self.inputs)

    @property
    def reference_channels(self) -> int:
        return sum(INPUTS[name] for name in self.reference_inputs)

    @property
    def expression_blocks(self) -> tuple[int, ...]:
        """Indices of the base's blocks that a cross-attention follows."""
        return () if self.code == "none" else tuple(range(self.expression_every - 1, self.layers, self.expression_every))

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> AdapterConfig:
        """Raises ValueError if the text is no adapter's header."""
        try:
            values = json.loads(text)
            known = {field.name for field in dataclasses.fields(AdapterConfig)}
            values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known}
            return AdapterConfig(**values)
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise ValueError(f"the adapter's header cannot be read ({error}); download or export the file again") from None


def check_base(config: AdapterConfig, width: int, layers: int, latent_channels: int, in_channels: int) -> None:
    """Raises ValueError, in one sentence, if the adapter does not belong to a transformer of these sizes."""
    if (config.width, config.layers) != (width, layers):
        wanted = f" ({config.trained_on})" if config.trained_on else ""
        raise ValueError(
            f"the adapter was made for a transformer {config.width} wide with {config.layers} blocks{wanted}, but the model is "
            f"{width} wide with {layers} blocks; load the model that the adapter belongs to"
        )
    if config.latent_channels != latent_channels:
        raise ValueError(
            f"the adapter was made for latents of {config.latent_channels} channels, but the model has {latent_channels}; load the "
            f"model that the adapter belongs to"
        )
    if config.reference == "condition" and in_channels != latent_channels + CONDITION_CHANNELS:
        raise ValueError(
            f"the adapter writes its reference into an image-to-video model's condition, but the model takes {in_channels} channels, not "
            f"{latent_channels + CONDITION_CHANNELS}; load the image-to-video model, not a text-to-video or control one"
        )
