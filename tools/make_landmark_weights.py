"""Makes proxy/assets/landmarks.safetensors from the .tflite models inside the mediapipe 0.10.21 wheel (Apache-2.0).

    python tools/make_landmark_weights.py mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl

Needs the `tflite` package, which only reads the file format. Takes the wheel or a folder with its contents. Layers are
matched by order: the weighted operators that each output of a graph depends on, against the order in which our module
calls its layers; every shape is checked.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
import tflite
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from expportrait.proxy.files import whole_file
from expportrait.proxy.landmarks.detector_nets import FullRange, ShortRange
from expportrait.proxy.landmarks.face_mesh import FaceMesh
from expportrait.proxy.landmarks.segmentation import PersonSegmentation

ASSET = Path(__file__).parents[1] / "proxy/assets/landmarks.safetensors"
MODULES = "mediapipe/modules/"
# prefix: (file, module, input size, outputs in the order in which our module computes them)
NETWORKS = {
    "short_range": ("face_detection/face_detection_short_range", ShortRange, 128, ("classificators", "regressors")),
    "full_range": ("face_detection/face_detection_full_range_sparse", FullRange, 192, ("Identity_1", "Identity")),
    "mesh": (
        "face_landmark/face_landmark_with_attention",
        FaceMesh,
        192,
        (
            "output_mesh_identity",
            "output_lips",
            "output_left_eye",
            "output_left_iris",
            "output_right_eye",
            "output_right_iris",
            "conv_faceflag",
        ),
    ),
    "person": ("selfie_segmentation/selfie_segmentation", PersonSegmentation, 256, ("activation_10",)),
}
TYPES = {0: np.float32, 1: np.float16, 2: np.int32}
WEIGHTED = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "depthwise", "PRELU": "prelu", "Convolution2DTransposeBias": "transposed"}


class Graph:
    """The operators of a .tflite file, and its constants as arrays."""

    def __init__(self, content: bytes):
        model = tflite.Model.GetRootAsModel(content, 0)
        self._model, self._graph = model, model.Subgraphs(0)
        kinds = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
        self.operators = []  # (kind, inputs, output) in graph order
        for i in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(i)
            code = model.OperatorCodes(operator.OpcodeIndex())
            builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            kind = code.CustomCode().decode() if builtin == tflite.BuiltinOperator.CUSTOM else kinds[builtin]
            self.operators.append((kind, operator.InputsAsNumpy().tolist(), operator.Outputs(0)))
        self.maker = {output: (kind, inputs) for kind, inputs, output in self.operators}
        self.outputs = {self._graph.Tensors(int(t)).Name().decode(): int(t) for t in self._graph.OutputsAsNumpy()}

    def constant(self, index: int) -> np.ndarray:
        """A constant, through DEQUANTIZE and DENSIFY."""
        tensor = self._graph.Tensors(index)
        buffer = self._model.Buffers(tensor.Buffer())
        if not buffer.DataLength():
            return self.constant(self.maker[index][1][0])
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), TYPES[tensor.Type()])
        shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
        return _densify(tensor, values, shape) if tensor.Sparsity() else values.reshape(shape)

    def weighted(self, output: str) -> list[tuple[str, list[np.ndarray]]]:
        """Kind and constants of the weighted operators that `output` depends on, in graph order."""
        needed, todo = set(), [self.outputs[output]]
        while todo:
            tensor = todo.pop()
            if tensor in self.maker and tensor not in needed:
                needed.add(tensor)
                todo += self.maker[tensor][1]
        return [
            (WEIGHTED[kind], inputs[1:], result)
            for kind, inputs, result in self.operators
            if kind in WEIGHTED and result in needed
        ]


def _densify(tensor, values: np.ndarray, shape) -> np.ndarray:
    """Expands a tensor that is stored by the TFLite sparsity format (dense outer axes, one compressed axis, blocks)."""
    sparsity = tensor.Sparsity()
    order, blocks = sparsity.TraversalOrderAsNumpy().tolist(), sparsity.BlockMapAsNumpy()
    blocks = blocks.tolist() if sparsity.BlockMapLength() else []
    levels = [sparsity.DimMetadata(i) for i in range(sparsity.DimMetadataLength())]
    sizes = [levels[i].DenseSize() for i in range(len(levels))]
    rank = len(shape)
    block = {axis: levels[rank + i].DenseSize() for i, axis in enumerate(blocks)}
    result, cursor = np.zeros(shape, values.dtype), 0

    def walk(level: int, position: int, where: list[int]):
        nonlocal cursor
        if level == len(levels):
            index = [0] * rank
            for depth, axis in enumerate(order):
                index[axis if axis < rank else blocks[axis - rank]] += where[depth] * (block.get(axis, 1) if axis < rank else 1)
            result[tuple(index)] = values[position]
            return
        if levels[level].Format() == tflite.DimensionType.DENSE:
            for i in range(sizes[level]):
                walk(level + 1, position * sizes[level] + i, [*where, i])
            return
        segments, indices = _vector(levels[level], "ArraySegments"), _vector(levels[level], "ArrayIndices")
        for j in range(segments[position], segments[position + 1]):
            walk(level + 1, j, [*where, int(indices[j])])

    walk(0, 0, [])
    return result


def _vector(level, name: str) -> np.ndarray:
    kind = getattr(level, f"{name}Type")()
    vector = {1: tflite.Int32Vector, 2: tflite.Uint16Vector, 3: tflite.Uint8Vector}[kind]()
    table = getattr(level, name)()
    vector.Init(table.Bytes, table.Pos)
    return vector.ValuesAsNumpy()


def call_order(module: nn.Module, size: int) -> list[tuple[str, nn.Module]]:
    """Names and layers with weights, in the order in which a forward pass calls them."""
    calls, hooks = [], []
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.PReLU)):
            hooks.append(layer.register_forward_hook(lambda *_, name=name, layer=layer: calls.append((name, layer))))
    with torch.no_grad():
        module(torch.rand(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return calls


def _parameters(kind: str, constants: list[np.ndarray]) -> dict[str, Tensor]:
    arrays = [torch.from_numpy(np.array(a)) for a in constants]
    if kind == "prelu":
        return {"weight": arrays[0].reshape(-1)}
    axes = {"conv": (0, 3, 1, 2), "depthwise": (3, 0, 1, 2), "transposed": (3, 0, 1, 2)}[kind]
    return {"weight": arrays[0].permute(axes).contiguous(), "bias": arrays[1]}


def convert(graph: Graph, module: nn.Module, size: int, outputs: tuple[str, ...]) -> dict[str, Tensor]:
    """State dict of `module` with the weights of `graph`. Raises ValueError where a layer does not match."""
    operators, seen = [], set()
    for output in outputs:
        for kind, inputs, result in graph.weighted(output):
            if result not in seen:
                seen.add(result)
                operators.append((kind, [graph.constant(i) for i in inputs]))
    layers = call_order(module, size)
    if len(operators) != len(layers):
        raise ValueError(f"the graph has {len(operators)} weighted operators, our {type(module).__name__} has {len(layers)}")
    state = {}
    for (name, layer), (kind, constants) in zip(layers, operators, strict=True):
        for part, value in _parameters(kind, constants).items():
            if value.shape != getattr(layer, part).shape:
                raise ValueError(f"{name}.{part} is {list(getattr(layer, part).shape)}, the graph has {list(value.shape)}")
            state[f"{name}.{part}"] = value
    missing = set(module.state_dict()) - set(state)
    if missing:
        raise ValueError(f"no weights for {sorted(missing)}")
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="the mediapipe 0.10.21 wheel, or a folder with its contents")
    wheel = parser.parse_args().wheel
    tensors = {}
    for prefix, (name, module, size, outputs) in NETWORKS.items():
        path = f"{MODULES}{name}.tflite"
        content = (wheel / path).read_bytes() if wheel.is_dir() else zipfile.ZipFile(wheel).read(path)
        state = convert(Graph(content), module(), size, outputs)
        tensors |= {f"{prefix}.{key}": value.half() for key, value in state.items()}
        lossy = max((value.float() - value.half().float()).abs().max().item() for value in state.values())
        print(f"{prefix}: {len(state)} tensors, {sum(v.numel() for v in state.values())} values, float16 error {lossy:.1g}")
    with whole_file(ASSET) as temporary:
        save_file(tensors, temporary, metadata={"format": "expportrait.landmarks", "version": "1"})
    print(f"{ASSET}: {ASSET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
