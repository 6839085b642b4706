import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from expportrait.dit.adapter.adapter_file import load_adapter, save_adapter

from .small_adapter import CONFIG, adapter_of, awake, inputs


def unianimate_tensors(width=64, blocks=3):
    """Names and shapes of UniAnimate-DiT's published file, its transformer's width and number of blocks made small."""
    tensors, channels = {}, 3
    for layer in range(6):
        tensors[f"dwpose_embedding.{2 * layer}.weight"] = torch.randn(16, channels, 3, 3, 3)
        tensors[f"dwpose_embedding.{2 * layer}.bias"] = torch.randn(16)
        tensors[f"randomref_embedding_pose.{2 * layer}.weight"] = torch.randn(20 if layer == 5 else 16, channels, 3, 3)
        tensors[f"randomref_embedding_pose.{2 * layer}.bias"] = torch.randn(20 if layer == 5 else 16)
        channels = 16
    tensors["dwpose_embedding.12.weight"] = torch.randn(width, 16, 1, 2, 2)
    tensors["dwpose_embedding.12.bias"] = torch.randn(width)
    for block in range(blocks):
        for layer in ("self_attn.q", "ffn.0"):
            tensors[f"blocks.{block}.{layer}.lora_A.default.weight"] = torch.randn(4, width)
            tensors[f"blocks.{block}.{layer}.lora_B.default.weight"] = torch.randn(width, 4)
    return tensors


def test_an_adapter_survives_its_file(tmp_path, generator):
    adapter = awake(adapter_of(), generator)
    lora = {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.randn(4, 32)}
    save_adapter(tmp_path / "a.safetensors", adapter, lora)
    file = load_adapter(tmp_path / "a.safetensors")
    again = file.build()
    assert file.config == CONFIG and torch.equal(file.lora[next(iter(lora))], next(iter(lora.values())))
    for part in ("control", "reference", "expression"):
        before, after = (getattr(each.encode(*inputs(torch.Generator().manual_seed(1))), part) for each in (adapter, again))
        assert torch.equal(before, after)


def test_unianimate_reads_as_a_pixel_adapter(tmp_path):
    tensors = unianimate_tensors()
    save_file(tensors, tmp_path / "u.safetensors")
    file = load_adapter(tmp_path / "u.safetensors")
    assert (file.config.width, file.config.layers, file.config.inputs, file.config.range) == (64, 3, ("lines",), "unit")
    assert len(file.lora) == 12 and "diffusion_model.blocks.2.self_attn.q.lora_A.weight" in file.lora
    adapter, lines = file.build(), torch.rand(1, 3, 9, 32, 32)
    found = adapter.encode(lines, lines[:, :, 0])

    def stack(name, count, conv, strides, x):
        for layer in range(count):
            x = conv(x, tensors[f"{name}.{2 * layer}.weight"], tensors[f"{name}.{2 * layer}.bias"], stride=strides[layer], padding=1)
            x = torch.nn.functional.silu(x) if layer < 5 or name == "dwpose_embedding" else x
        return x

    padded = torch.cat([lines[:, :, :1].repeat(1, 1, 3, 1, 1), lines], 2)
    features = stack("dwpose_embedding", 6, torch.nn.functional.conv3d, [1, 1, 1, (1, 2, 2), 2, 2], padded)
    weight, bias = (tensors[f"dwpose_embedding.12.{part}"] for part in ("weight", "bias"))
    last = torch.nn.functional.conv3d(features, weight, bias, stride=(1, 2, 2))
    assert torch.allclose(adapter.control.tokens(found.control), last.flatten(2).mT, rtol=1e-4, atol=1e-3)
    reference = stack("randomref_embedding_pose", 6, torch.nn.functional.conv2d, [1, 1, 1, 2, 2, 2], lines[:, :, 0])
    assert torch.allclose(found.reference[:, :, 0], reference, rtol=1e-4, atol=1e-3)


def test_prefixes_before_unianimates_names_do_not_matter(tmp_path):
    save_file({f"pipe.{key}": value for key, value in unianimate_tensors().items()}, tmp_path / "u.safetensors")
    assert load_adapter(tmp_path / "u.safetensors").build().config.width == 64


def test_fun_control_reads_as_a_latent_adapter(tmp_path):
    weight = torch.randn(64, 52, 1, 2, 2)
    tensors = {"patch_embedding.weight": weight, "blocks.0.ffn.0.weight": torch.zeros(1), "blocks.4.ffn.0.weight": torch.zeros(1)}
    save_file(tensors, tmp_path / "f.safetensors")
    adapter = load_adapter(tmp_path / "f.safetensors").build()
    assert adapter.config.layers == 5 and adapter.config.control == "latent"
    latents = torch.randn(1, 16, 3, 4, 4)
    expected = torch.nn.functional.conv3d(latents, weight[:, 16:32], stride=(1, 2, 2)).flatten(2).mT
    assert torch.allclose(adapter.add_control(torch.zeros(1, 12, 64), latents), expected, atol=1e-5)


def test_foreign_broken_and_missing_files_are_told(tmp_path, generator):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_adapter(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_adapter(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="holds no portrait adapter"):
        load_adapter(path)
    save_file({key: v for key, v in unianimate_tensors().items() if ".12." not in key}, path)
    with pytest.raises(ValueError, match="only a part of UniAnimate"):
        load_adapter(path)
    save_file({"patch_embedding.weight": torch.zeros(8, 48, 1, 2, 2)}, path)
    with pytest.raises(ValueError, match="without its transformer"):
        load_adapter(path)
    save_adapter(path, awake(adapter_of(), generator))
    file = load_adapter(path)
    for tensors, told in (
        ({k: v for k, v in file.tensors.items() if "gate" not in k}, "misses attention"),
        (file.tensors | {"more": torch.zeros(1)}, "unknown more"),
        (file.tensors | {"control.project.bias": torch.zeros(3)}, "another shape of control.project.bias"),
    ):
        with pytest.raises(ValueError, match=told):
            dataclasses.replace(file, tensors=tensors).build()
