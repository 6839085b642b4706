"""The command `expportrait train-dit`: clips to shards, shards to a trained adapter, a checkpoint to an adapter file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from ...proxy.files import read_safetensors
from ...proxy.frames import write_image
from ...proxy.head_model import HeadModel
from ...proxy.landmarks import load_landmarker
from ..adapter.config import INPUTS, AdapterConfig
from ..expression_code import code_size
from .cache import CacheSettings, cache_clip, read_head
from .look import CLIPS as LOOKED_AT
from .look import look
from .loop import Trainer, TrainSettings, export_adapter
from .shards import Shard, find_shards

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
BASES = {  # width, layers, latent channels, pixels per latent cell, reference
    "wan2.1-i2v-14b": (5120, 40, 16, 8, "condition"),
    "wan2.2-i2v-a14b": (5120, 40, 16, 8, "condition"),
    "wan2.1-t2v-14b": (5120, 40, 16, 8, "tokens"),
    "wan2.1-t2v-1.3b": (1536, 30, 16, 8, "tokens"),
    "wan2.2-ti2v-5b": (3072, 30, 48, 16, "tokens"),
}
CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
CHECKPOINT, LOG, LOOK = "checkpoint.safetensors", "losses.csv", "look_{:06d}.png"
LOOK_EVERY = 1000
TOKENS = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands `cache`, `train` and `export` that `train_dit` reads, besides the device and the head model."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    clips, learning = CacheSettings(), TrainSettings()

    cache = commands.add_parser("cache", help="make shards of clips; clips that have theirs already are left out")
    cache.add_argument("--clips", required=True, help="folder of videos of one person each")
    cache.add_argument("--vae", required=True, help="folder of diffusers' AutoencoderKLWan")
    cache.add_argument("--out", required=True, help="folder for the shards")
    cache.add_argument("--base", choices=BASES, help="what the adapter is for")
    cache.add_argument("--width", type=int, help="of another base's transformer")
    cache.add_argument("--layers", type=int, help="of another base's transformer")
    cache.add_argument("--control-width", type=int, default=32, help="channels inside the control encoder (default: %(default)s)")
    cache.add_argument("--inputs", nargs="+", choices=INPUTS, default=["normals"], help="of the control (default: normals)")
    cache.add_argument("--code", choices=("explicit", "face", "none"), default="explicit", help="expression code (default: %(default)s)")
    cache.add_argument("--size", type=int, default=clips.size, help="of the square cut, pixels (default: %(default)s)")
    cache.add_argument("--frames", type=int, default=clips.frames, help="of a shard, 4n + 1 (default: %(default)s)")
    cache.add_argument("--variants", type=int, default=clips.variants, help="reference pictures of a shard (default: %(default)s)")
    cache.add_argument("--mask-features", action="store_true", help="hide mouth and eyes in the control, so that it tells the pose alone")
    cache.add_argument(
        "--heads",
        metavar="FOLDER",
        help="NAME.track.safetensors and NAME.proxy.safetensors of clips, such as refined ones: their displacement shows in the control "
        "(default: each clip is fitted)",
    )
    cache.add_argument("--seed", type=int, default=clips.seed, help="(default: %(default)s)")
    cache.set_defaults(part=_cache)

    train = commands.add_parser("train", help="train; the same command again goes on where it was stopped")
    train.add_argument("--shards", required=True, help="folder of shards")
    train.add_argument("--transformer", required=True, help="folder of diffusers' WanTransformer3DModel")
    train.add_argument("--run", dest="folder", required=True, help="folder for checkpoint and losses")
    train.add_argument("--text", help="safetensors file with the one prompt's embedding [1, L, D] (default: zeros)")
    train.add_argument("--steps", type=int, default=learning.steps, help="of the whole run (default: %(default)s)")
    train.add_argument("--batch", type=int, default=learning.batch, help="clips in a step, of each GPU (default: %(default)s)")
    train.add_argument("--rate", type=float, default=learning.rate, help="learning rate (default: %(default)s)")
    train.add_argument("--rank", type=int, default=learning.rank, help="of the LoRA, 0 for none (default: %(default)s)")
    train.add_argument("--shift", type=float, default=learning.shift, help="of the noise levels (default: %(default)s)")
    train.add_argument("--seed", type=int, default=learning.seed, help="(default: %(default)s)")
    train.add_argument("--save-every", type=int, default=100, metavar="STEPS", help="between checkpoints (default: %(default)s)")
    pictures = f"between pictures of held-out clips, 0 for none (default: {LOOK_EVERY}, given a VAE)"
    train.add_argument("--look-every", type=int, metavar="STEPS", help=pictures)
    train.add_argument("--held-out", metavar="FOLDER", help="shards to look at that are not trained on (default: the first trained on)")
    train.add_argument("--vae", help="folder of diffusers' AutoencoderKLWan, to look with (default: vae beside the transformer's)")
    train.add_argument("--float32", action="store_true", help="train in float32 instead of bfloat16")
    train.set_defaults(part=_train)

    export = commands.add_parser("export", help="write a run's adapter and LoRA as an adapter file")
    export.add_argument("--run", dest="folder", required=True, help="folder of the run")
    export.add_argument("--out", required=True, help="adapter file (.safetensors)")
    export.add_argument("--trained-on", default="", help="name of the base, told to those who load it with another")
    export.set_defaults(part=_export)


@torch.inference_mode(False)
def train_dit(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    """Runs one of the three commands. Raises ValueError or FileNotFoundError, in one sentence, for bad input."""
    options.part(options, model, bar)


def _cache(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    from diffusers import AutoencoderKLWan

    paths = sorted(path for path in Path(options.clips).glob("*") if path.suffix.lower() in CLIPS)
    if not paths:
        raise ValueError(f"there are no videos in {options.clips}; give a folder of {', '.join(CLIPS)} files")
    settings = CacheSettings(options.size, options.frames, options.variants, options.mask_features, options.seed)
    config, landmarker = _config(options, model), load_landmarker(options.device)
    vae = AutoencoderKLWan.from_pretrained(options.vae, local_files_only=True).to(options.device).eval()
    for path in paths:
        if (Path(options.out) / f"{path.stem}_000.safetensors").exists():
            continue
        with bar(path.stem) as progress, torch.no_grad():
            head = read_head(options.heads, path.stem, model) if options.heads else None
            shards = [*cache_clip(str(path), model, landmarker, vae, config, settings, head, progress)]
        # The first one last: a clip that has it has them all.
        for number, shard in reversed([*enumerate(shards)]):
            shard.save(Path(options.out) / f"{path.stem}_{number:03}.safetensors", config)


def _config(options: argparse.Namespace, model: HeadModel) -> AdapterConfig:
    if options.base is None and not (options.width and options.layers):
        raise ValueError("the adapter's base is not known; give --base, or --width and --layers of its transformer")
    width, layers, channels, spatial, reference = BASES.get(options.base, (options.width, options.layers, 16, 8, "condition"))
    explicit = code_size(model) if options.code == "explicit" else 0
    return AdapterConfig(
        width=options.width or width,
        layers=options.layers or layers,
        latent_channels=channels,
        spatial=spatial,
        control_width=options.control_width,
        inputs=tuple(options.inputs),
        reference=reference,
        code=options.code,
        explicit_size=explicit,
        head_model=model.model_id,
    )


def _train(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    from accelerate import PartialState
    from diffusers import WanTransformer3DModel

    state = PartialState(cpu=str(options.device) == "cpu")
    kind = torch.float32 if options.float32 else torch.bfloat16
    transformer = WanTransformer3DModel.from_pretrained(options.transformer, dtype=kind, local_files_only=True)
    transformer.enable_gradient_checkpointing()
    transformer.train()
    settings = TrainSettings(
        options.steps, options.batch, options.rate, rank=options.rank, shift=options.shift, seed=options.seed, bfloat16=not options.float32
    )
    device = state.device if state.num_processes > 1 else options.device
    trainer = Trainer(transformer, options.shards, _text(options, transformer), settings, device)
    checkpoint, log = Path(options.folder) / CHECKPOINT, Path(options.folder) / LOG
    if checkpoint.exists():
        trainer.load(checkpoint)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    look_now = _looking(options, trainer) if state.is_main_process else None
    with bar("train") as progress, open(log, "a", encoding="utf-8") as lines:
        for loss in trainer.run(progress):
            if not state.is_main_process:
                continue
            lines.write(f"{trainer.step},{loss:.6f}\n")
            if trainer.step % options.save_every == 0 or trainer.step == options.steps:
                lines.flush()
                trainer.save(checkpoint)
            if look_now is not None:
                look_now()


def _looking(options: argparse.Namespace, trainer: Trainer) -> Callable[[], None] | None:
    """What writes a picture of held-out clips whenever one is due; None if none is wanted."""
    from diffusers import AutoencoderKLWan

    folder = Path(options.vae or Path(options.transformer).parent / "vae")
    every = options.look_every
    if every is None:
        every = LOOK_EVERY if folder.is_dir() else 0
    if every == 0:
        return None
    if not folder.is_dir():
        raise ValueError(f"there is no VAE in {folder} to look at results with; give --vae, or --look-every 0")
    vae = AutoencoderKLWan.from_pretrained(folder, local_files_only=True).to(trainer.device).eval()
    paths, config = find_shards(options.held_out or options.shards)
    if config != trainer.config:
        raise ValueError(f"the shards in {options.held_out} were made for another adapter; make them with the same settings")
    shards = [Shard.load(path)[0] for path in paths[:LOOKED_AT]]

    def look_now() -> None:
        if trainer.step % every == 0 or trainer.step == options.steps:
            write_image(Path(options.folder) / LOOK.format(trainer.step), look(trainer, shards, vae).cpu())

    return look_now


def _text(options: argparse.Namespace, transformer) -> Tensor:
    width = transformer.config.text_dim
    if options.text is None:
        return torch.zeros(1, TOKENS, width)
    tensors = [value for value in read_safetensors(options.text)[1].values() if value.ndim == 3 and value.shape[2] == width]
    if len(tensors) != 1:
        raise ValueError(f"{options.text} holds no single text embedding [1, length, {width}]; save the prompt's embedding alone")
    return tensors[0].float()


def _export(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    export_adapter(Path(options.folder) / CHECKPOINT, options.out, options.trained_on)
