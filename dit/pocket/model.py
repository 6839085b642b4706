"""The pocket model: a convolution pyramid with skips around a diffusion transformer, in pixel space, that predicts the picture.

The pyramid carries fine detail of the warped source to the answer, which a plain patch transformer loses (eyes first); the
transformer at 1/8 of the size joins it with the reference picture and the expression. The answer is colours and a blend mask
over the warp: where the mask is 1 the warp stays as it is. Colours are told as what the best linear estimate from warp and noisy
picture lacks (`preconditioning`), so an untrained model answers with the warp and no capacity is spent on copying it.

Transformer after Peebles and Xie, "Scalable Diffusion Models with Transformers" (2023), its modulation shared between blocks as
in PixArt-alpha (Chen et al. 2023); prediction of the clean picture after Li and He, "Back to Basics" (JiT, arXiv 2511.13720).
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditions import CONTROL, REFERENCE

SHRINK = 8  # from the picture to the transformer's grid
REFERENCE_PATCH = 16  # pixels
FREQUENCIES, FASTEST = 32, 60.0  # of the embedding of noise levels, radians; a level may come in half precision
GROUPS = 8  # of group normalisation
CODE_TOKENS = 4
OPEN = 0.05  # variance by which the warp of a picture in -1..1 is wrong
START = -2.0  # the blend mask's logit before training: the colours, which are the better estimate
POSITION_PERIOD = 32.0  # longest period of the positions in a picture of side 1, of the transformer's rotary embedding


@dataclasses.dataclass(frozen=True)
class PocketConfig:
    """Sizes of a pocket model. The default has about 14 million parameters, `PocketConfig.small()` about 3."""

    model_id: str  # of the head model whose expressions the code holds
    code: int  # numbers in an expression code
    levels: tuple[int, int, int] = (32, 64, 128)  # channels at 1/1, 1/2 and 1/4
    width: int = 256  # of the transformer
    depth: int = 10
    heads: int = 4
    temporal: bool = False  # attention over the frames of a clip in every second block

    def __post_init__(self):
        if self.width % self.heads or self.width // self.heads % 4:
            raise ValueError(
                f"a width of {self.width} does not split over {self.heads} heads into multiples of 4; choose another number of heads"
            )
        if len(self.levels) != 3 or any(channels % GROUPS for channels in self.levels):
            raise ValueError(f"levels are {list(self.levels)}; give three numbers of channels that are multiples of {GROUPS}")

    @staticmethod
    def small(model_id: str, code: int, **changes) -> PocketConfig:
        """What a CPU can train."""
        return PocketConfig(model_id, code, **{"levels": (16, 32, 64), "width": 160, "depth": 4, **changes})


class PocketModel(nn.Module):
    """Predicts the clean picture from a noisy one and the conditions."""

    def __init__(self, config: PocketConfig, operations=nn, dtype: torch.dtype | None = None, device: torch.device | str | None = None):
        """`operations` is where Linear, Conv2d and GroupNorm come from, so that a host can cast or offload their weights."""
        super().__init__()
        self.config = config
        make = _Layers(operations, dtype, device)
        one, two, four = config.levels
        width, moment = config.width, config.width
        self.time_in = make.linear(2 * FREQUENCIES, moment)
        self.time_out = make.linear(moment, moment)
        self.enter = make.conv(3 + CONTROL, one, 3)
        self.down_one = _ConvBlock(make, one, one, moment)
        self.to_two = make.conv(one, two, 2, stride=2)
        self.down_two = _ConvBlock(make, two, two, moment)
        self.to_four = make.conv(two, four, 2, stride=2)
        self.down_four = _ConvBlock(make, four, four, moment)
        self.to_eight = make.conv(four, width, 2, stride=2)
        self.reference = make.conv(REFERENCE, width, REFERENCE_PATCH, stride=REFERENCE_PATCH)
        self.reference_mark = make.table(width)
        self.expression_in = make.linear(config.code, width)
        self.expression_out = make.linear(width, CODE_TOKENS * width)
        self.modulation = make.linear(moment, 6 * width)  # shared by all blocks, each of which adds a table of its own
        self.blocks = nn.ModuleList(_Block(make, config, k) for k in range(config.depth))
        self.from_eight = make.conv(width, 4 * four, 1)
        self.up_four = _ConvBlock(make, 2 * four, four, moment)
        self.from_four = make.conv(four, 4 * two, 1)
        self.up_two = _ConvBlock(make, 2 * two, two, moment)
        self.from_two = make.conv(two, 4 * one, 1)
        self.up_one = _ConvBlock(make, 2 * one, one, moment)
        self.leave = make.conv(one, 4, 3)

    @staticmethod
    def create(config: PocketConfig, generator: torch.Generator) -> PocketModel:
        """An untrained model whose weights come from the generator; it answers with the warp, apart from news of the noisy picture."""
        model = PocketModel(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and name.endswith("weight"):
                    fan = parameter[0].numel()
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan**-0.5)
                elif not (name.endswith("norm.weight") or name.endswith("normal.weight")):
                    parameter.zero_()
            for block in model.blocks:
                block.start()
            model.modulation.weight.mul_(0.1)
            model.leave.weight.zero_()
            model.leave.bias[3] = START
        return model

    def forward(self, noisy: Tensor, sigma: Tensor, control: Tensor, reference: Tensor, code: Tensor, frames: int = 1) -> Tensor:
        """The clean picture [B, 3, H, W] in -1..1.

        Args:
            noisy: [B, 3, H, W], (1 - sigma) times the picture in -1..1 plus sigma times unit noise.
            sigma: [B] noise level, 0..1.
            control: [B, 13, H, W] of `Conditions.control`, 0..1.
            reference: [B, 9, h, w] of `ConditionMaker.reference`, 0..1.
            code: [B, K] expression code.
            frames: the batch holds clips of this many frames in a row, which a temporal model reads together.

        Raises ValueError for sizes that are not multiples of 8 (of 16 for the reference), or that do not belong together.
        """
        colours, mask = self.answer(noisy, sigma, control, reference, code, frames)
        return blend(colours, mask, control)

    def answer(
        self, noisy: Tensor, sigma: Tensor, control: Tensor, reference: Tensor, code: Tensor, frames: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Colours [B, 3, H, W] in -1..1 and the blend mask [B, 1, H, W] in 0..1 that `forward` puts together."""
        self._check(noisy, sigma, control, reference, code, frames)
        moment = F.silu(self.time_out(F.silu(self.time_in(_waves_of(sigma, noisy.dtype)))))
        warp = 2 * control[:, :3] - 1
        keep, scale = preconditioning(sigma, noisy.dtype)
        news = keep * (noisy - (1 - sigma.to(noisy)[:, None, None, None]) * warp)
        one = self.down_one(self.enter(torch.cat([news / OPEN**0.5, 2 * control - 1], dim=1)), moment)
        two = self.down_two(self.to_two(one), moment)
        four = self.down_four(self.to_four(two), moment)
        eight = self._transform(self.to_eight(four), moment, reference, code, frames)
        four = self.up_four(torch.cat([F.pixel_shuffle(self.from_eight(eight), 2), four], dim=1), moment)
        two = self.up_two(torch.cat([F.pixel_shuffle(self.from_four(four), 2), two], dim=1), moment)
        one = self.up_one(torch.cat([F.pixel_shuffle(self.from_two(two), 2), one], dim=1), moment)
        out = self.leave(F.silu(one))
        return warp + news + scale * out[:, :3], torch.sigmoid(out[:, 3:])

    def _transform(self, grid: Tensor, moment: Tensor, reference: Tensor, code: Tensor, frames: int) -> Tensor:
        batch, _, height, width = grid.shape
        patches = self.reference(2 * reference - 1)
        tokens = torch.cat([grid.flatten(2).mT, patches.flatten(2).mT + self.reference_mark.to(grid)], dim=1)
        size = self.config.width // self.config.heads
        turns = torch.cat([_turns(height, width, size, grid), _turns(*patches.shape[2:], size, grid)])
        words = self.expression_out(F.silu(self.expression_in(code))).unflatten(1, (CODE_TOKENS, -1))
        modulation = self.modulation(moment).unflatten(1, (6, -1))
        for block in self.blocks:
            tokens = block(tokens, modulation, turns, words, height * width, frames)
        return grid + tokens[:, : height * width].mT.unflatten(2, (height, width))

    def _check(self, noisy: Tensor, sigma: Tensor, control: Tensor, reference: Tensor, code: Tensor, frames: int) -> None:
        batch, _, height, width = noisy.shape
        expected = {
            "noisy picture": (noisy, (batch, 3, height, width)),
            "noise level": (sigma, (batch,)),
            "control picture": (control, (batch, CONTROL, height, width)),
            "reference picture": (reference, (batch, REFERENCE, *reference.shape[2:])),
            "expression code": (code, (batch, self.config.code)),
        }
        for name, (value, shape) in expected.items():
            if tuple(value.shape) != shape:
                raise ValueError(f"the {name} has shape {list(value.shape)}; the pocket model expected {list(shape)}")
        if height % SHRINK or width % SHRINK or any(side % REFERENCE_PATCH for side in reference.shape[2:]):
            raise ValueError(
                f"the picture has {width} x {height} pixels and the reference {reference.shape[3]} x {reference.shape[2]}; "
                f"give multiples of {SHRINK} and {REFERENCE_PATCH}"
            )
        if frames < 1 or batch % frames:
            raise ValueError(f"{batch} pictures are no whole number of clips of {frames} frames")


def blend(colours: Tensor, mask: Tensor, control: Tensor) -> Tensor:
    """The warp (the control's first three channels, to -1..1) where mask [B, 1, H, W] is 1, colours [B, 3, H, W] where it is 0."""
    warp = 2 * control[:, :3] - 1
    return torch.where(mask == 1, warp, colours + mask * (warp - colours))


class _Layers:
    """Makes layers from a namespace of operations, all of one dtype and device."""

    def __init__(self, operations, dtype, device):
        self._operations, self._where = operations, {"dtype": dtype, "device": device}

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        return self._operations.Linear(inputs, outputs, **self._where)

    def conv(self, inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
        return self._operations.Conv2d(inputs, outputs, size, stride, 0 if stride > 1 else size // 2, **self._where)

    def norm(self, channels: int) -> nn.Module:
        return self._operations.GroupNorm(GROUPS, channels, **self._where)

    def table(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.zeros(shape, **self._where))


class _ConvBlock(nn.Module):
    """Residual block of two 3x3 convolutions, its middle scaled and shifted by the noise level."""

    def __init__(self, make: _Layers, inputs: int, outputs: int, moment: int):
        super().__init__()
        self.first_norm, self.second_norm = make.norm(inputs), make.norm(outputs)
        self.first, self.second = make.conv(inputs, outputs, 3), make.conv(outputs, outputs, 3)
        self.moment = make.linear(moment, 2 * outputs)
        self.skip = make.conv(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, moment: Tensor) -> Tensor:
        scale, shift = self.moment(moment)[..., None, None].chunk(2, dim=1)
        y = self.first(F.silu(self.first_norm(x)))
        y = self.second(F.silu(self.second_norm(y) * (1 + scale) + shift))
        return y + (x if self.skip is None else self.skip(x))


class _Block(nn.Module):
    """Self-attention over picture and reference, attention to the expression, attention over time, and a perceptron."""

    def __init__(self, make: _Layers, config: PocketConfig, place: int):
        super().__init__()
        width, crossed, timed = config.width, place % 2 == 0, config.temporal and place % 2 == 1
        self.heads = config.heads
        self.table = make.table(6, width)
        self.query_key_value, self.mixed = make.linear(width, 3 * width), make.linear(width, width)
        self.first, self.second = make.linear(width, 4 * width), make.linear(4 * width, width)
        self.question, self.words, self.told = (
            (make.linear(width, width), make.linear(width, 2 * width), make.linear(width, width)) if crossed else (None, None, None)
        )
        self.over_time, self.timed = (make.linear(width, 3 * width), make.linear(width, width)) if timed else (None, None)

    def start(self) -> None:
        """Closes every branch but leaves their gates open, so that an untrained block adds nothing and still learns."""
        for layer in (self.mixed, self.second, self.told, self.timed):
            if layer is not None:
                layer.weight.zero_()
        self.table[2].fill_(1)
        self.table[5].fill_(1)

    def forward(self, x: Tensor, modulation: Tensor, turns: Tensor, words: Tensor, pixels: int, frames: int) -> Tensor:
        shift, scale, gate, shift_two, scale_two, gate_two = (modulation + self.table.to(x)).unbind(1)
        y = _normal(x) * (1 + scale[:, None]) + shift[:, None]
        query, key, value = (_split(part, self.heads) for part in self.query_key_value(y).chunk(3, dim=-1))
        x = x + gate[:, None] * self.mixed(_attend(_turned(_normal(query), turns), _turned(_normal(key), turns), value))
        if self.told is not None:
            key, value = (_split(part, self.heads) for part in self.words(words).chunk(2, dim=-1))
            x = x + self.told(_attend(_normal(_split(self.question(_normal(x)), self.heads)), _normal(key), value))
        if self.timed is not None and frames > 1:
            x = torch.cat([x[:, :pixels] + self._over_time(x[:, :pixels], frames), x[:, pixels:]], dim=1)
        y = _normal(x) * (1 + scale_two[:, None]) + shift_two[:, None]
        return x + gate_two[:, None] * self.second(F.gelu(self.first(y), approximate="tanh"))

    def _over_time(self, x: Tensor, frames: int) -> Tensor:
        """What each place of the picture [B, N, D] reads from itself in the other frames of its clip."""
        clips = x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # [B / frames * N, frames, D]
        query, key, value = (_split(part, self.heads) for part in self.over_time(_normal(clips)).chunk(3, dim=-1))
        when = torch.arange(frames, device=x.device, dtype=torch.float32)[:, None].expand(-1, query.shape[-1] // 2)
        turns = when * POSITION_PERIOD ** -torch.linspace(0, 1, query.shape[-1] // 2, device=x.device)
        answer = self.timed(_attend(_turned(_normal(query), turns), _turned(_normal(key), turns), value))
        return answer.unflatten(0, (-1, x.shape[1])).transpose(1, 2).flatten(0, 1)


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, N, D] to [B, heads, N, D / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def _normal(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def preconditioning(sigma: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What counts, at noise levels sigma [B], of the news that a noisy picture brings, and what is still open: two [B, 1, 1, 1].

    With a warp that is wrong by a variance of OPEN the best linear estimate of the picture is warp + first * (noisy - (1 - sigma) *
    warp), and is wrong by the second (after Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
    section 5, with the warp as the mean).
    """
    level = sigma.float()[:, None, None, None]
    total = (1 - level).square() * OPEN + level.square()
    return ((1 - level) * OPEN / total).to(dtype), (OPEN**0.5 * level / total.sqrt()).to(dtype)


def _waves_of(sigma: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 2 * FREQUENCIES] of noise levels [B]."""
    phase = sigma.float()[:, None] * FASTEST ** torch.linspace(0, 1, FREQUENCIES, device=sigma.device)
    return torch.cat([phase.cos(), phase.sin()], dim=1).to(dtype)


def _turns(height: int, width: int, size: int, like: Tensor) -> Tensor:
    """Angles [N, size / 2] of a grid's rotary embedding (Su et al. 2021), half of them by row and half by column.

    Positions are shares of the picture, so that reference and picture agree whatever their grids are.
    """
    rates = math.pi * POSITION_PERIOD ** torch.linspace(0, 1, size // 4, device=like.device)
    down = ((torch.arange(height, device=like.device) + 0.5) / height)[:, None, None] * rates
    across = ((torch.arange(width, device=like.device) + 0.5) / width)[None, :, None] * rates
    return torch.cat([down.expand(-1, width, -1), across.expand(height, -1, -1)], dim=-1).flatten(0, 1)


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """Pairs of x [B, heads, N, D] turned by angles [N, D / 2]."""
    cosine, sine = turns.cos().to(x), turns.sin().to(x)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
