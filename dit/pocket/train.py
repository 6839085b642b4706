"""Training of the pocket model on files of examples. A run can be stopped at any time and goes on as if it had not been."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...proxy.files import FORMAT_KEY, read_metadata, whole_file
from ...proxy.frames import write_image
from .damage import damage
from .data import FOCUS_LEVELS, Examples
from .flow import add_noise, one_noise, random_levels, sample, velocity_weight
from .model import PocketConfig, PocketModel, blend
from .weights import config_of, config_text

FORMAT, VERSION = "expportrait.pocket_run", 1
CHECKPOINT, LOG, GRID = "checkpoint.safetensors", "log.jsonl", "grid_{:06d}.png"
WEIGHTS = (1.0, 1.0, 2.0, 6.0)  # of errors: backdrop, person, head, mouth and eyes
EDGES, COLOURS = 0.1, 0.2  # what errors of gradients, and of the colours where the blend mask hides them, count
SEED_SPAN = 10_000_000  # steps that a seed has; torch's CPU generator reads only 32 bits of a seed
CLIP, DECAY, BETAS = 1.0, 0.01, (0.9, 0.95)
FORGET = 0.999  # of the running mean of the weights
LOWEST = 0.05  # of the learning rate, at the end
SHOWN = 6  # examples on a grid


@dataclasses.dataclass(frozen=True)
class PocketTrainSettings:
    """How a run is trained; a run keeps them for good."""

    steps: int
    batch: int = 16
    side: int = 128  # pixels; examples are larger by a whole factor
    rate: float = 1e-3  # of AdamW, at its highest
    frames: int = 1  # in a row; a temporal model is trained on clips, all but its attention over time held
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.batch % self.frames:
            raise ValueError(f"a batch of {self.batch} is no whole number of clips of {self.frames} frames; change one of them")
        if self.steps > SEED_SPAN or not 0 <= self.seed < 2**32 // SEED_SPAN:
            raise ValueError(
                f"{self.steps} steps of seed {self.seed}; choose at most {SEED_SPAN} steps and a seed from 0 to {2**32 // SEED_SPAN - 1}"
            )
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"rate is {self.rate}; give a number above 0")


class Trainer:
    """A run: model, running mean of its weights, optimiser and step. Randomness depends on the seed and the step alone."""

    @torch.inference_mode(False)
    def __init__(self, config: PocketConfig, settings: PocketTrainSettings, examples: Examples, start: PocketModel | None = None):
        """`start` gives the first weights, all that it has. Raises ValueError if the examples do not fit the settings."""
        examples.check_side(settings.side)
        if examples.code != config.code:
            raise ValueError(f"the examples have codes of {examples.code} numbers, the model of {config.code}; make them again")
        self.config, self.settings, self.examples, self.step = config, settings, examples, 0
        self._starts = examples.clips(settings.frames)
        generator = torch.Generator().manual_seed(settings.seed)
        self.model, self.mean = (PocketModel.create(config, generator).to(memory_format=torch.channels_last) for _ in range(2))
        if start is not None:
            self.model.load_state_dict(start.state_dict(), strict=config.temporal == start.config.temporal)
        self.mean.load_state_dict(self.model.state_dict())
        self.mean.requires_grad_(False)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not config.temporal or "over_time" in name or "timed" in name)
        self._trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self._optimiser = torch.optim.AdamW(self._trained.values(), settings.rate, BETAS, weight_decay=DECAY, fused=True)

    def train_step(self) -> float:
        """One step; returns its loss. Raises FloatingPointError, before any harm is done, if that is not finite."""
        settings, step = self.settings, self.step
        generator = torch.Generator().manual_seed(settings.seed * SEED_SPAN + step)
        warm = max(1, min(200, settings.steps // 10))
        cosine = LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        self._optimiser.param_groups[0]["lr"] = settings.rate * min(1, (step + 1) / warm) * cosine
        loss = self._loss(damage(self._batch(generator), generator), generator)
        if not bool(loss.isfinite()):
            raise FloatingPointError(f"the loss of step {step} is {loss.item()}; start again with a lower --rate")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained.values(), CLIP)
        self._optimiser.step()
        kept = min(FORGET, (1 + step) / (10 + step))
        with torch.no_grad():
            for averaged, current in zip(self.mean.parameters(), self.model.parameters()):
                averaged.lerp_(current, 1 - kept)
        self.step += 1
        return loss.item()

    def _batch(self, generator: torch.Generator) -> dict[str, Tensor]:
        frames = self.settings.frames
        chosen = torch.randint(len(self._starts), (self.settings.batch // frames,), generator=generator).tolist()
        return self.examples.read([self._starts[k] + j for k in chosen for j in range(frames)], self.settings.side)

    def _loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        frames, target = self.settings.frames, 2 * batch["target"] - 1
        clips = len(target) // frames
        # The frames of a clip share noise and noise level, as in sampling.
        noise = torch.randn(clips, *target.shape[1:], generator=generator).repeat_interleave(frames, 0)
        sigma = random_levels(clips, generator).repeat_interleave(frames)
        noisy = add_noise(target, noise, sigma).contiguous(memory_format=torch.channels_last)
        control = batch["control"].contiguous(memory_format=torch.channels_last)
        colours, mask = self.model.answer(noisy, sigma, control, batch["reference"], batch["code"], frames)
        weight = target.new_tensor(WEIGHTS)[(batch["focus"] * FOCUS_LEVELS).round().long()]
        weight = weight / weight.mean() * velocity_weight(sigma)[:, None, None, None]
        result = blend(colours, mask, control)
        loss = (weight * (result - target).square()).mean() + COLOURS * (weight * (colours - target).square()).mean()
        edges = [(weight.narrow(d, 1, target.shape[d] - 1) * (result - target).diff(dim=d).abs()).mean() for d in (2, 3)]
        return loss + EDGES * (edges[0] + edges[1])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that changes while training, by name."""
        stored = {f"{name}.{key}": value for name in ("model", "mean") for key, value in getattr(self, name).state_dict().items()}
        for name, parameter in self._trained.items():
            state = self._optimiser.state.get(parameter, {})
            stored |= {f"optimiser.{name}.{key}": state[key] for key in ("exp_avg", "exp_avg_sq") if key in state}
        return stored

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the checkpoint of a run, whole or not at all."""
        metadata = {FORMAT_KEY: FORMAT, "version": str(VERSION), "step": str(self.step), "config": config_text(self.config)}
        metadata["settings"] = json.dumps(dataclasses.asdict(self.settings))
        with whole_file(Path(folder) / CHECKPOINT) as temporary:
            save_file({name: value.detach().contiguous() for name, value in self.tensors.items()}, temporary, metadata=metadata)

    def load(self, folder: str | os.PathLike) -> None:
        """Goes on from the checkpoint of a run. Raises ValueError if it has another configuration or other settings."""
        path = Path(folder) / CHECKPOINT
        step, config, settings = read_run(path)
        for mine, found in ((self.config, config), (self.settings, settings)):
            for field in dataclasses.fields(mine):
                asked, stored = getattr(mine, field.name), getattr(found, field.name)
                if asked != stored:
                    raise ValueError(
                        f"the run in {folder} was begun with {field.name} = {stored}, now {asked} is asked for; "
                        f"give the same again, or another folder"
                    )
        stored = load_file(path)
        for name in ("model", "mean"):
            own = {key.removeprefix(name + "."): value for key, value in stored.items() if key.startswith(name + ".")}
            getattr(self, name).load_state_dict(own)
        for name, parameter in self._trained.items():
            if f"optimiser.{name}.exp_avg" in stored:
                moments = {key: stored[f"optimiser.{name}.{key}"] for key in ("exp_avg", "exp_avg_sq")}
                # Moments lie in memory as their weights do, or sums would be rounded in another order.
                moments = {key: torch.empty_like(parameter).copy_(value) for key, value in moments.items()}
                self._optimiser.state[parameter] = {"step": torch.tensor(float(step)), **moments}
        self.step = step


def read_run(path: str | os.PathLike) -> tuple[int, PocketConfig, PocketTrainSettings]:
    """Step, configuration and settings of a checkpoint. Raises ValueError for another kind of file, FileNotFoundError."""
    metadata = read_metadata(path)
    if metadata.get(FORMAT_KEY) != FORMAT or metadata.get("version") != str(VERSION):
        raise ValueError(f"{path} is no checkpoint of `expportrait train-pocket`; give the folder of a run")
    return int(metadata["step"]), config_of(metadata["config"]), PocketTrainSettings(**json.loads(metadata["settings"]))


@torch.no_grad()
def predict(model: PocketModel, batch: dict[str, Tensor], steps: int = 4, seed: int = 0, frames: int = 1) -> Tensor:
    """Pictures [B, 3, H, W] in 0..1 for a batch of examples, all from one noise."""
    control, reference, code = batch["control"], batch["reference"], batch["code"]
    noise = one_noise(*control.shape[-2:], seed).to(control).expand(len(control), -1, -1, -1)
    result = sample(lambda x, sigma: model(x, sigma, control, reference, code, frames), noise, steps)
    return ((result + 1) / 2).clamp(0, 1)


def head_psnr(result: Tensor, batch: dict[str, Tensor], least: float = 2) -> Tensor:
    """PSNR [B] in dB against the target, over head and hair (least = 2) or over mouth and eyes (3)."""
    mask = (batch["focus"] * FOCUS_LEVELS).round() >= least
    error = ((result - batch["target"]).square().mean(1, keepdim=True) * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)
    return -10 * error.clamp(min=1e-10).log10()


def grid_picture(batch: dict[str, Tensor], result: Tensor) -> Tensor:
    """[H, W, 3]: a row per example of reference, warp, normals, result and truth."""
    columns = [batch["reference"][:, :3], batch["control"][:, :3], batch["control"][:, 4:7], result, batch["target"]]
    return torch.cat([torch.cat(list(part), dim=1) for part in columns], dim=2).permute(1, 2, 0)


def train_run(
    folder: str | os.PathLike,
    trainer: Trainer,
    held_out: Examples,
    minutes: float | None = None,
    save_minutes: float = 5.0,
    look_every: int = 500,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Trains until the run's steps are done or `minutes` are over, going on from the folder's checkpoint if it has one.

    Saves a checkpoint every `save_minutes` and at the end, and writes a line of the log and a grid of held-out examples every
    `look_every` steps. Gradients are computed even inside inference mode.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(False), torch.enable_grad():
        if (folder / CHECKPOINT).is_file():
            trainer.load(folder)
        start = saved = time.monotonic()
        looked, losses = (start, trainer.step), []
        total = trainer.settings.steps
        while trainer.step < total and (minutes is None or time.monotonic() - start < 60 * minutes):
            losses.append(trainer.train_step())
            if progress is not None:
                progress(trainer.step, total)
            if trainer.step % look_every == 0 or trainer.step == total:
                seconds = (time.monotonic() - looked[0]) / max(1, trainer.step - looked[1])
                _look(folder, trainer, held_out, sum(losses) / len(losses), seconds)
                looked, losses = (time.monotonic(), trainer.step), []
            if time.monotonic() - saved > 60 * save_minutes:
                trainer.save(folder)
                saved = time.monotonic()
        trainer.save(folder)


def _look(folder: Path, trainer: Trainer, held_out: Examples, loss: float, seconds: float) -> None:
    every = max(1, len(held_out) // 48)
    chosen = list(range(0, len(held_out), every))[:48]
    psnr, warped, shown = [], [], []
    for start in range(0, len(chosen), 8):
        batch = held_out.read(chosen[start : start + 8], trainer.settings.side)
        result = predict(trainer.mean, batch)
        psnr.append(head_psnr(result, batch))
        warped.append(head_psnr(batch["control"][:, :3], batch))
        shown.append((batch, result))
    line = {
        "step": trainer.step,
        "loss": round(loss, 5),
        "seconds_per_step": round(seconds, 3),
        "held_out_head_psnr": round(float(torch.cat(psnr).mean()), 3),
        "warp_head_psnr": round(float(torch.cat(warped).mean()), 3),
    }
    with open(folder / LOG, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    batch, result = shown[0]
    write_image(folder / GRID.format(trainer.step), grid_picture({k: v[:SHOWN] for k, v in batch.items()}, result[:SHOWN]))
