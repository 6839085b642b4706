import dataclasses
import json

import pytest
import torch

from expportrait.dit.adapter.adapter_file import AdapterFile, save_adapter
from expportrait.dit.adapter.config import AdapterConfig

from .adapter.small_adapter import adapter_of, awake
from .still_head import moved, still_proxy

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install expportrait[diffusers]")
pytest.importorskip("transformers", reason="transformers is not installed: pip install expportrait[diffusers]")

from expportrait.cli import main  # noqa: E402
from expportrait.dit.generate import GenerateSettings, check_memory, generate, load_pipeline  # noqa: E402
from expportrait.dit.guidance import Schedule  # noqa: E402
from expportrait.proxy.frames import Frames, write_image  # noqa: E402

from .small_wan import LAYERS, WIDTH, pipeline_of  # noqa: E402

SMALL = GenerateSettings(width=32, height=32, frames=5, steps=2, schedule=Schedule(0.5, 0.0))


@pytest.fixture(scope="module")
def proxy(model):
    return still_proxy(model, 32, 32)


def file_of(model, generator, **values):
    config = AdapterConfig(
        **(
            {"width": WIDTH, "layers": LAYERS, "control_width": 8, "reference_width": 8, "expression_every": 2, "expression_width": 64}
            | {"explicit_size": len(model.expression_names) + 9, "head_model": model.model_id}
            | values
        )
    )
    adapter = awake(adapter_of(config), generator)
    return AdapterFile(config, adapter.state_dict(), {})


def test_a_video_follows_the_head_and_is_the_same_again(model, proxy, generator):
    pipeline, file, source = pipeline_of(), file_of(model, generator), torch.rand(3, 32, 32, generator=generator)
    seen = []
    with torch.inference_mode():
        still = generate(pipeline, source, proxy, moved(proxy), model, file, SMALL, lambda done, total: seen.append((done, total)))
        again = generate(pipeline, source, proxy, moved(proxy), model, file, SMALL)
        turned = generate(pipeline, source, proxy, moved(proxy, turn=(0, 0.6, 0)), model, file, SMALL)
    assert still.shape == (5, 32, 32, 3) and seen == [(1, 2), (2, 2)]
    assert torch.equal(still, again) and not torch.allclose(still, turned, atol=1e-3)
    assert not pipeline.transformer.blocks[0]._forward_pre_hooks


def test_it_runs_in_half_precision_and_leaves_no_lora_behind(model, proxy, generator):
    pipeline, file = pipeline_of(), file_of(model, generator)
    pipeline.transformer.to(torch.bfloat16)
    layer = "diffusion_model.blocks.0.self_attn.q"
    lora = {f"{layer}.lora_A.weight": torch.randn(4, WIDTH), f"{layer}.lora_B.weight": torch.randn(WIDTH, 4)}
    with torch.inference_mode():
        plain = generate(pipeline, torch.zeros(3, 32, 32), proxy, moved(proxy), model, file, SMALL)
        tuned = generate(pipeline, torch.zeros(3, 32, 32), proxy, moved(proxy), model, dataclasses.replace(file, lora=lora), SMALL)
        again = generate(pipeline, torch.zeros(3, 32, 32), proxy, moved(proxy), model, file, SMALL)
    assert plain.isfinite().all() and torch.equal(plain, again) and not torch.equal(plain, tuned)


def test_text_to_video_needs_no_picture(model, proxy, generator):
    file = file_of(model, generator, reference="tokens")
    with torch.inference_mode():
        frames = generate(pipeline_of(False), torch.zeros(3, 32, 32), proxy, moved(proxy), model, file, SMALL)
    assert frames.shape == (5, 32, 32, 3)


def test_what_progress_raises_ends_the_run_and_frees_the_model(model, proxy, generator):
    pipeline, file = pipeline_of(), file_of(model, generator)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), torch.inference_mode():
        generate(pipeline, torch.zeros(3, 32, 32), proxy, moved(proxy), model, file, SMALL, stop)
    assert not pipeline.transformer.blocks[0]._forward_pre_hooks


def test_a_folder_by_the_command(tmp_path, model, proxy, generator):
    pipeline_of().save_pretrained(tmp_path / "wan")
    file = file_of(model, generator)
    save_adapter(tmp_path / "a.safetensors", file.build())
    proxy.save(tmp_path / "proxy.safetensors")
    moved(proxy).save(tmp_path / "motion.safetensors")
    write_image(tmp_path / "face.png", torch.rand(32, 32, 3, generator=generator))
    arguments = {name: tmp_path / end for name, end in (("pipeline", "wan"), ("adapter", "a.safetensors"), ("source", "face.png"))}
    arguments |= {"proxy": tmp_path / "proxy.safetensors", "motion": tmp_path / "motion.safetensors", "out": tmp_path / "out.mp4"}
    numbers = {"width": 32, "height": 32, "frames": 5, "steps": 2, "dtype": "float32"}
    given = [text for name, value in (arguments | numbers).items() for text in (f"--{name}", str(value))]
    assert main(["generate", *given]) == 0
    assert len(Frames.open(tmp_path / "out.mp4")) == 5


def test_wrong_folders_and_numbers_are_told(tmp_path, model, proxy, generator):
    with pytest.raises(ValueError, match="no model_index.json"):
        load_pipeline(tmp_path, "cpu")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ValueError, match="holds a FluxPipeline"):
        load_pipeline(tmp_path, "cpu")
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_pipeline(tmp_path, "cpu")
    for wrong in ({"frames": 8}, {"steps": 0}, {"width": 30}, {"height": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            dataclasses.replace(SMALL, **wrong)
    for file, settings, told in (
        (None, SMALL, "cannot follow a head by itself"),
        (file_of(model, generator), dataclasses.replace(SMALL, prompt="a man"), "no text encoder"),
        (file_of(model, generator, control="latent"), SMALL, "use it in ComfyUI"),
        (file_of(model, generator, code="face"), SMALL, "reads the performer's face"),
    ):
        with pytest.raises(ValueError, match=told):
            generate(pipeline_of(), torch.zeros(3, 32, 32), proxy, moved(proxy), model, file, settings)


def test_a_model_that_no_memory_holds_is_told_before_it_is_read(tmp_path):
    with open(tmp_path / "transformer.safetensors", "wb") as file:
        file.truncate(10**12)
    with pytest.raises(ValueError, match="1000 GB"):
        check_memory(tmp_path, torch.device("cpu"))
    check_memory(tmp_path, torch.device("cuda"))
