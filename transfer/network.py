"""The paper's expression transfer: a driving encoder E and a per-vertex network G that reads the target's neutral."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..proxy.files import FORMAT_KEY, read_metadata, whole_file
from ..proxy.head_model import JOINTS, REGIONS, HeadModel
from .local_geometry import FEATURES, LocalGeometry, TemplateGeometry
from .moving_skin import moving_share

FORMAT, VERSION = "expportrait.transfer_network", 1
SHIPPED = Path(__file__).parent / "assets" / "transfer_network.safetensors"
MILLIMETRE = 1e-3
JAW = JOINTS.index("jaw")
VERTICES_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class NetworkSizes:
    """What a transfer network is made for and how large it is."""

    model_id: str
    expressions: int
    controls: int  # control vertices of the head model
    anchors: int = 192  # vertices that tell the network about the whole neutral
    code: int = 64  # numbers that an expression is coded in
    driver_width: int = 128
    width: int = 192
    depth: int = 3  # hidden layers of G
    frequencies: int = 5  # of the positional encoding
    products: int = 384  # of a place on a face and the neutral there
    place: int = 64  # learned numbers that tell where on a face a vertex lies
    whole: int = 64  # numbers that describe the whole neutral


class TransferNetwork(nn.Module):
    """Df(t) = sum_k c_k(t) F_k with codes c = E(expression, jaw) and displacement fields F = G(neutral of the target).

    After ExpPortrait (arXiv 2602.19900, section 3): `Df(i) = G(V_neutral, q_i)`, `q_i = E(expression, jaw)`. Here G is
    linear in the code, so that its network runs once per target instead of once per vertex and frame.

    G is a perceptron per vertex. It reads the positional encoding of the neutral position (Mildenhall et al. 2020), the
    difference from the template, how the tangent frame turned and stretched against the template's, region masks, a learned
    description of the place on a face and one of the whole neutral. It answers in the vertex's own tangent frame, in units
    of the local edge length, with a change of how the template's blend shapes move the vertex, and free fields on top.
    """

    def __init__(self, sizes: NetworkSizes):
        super().__init__()
        self.sizes = sizes
        driver = sizes.expressions + 3
        self.driver_linear = nn.Linear(driver, sizes.code, bias=False)
        self.driver_hidden = nn.Linear(driver, sizes.driver_width)
        self.driver_out = nn.Linear(sizes.driver_width, sizes.code, bias=False)
        self.blend = nn.Parameter(torch.zeros(sizes.code, sizes.expressions))  # blend shapes in terms of codes
        self.place = nn.Parameter(0.1 * torch.randn(sizes.controls, sizes.place))
        self.whole = nn.Linear(3 * sizes.anchors, sizes.whole)
        self.register_buffer("anchors", torch.zeros(sizes.anchors, dtype=torch.int64))
        inputs = FEATURES + 6 * sizes.frequencies + len(REGIONS) + sizes.place + sizes.whole
        widths = [inputs] + [sizes.width] * sizes.depth
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.modulate = nn.Linear(sizes.whole, 2 * sizes.depth * sizes.width)  # what the whole neutral does to each layer
        self.place_factor = nn.Linear(sizes.place, sizes.products)
        self.neutral_factor = nn.Linear(FEATURES + sizes.whole, sizes.products)
        widths[-1] += sizes.products
        self.change = nn.Linear(widths[-1], 10)  # a matrix and how far the frame's turn is followed
        self.free = nn.Linear(widths[-1], 3 * sizes.code)

    @staticmethod
    def create(model: HeadModel, generator: torch.Generator, **sizes: int) -> TransferNetwork:
        """An untrained network for a head model, its weights drawn from the generator; it predicts zero detail."""
        network = TransferNetwork(NetworkSizes(model.model_id, len(model.expression_names), len(model.template), **sizes))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("weight"):
                    bound = parameter.shape[1] ** -0.5
                    parameter.copy_(bound * (2 * torch.rand(parameter.shape, generator=generator) - 1))
                else:
                    parameter.zero_()
            network.place.copy_(_expression_modes(model, network.sizes.place))
            # One code per expression as far as they go: E then starts as the plain coefficients.
            network.blend.copy_(torch.eye(*network.blend.shape))
            network.driver_linear.weight.zero_()
            network.driver_linear.weight[:, : network.sizes.expressions] = network.blend
            for layer in (network.driver_out, network.modulate, network.change, network.free):
                layer.weight.zero_()
        points = torch.sparse.mm(model.stencil, model.template)
        network.anchors.copy_(_farthest_points(points, moving_share(model) > 0.5, network.sizes.anchors))
        return network.to(model.template.device)

    def encode(self, expression: Tensor, joints: Tensor) -> Tensor:
        """Codes [T, D] of expression [T, E] and joints [T, J, 3] (rotation vectors, radians), of which the jaw is read.

        An expression and jaw of zero have a code of exactly zero.
        """
        driver = torch.cat([expression, joints[:, JAW]], dim=-1)
        turned = nn.functional.linear(driver, self.driver_hidden.weight)
        # In the same layout, as vectorised code rounds the ends of a row otherwise and zero would not stay zero.
        rest = self.driver_hidden.bias.repeat(len(driver), 1)
        bent = nn.functional.silu(turned + rest) - nn.functional.silu(rest)
        return self.driver_linear(driver) + self.driver_out(bent)

    def fields(self, neutral: Tensor, model: HeadModel) -> Tensor:
        """Displacement fields [D, V, 3] in canonical space, metres per unit of code, of a target.

        `neutral` [V, 3] is the target's neutral face in canonical space, its static displacement included. Runs the network
        once for all vertices that expressions move; the others have zero. Raises ValueError if model and network do not
        belong together.
        """
        if model.model_id != self.sizes.model_id:
            raise ValueError(
                f"this transfer network was trained for head model {self.sizes.model_id}, but {model.model_id} is loaded; "
                f"train one for it with `expportrait train-transfer`"
            )
        surface = Surface(model)
        local = surface.template.describe(neutral)
        whole = self.describe_whole(neutral, surface)
        out = neutral.new_zeros(self.sizes.code, model.vertex_count, 3)
        for index in surface.moving.split(VERTICES_AT_ONCE):
            out[:, index] = self.fields_at(local.at(index), whole[None], surface, index)[0].transpose(0, 1)
        return out

    def describe_whole(self, neutral: Tensor, surface: Surface) -> Tensor:
        """Description [..., W] of whole neutrals [..., V, 3]."""
        offset = (neutral[..., self.anchors, :] - surface.template.points[self.anchors]) / 0.01
        return self.whole(offset.flatten(-2))

    def fields_at(self, local: LocalGeometry, whole: Tensor, surface: Surface, index: Tensor) -> Tensor:
        """Fields [S, N, D, 3], metres per unit of code, of S subjects at the vertices `index` [N].

        `local` holds the S * N vertices, subject by subject; `whole` is [S, W].
        """
        count, subjects = len(index), len(whole)
        place = surface.gather(self.place, index)
        blended = (self.blend @ surface.expression[index]).repeat(subjects, 1, 1)  # [S * N, D, 3] metres
        here = torch.cat([surface.regions[index], place], dim=1).repeat(subjects, 1)
        modulation = self.modulate(whole).unflatten(1, (self.sizes.depth, 2, -1))  # as Perez et al., "FiLM", AAAI 2018
        modulation, whole = modulation.repeat_interleave(count, 0), whole.repeat_interleave(count, 0)
        octaves = 2.0 ** torch.arange(self.sizes.frequencies).to(whole)
        phase = (local.features[:, :3, None] * octaves).flatten(1)
        x = torch.cat([local.features, phase.sin(), phase.cos(), here, whole], dim=1)
        for depth, layer in enumerate(self.hidden):
            gain, shift = modulation[:, depth].unbind(1)
            y = nn.functional.silu((1 + gain) * layer(x) + shift)
            x = y if depth == 0 else x + y
        # Deformation transfer is nearly linear in the neutral, by a map that depends on the place: products say that directly.
        neutral = self.neutral_factor(torch.cat([local.features, whole], dim=1))
        x = torch.cat([x, self.place_factor(place).repeat(subjects, 1) * neutral], dim=1)
        change = self.change(x)
        template = surface.template.frame[index].repeat(subjects, 1, 1)
        turned = torch.eye(3).to(x) - local.frame.mT @ template / local.scale[:, None, None]
        matrix = change[:, :9].unflatten(1, (3, 3)) + change[:, 9, None, None] * turned
        fields = blended @ matrix.mT + MILLIMETRE * self.free(x).unflatten(1, (-1, 3))
        size = (local.scale * surface.share[index].repeat(subjects))[:, None, None]
        return (size * (fields @ local.frame.mT)).unflatten(0, (subjects, count))

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file, its numbers in half precision."""
        tensors = {n: (v.half() if v.is_floating_point() else v).cpu().contiguous() for n, v in self.state_dict().items()}
        sizes = dataclasses.asdict(self.sizes)
        metadata = {FORMAT_KEY: FORMAT, "version": str(VERSION), "model_id": self.sizes.model_id, "sizes": json.dumps(sizes)}
        with whole_file(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @staticmethod
    def load(path: str | os.PathLike, model_id: str | None = None) -> TransferNetwork:
        """Reads a file of `save`, in single precision on the CPU.

        Raises FileNotFoundError, or ValueError for a file of another kind or version, for another head model than
        `model_id`, or a damaged one.
        """
        metadata, tensors = _read(path)
        if model_id is not None and metadata.get("model_id") != model_id:
            raise ValueError(
                f"{path} was trained for head model {metadata.get('model_id')}, but {model_id} is loaded; "
                f"train one for it with `expportrait train-transfer`"
            )
        with torch.inference_mode(False), torch.no_grad():
            try:
                network = TransferNetwork(NetworkSizes(**json.loads(metadata["sizes"])))
                network.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in tensors.items()})
            except (KeyError, TypeError, ValueError, RuntimeError):
                raise ValueError(f"{path} is damaged: its weights do not fit its sizes; train or download it again") from None
            return network.eval().requires_grad_(False)


class Surface:
    """What G reads of a head model, whoever the target is: places, regions and how the template's blend shapes move."""

    def __init__(self, model: HeadModel):
        self.template = TemplateGeometry(model)
        self.share = moving_share(model)  # [V]
        self.moving = self.share.nonzero()[:, 0]  # [M]
        self.regions = torch.stack([model.regions[name] for name in REGIONS], dim=1)  # [V, R]
        columns = model.expression_basis.transpose(0, 1).flatten(1)
        dense = torch.sparse.mm(model.stencil, columns).unflatten(1, (-1, 3))  # [V, E, 3]
        self.expression = dense @ self.template.frame  # in the template's frames
        self.control, self.weight = _rows(model.stencil)  # [V, K] each

    def gather(self, values: Tensor, index: Tensor) -> Tensor:
        """Values [C, K] of control vertices at the dense vertices `index` [N]: [N, K]."""
        return (self.weight[index][..., None] * values[self.control[index]]).sum(1)


@functools.lru_cache(maxsize=1)
def _shipped() -> TransferNetwork:
    return TransferNetwork.load(SHIPPED)


def load_transfer_network(model: HeadModel) -> TransferNetwork | None:
    """The network that the package ships for this head model, on the model's device; None if it ships none for it."""
    if model.model_id != _shipped().sizes.model_id:
        return None
    device = model.template.device
    return _shipped() if device.type == "cpu" else _moved(str(device))


@functools.lru_cache(maxsize=2)
def _moved(device: str) -> TransferNetwork:
    return TransferNetwork.load(SHIPPED).to(device)


def _read(path: str | os.PathLike) -> tuple[dict[str, str], dict[str, Tensor]]:
    metadata = read_metadata(path)
    found = metadata.get(FORMAT_KEY, "none")
    if found != FORMAT:
        raise ValueError(f"{path} has format {found}, expected {FORMAT}; choose a file that `expportrait train-transfer` wrote")
    if metadata.get("version") != str(VERSION):
        raise ValueError(f"{path} has version {metadata.get('version')} of {FORMAT}, this program reads {VERSION}; train it again")
    return metadata, load_file(path)


def _rows(stencil: Tensor) -> tuple[Tensor, Tensor]:
    """A sparse matrix [V, C] by rows of equal length: column indices [V, K] and weights [V, K], filled up with zeros."""
    stencil = stencil.coalesce()
    row, column = stencil.indices()
    count = torch.bincount(row, minlength=stencil.shape[0])
    first = count.cumsum(0) - count
    slot = torch.arange(len(row), device=row.device) - first[row]
    indices = torch.zeros(stencil.shape[0], int(count.max()), dtype=torch.int64, device=row.device)
    weights = torch.zeros_like(indices, dtype=stencil.dtype)
    indices[row, slot], weights[row, slot] = column, stencil.values()
    return indices, weights


def _expression_modes(model: HeadModel, count: int) -> Tensor:
    """How each control vertex moves in the strongest modes of the expressions [C, count], with an RMS of 1 where any does."""
    moves = model.expression_basis.transpose(0, 1).flatten(1)  # [C, E * 3]
    modes = torch.linalg.svd(moves, full_matrices=False).U[:, :count]
    modes = modes * modes.gather(0, modes.abs().argmax(0, keepdim=True)).sign()
    modes = modes * (moves.abs().amax(1) > 0).sum().sqrt()
    return nn.functional.pad(modes, (0, count - modes.shape[1]))


def _farthest_points(points: Tensor, mask: Tensor, count: int) -> Tensor:
    """Indices [count] of points that lie far from one another among those of the mask (Gonzalez 1985)."""
    index = mask.nonzero()[:, 0]
    points = points[index]
    chosen = [int((points - points.mean(0)).norm(dim=1).argmin())]
    distance = (points - points[chosen[0]]).norm(dim=1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).norm(dim=1))
    return index[chosen]
