"""The training loop (flow matching): adapter in full, a LoRA on the base, the base itself frozen.

x_s = (1 - s) x + s n, target n - x, with s shifted as the sampler shifts it. All randomness of a step follows from its number, so a
run that was killed goes on with the very same losses.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...proxy.files import read_safetensors, whole_file
from ..adapter.adapter import PortraitAdapter, PortraitCondition
from ..adapter.adapter_file import AdapterFile, save_adapter
from ..adapter.config import AdapterConfig
from ..diffusers_adapter import DiffusersAdapter
from ..wan_names import native_name
from .another_crop import another_crop, centre_crop
from .shards import Shard, find_shards, from_bytes

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2"]  # of the LoRA, in every block
TRAIN_STEPS = 1000  # of the base's schedule
HEADER = "expportrait_training"
SEEDS = 1_000_003  # steps of one seed do not meet those of the next
LORA = "portrait"


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Raises ValueError for values out of range."""

    steps: int = 1000
    batch: int = 1  # clips in a step, of each process
    rate: float = 1e-4
    decay: float = 0.01
    clip: float = 1.0
    rank: int = 64  # of the LoRA; 0 trains the adapter alone
    shift: float = 3.0  # of the noise levels: 3 at 480p, 5 at 720p
    drop_control: float = 0.1
    drop_reference: float = 0.1
    drop_expression: float = 0.15
    drop_all: float = 0.05  # but the reference
    seed: int = 0
    bfloat16: bool = False

    def __post_init__(self):
        for name, least in (("steps", 1), ("batch", 1), ("rank", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least {least}")
        for name in ("drop_control", "drop_reference", "drop_expression", "drop_all"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")
        for name in ("rate", "clip", "shift"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")


class Trainer:
    """An adapter and a LoRA on a diffusers Wan transformer, learning from a folder of shards.

    `text` [1, L, D] is the embedding of the one prompt that all clips share. With several processes (accelerate's environment) each
    takes other clips, and gradients are averaged.
    """

    def __init__(
        self, transformer: nn.Module, shards: str | os.PathLike, text: Tensor, settings: TrainSettings, device: torch.device | str
    ):
        self.paths, config = find_shards(shards)
        self.settings, self.device, self.step = settings, torch.device(device), 0
        self.transformer = transformer.to(self.device).requires_grad_(False)
        if settings.rank:
            from peft import LoraConfig

            torch.manual_seed(settings.seed)
            self.transformer.add_adapter(LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=TARGETS), LORA)
        torch.manual_seed(settings.seed)
        self.adapter = PortraitAdapter(config).reset().to(self.device)
        self.attached = DiffusersAdapter([self.transformer], self.adapter)
        self.text = text.to(self.device)
        self.optimiser = torch.optim.AdamW(self.trained().values(), lr=settings.rate, weight_decay=settings.decay)

    @property
    def config(self) -> AdapterConfig:
        return self.adapter.config

    def trained(self) -> dict[str, nn.Parameter]:
        """Every parameter that learns, by name."""
        own = {f"adapter.{name}": value for name, value in self.adapter.named_parameters()}
        return own | {f"lora.{name}": value for name, value in self.transformer.named_parameters() if value.requires_grad}

    def run(self, progress: Callable[[int, int], None] | None = None, each: Callable[[int], None] | None = None) -> Iterator[float]:
        """Trains up to `settings.steps`, yields each step's loss. `each(step)` is called after each."""
        while self.step < self.settings.steps:
            loss = self._learn()
            self.step += 1
            if progress is not None:
                progress(self.step, self.settings.steps)
            if each is not None:
                each(self.step)
            yield loss

    def _learn(self) -> float:
        process, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        generator = torch.Generator().manual_seed(SEEDS * self.settings.seed + processes * self.step + process)
        chosen = torch.randint(len(self.paths), (self.settings.batch,), generator=generator).tolist()
        shards = [Shard.load(self.paths[k])[0] for k in chosen]
        if len({shard.latents.shape for shard in shards}) > 1:
            raise ValueError("the shards have several sizes or lengths; train with one clip in a step, or make them all alike")
        with self.autocast():
            loss = self.loss(shards, generator)
        self.optimiser.zero_grad()
        if loss.requires_grad:  # not where all is dropped and there is no LoRA
            loss.backward()
        parameters = list(self.trained().values())
        if processes > 1:
            for parameter in parameters:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                torch.distributed.all_reduce(gradient)
                parameter.grad = gradient / processes
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        self.optimiser.step()
        return float(loss.detach())

    def autocast(self) -> torch.autocast:
        """In which the transformer is called."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16)

    def loss(self, shards: list[Shard], generator: torch.Generator) -> Tensor:
        """Weighted flow-matching loss of clips, each at a random noise level, with conditions dropped at random, alike for all."""
        count, shift = len(shards), self.settings.shift
        clean = torch.stack([shard.latents for shard in shards]).float().to(self.device)
        uniform = torch.rand(count, generator=generator)
        variants = [int(torch.randint(len(shard.references), (1,), generator=generator)) for shard in shards]
        level = (shift * uniform / (1 + (shift - 1) * uniform)).to(self.device)
        noise = torch.randn(clean.shape, generator=generator).to(self.device)
        dropped = self._dropped(generator)
        self.attached.set(self.condition(shards, variants, dropped, generator))
        references = torch.stack([shard.references[k] for shard, k in zip(shards, variants)])
        noisy = torch.lerp(clean, noise, level[:, None, None, None, None])
        found = self.velocity(noisy, level, None if "reference" in dropped else references)
        error = (found.float() - (noise - clean)).square().mean(1)
        weight = torch.stack([shard.weight for shard in shards]).to(error)
        return ((weight * error).sum((1, 2, 3)) / weight.sum((1, 2, 3))).mean()

    def condition(
        self,
        shards: list[Shard],
        variants: list[int],
        dropped: frozenset[str] = frozenset(),
        generator: torch.Generator | None = None,
    ) -> PortraitCondition:
        """The clips' heads with the chosen reference variants, encoded by the adapter as it is now, without the parts that are dropped.

        With a generator faces are cut and coloured anew, as in training.
        """
        config, like = self.config, next(self.adapter.parameters())
        parts = {}
        if config.control != "none" and "control" not in dropped:
            parts["control"] = from_bytes(torch.stack([shard.control for shard in shards]), like)
        if config.reference != "none" and "control" not in dropped:
            parts["reference"] = from_bytes(torch.stack([shard.geometry[k] for shard, k in zip(shards, variants)]), like)
        if config.code == "explicit" and "expression" not in dropped:
            parts["numbers"] = torch.stack([shard.numbers for shard in shards]).to(like)
        if config.code == "face" and "expression" not in dropped:
            faces = [centre_crop(shard.faces) if generator is None else another_crop(shard.faces, generator) for shard in shards]
            parts["faces"] = torch.stack(faces).to(like)
        return self.adapter.encode(**parts)

    def velocity(self, noisy: Tensor, level: Tensor, references: Tensor | None) -> Tensor:
        """The transformer's prediction for latents [B, C, T, h, w] at levels [B]; `references` [B, ...] as in shards, None for zeros."""
        extra = self.transformer.config.in_channels - noisy.shape[1]
        inputs = noisy
        if extra:
            concat = noisy.new_zeros(len(noisy), extra, *noisy.shape[2:])
            inputs = torch.cat([noisy, concat if references is None else references.to(noisy)], 1)
        dtype = next(self.transformer.parameters()).dtype
        text = self.text.to(dtype).expand(len(noisy), -1, -1)
        out = self.transformer(hidden_states=inputs.to(dtype), timestep=TRAIN_STEPS * level, encoder_hidden_states=text, return_dict=False)
        return out[0]

    def _dropped(self, generator: torch.Generator) -> frozenset[str]:
        chance, settings = torch.rand(4, generator=generator).tolist(), self.settings
        names = [name for name, value in zip(("control", "reference", "expression"), chance) if value < getattr(settings, f"drop_{name}")]
        return frozenset(names) | (frozenset(("control", "expression")) if chance[3] < settings.drop_all else frozenset())

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Writes a checkpoint: what was learned and the optimiser's moments."""
        tensors = {}
        for name, parameter in self.trained().items():
            tensors[name] = parameter.detach()
            state = self.optimiser.state.get(parameter, {})
            tensors |= {f"{key}.{name}": value for key, value in state.items()}
        header = {"step": self.step, "settings": dataclasses.asdict(self.settings), "config": self.config.to_json()}
        with whole_file(path) as temporary:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, metadata={HEADER: json.dumps(header)})

    def load(self, path: str | os.PathLike) -> None:
        """Goes on from a checkpoint. Raises ValueError if it is none, or of another adapter or LoRA."""
        header, tensors = read_checkpoint(path)
        parameters = self.trained()
        if header["config"] != self.config.to_json() or any(name not in tensors for name in parameters):
            raise ValueError(f"{path} belongs to another adapter or LoRA; go on with the settings that it was made with")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])
                if f"step.{name}" in tensors:
                    # Each has a count of its own: what was dropped in a step does not learn in it.
                    moments = {key: tensors[f"{key}.{name}"].to(parameter) for key in ("exp_avg", "exp_avg_sq")}
                    self.optimiser.state[parameter] = {"step": tensors[f"step.{name}"], **moments}
        self.step = header["step"]


def read_checkpoint(path: str | os.PathLike) -> tuple[dict, dict[str, Tensor]]:
    """Header (step, settings, config) and tensors of a checkpoint. Raises ValueError if it is none."""
    metadata, tensors = read_safetensors(path)
    if HEADER not in metadata:
        raise ValueError(f"{path} is no checkpoint of a training; choose a file that expportrait train-dit train has left")
    return json.loads(metadata[HEADER]), tensors


def export_adapter(checkpoint: str | os.PathLike, out: str | os.PathLike, trained_on: str = "") -> None:
    """Writes a checkpoint's adapter and LoRA as an adapter file, the LoRA in ComfyUI's names."""
    header, tensors = read_checkpoint(checkpoint)
    config = dataclasses.replace(AdapterConfig.from_json(header["config"]), trained_on=trained_on)
    own = {name.removeprefix("adapter."): value for name, value in tensors.items() if name.startswith("adapter.")}
    lora = {
        "diffusion_model." + native_name(name.removeprefix("lora.").replace(f".{LORA}.", ".")): value
        for name, value in tensors.items()
        if name.startswith("lora.")
    }
    save_adapter(Path(out), AdapterFile(config, own, {}).build(), lora)
