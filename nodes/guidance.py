"""Progressive hybrid guidance: as conditioning for any sampler, and as a guider with scales of its own for each condition."""

from __future__ import annotations

import comfy.samplers
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dit.conditioning import even_bounds, has, progressive, without
from ..dit.guidance import FADE, HOLD, Schedule
from .types import CATEGORY

MOST_STEPS = 1000
BRANCHES = {"no_expression": "expression", "no_control": "control", "no_reference": "reference"}


def _schedule_inputs() -> list[io.Float.Input]:
    return [
        io.Float.Input(
            "hold",
            default=round(HOLD, 2),
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Share of the steps that the head's pose decides alone, without the expression. The paper has 5 of 35.",
        ),
        io.Float.Input(
            "fade",
            default=round(FADE, 2),
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Share of the steps after that in which the expression comes in.",
        ),
    ]


class HybridGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitHybridGuidance",
            display_name="Progressive Guidance",
            category=CATEGORY,
            description="Lets the pose decide the first steps and the expression come in later (DeX-Portrait). Works with every sampler.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="From Portrait Conditioning."),
                io.Conditioning.Input("negative", tooltip="From Portrait Conditioning; without a portrait it stays as it is."),
                io.Int.Input("steps", default=20, min=1, max=MOST_STEPS, tooltip="The sampler's steps."),
                *_schedule_inputs(),
                io.Model.Input("model", optional=True, tooltip="The sampled model; needed with sigmas."),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="The sampler's sigmas, for schedulers whose steps are uneven. They replace steps.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The same, by parts of the sampling."),
                io.Conditioning.Output(display_name="negative", tooltip="Likewise, so that guidance does not push against the expression."),
            ],
        )

    @classmethod
    def execute(
        cls, positive, negative, steps: int = 20, hold: float = HOLD, fade: float = FADE, model=None, sigmas: Tensor | None = None
    ) -> io.NodeOutput:
        bounds = even_bounds(steps)
        if sigmas is not None:
            if model is None:
                raise ValueError("sigmas are given without the model; connect the model that is sampled as well")
            bounds = sigma_bounds(sigmas, model.get_model_object("model_sampling"))
        return io.NodeOutput(*(progressive(entries, Schedule(hold, fade), bounds) for entries in (positive, negative)))


def sigma_bounds(sigmas: Tensor, sampling) -> list[float]:
    """Shares of the sampling halfway between the steps of falling sigmas [N + 1]. Raises ValueError for less than one step."""
    if len(sigmas) < 2:
        raise ValueError(f"there are {len(sigmas)} sigmas; give those of at least one step")

    def percent(sigma: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if sampling.percent_to_sigma(middle) > sigma else (low, middle)
        return (low + high) / 2

    places = [percent(float(sigma)) for sigma in sigmas[:-1]]
    return [0.0, *((a + b) / 2 for a, b in zip(places, places[1:])), 1.0]


class HybridGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def scale(name: str, tooltip: str) -> io.Float.Input:
            return io.Float.Input(
                name,
                default=0.0,
                min=-10.0,
                max=20.0,
                step=0.1,
                advanced=name != "expression_scale",
                tooltip=f"{tooltip} 0 costs nothing, other values one more call per step.",
            )

        return io.Schema(
            node_id="ExpPortraitHybridGuider",
            display_name="Portrait Guider",
            category=CATEGORY,
            description="Guidance with a scale of its own for expression, control and reference, for SamplerCustomAdvanced.",
            inputs=[
                io.Model.Input("model", tooltip="A model with a portrait adapter."),
                io.Conditioning.Input("positive", tooltip="From Portrait Conditioning."),
                io.Conditioning.Input("negative", tooltip="From Portrait Conditioning."),
                io.Float.Input("cfg", default=2.5, min=0.0, max=100.0, step=0.1, tooltip="The usual guidance scale."),
                *_schedule_inputs(),
                scale("expression_scale", "Pushes beyond the video without expression."),
                scale("control_scale", "Pushes beyond the video without control."),
                scale("reference_scale", "Pushes beyond the video without the reference's geometry."),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="All sigmas of the video, before SplitSigmas: where two samplers share the steps, both need them.",
                ),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        cfg: float = 2.5,
        hold: float = HOLD,
        fade: float = FADE,
        expression_scale: float = 0.0,
        control_scale: float = 0.0,
        reference_scale: float = 0.0,
        sigmas: Tensor | None = None,
    ) -> io.NodeOutput:
        scales = {"no_expression": expression_scale, "no_control": control_scale, "no_reference": reference_scale}
        guider = PortraitGuider(model, cfg, Schedule(hold, fade), scales, sigmas)
        guider.set_portrait(positive, negative)
        return io.NodeOutput(guider)


class PortraitGuider(comfy.samplers.CFGGuider):
    """v = v0' + cfg (c' - v0') + sum over branches of scale (c - c without it); c' and v0' lack the expression at first."""

    def __init__(self, model, cfg: float, schedule: Schedule, scales: dict[str, float], sigmas: Tensor | None = None):
        super().__init__(model)
        self.cfg, self._schedule, self._scales, self._sigmas = cfg, schedule, scales, sigmas

    def set_portrait(self, positive, negative) -> None:
        """Conditions, and those without one part each where the positive one has that part."""
        parts = {"positive": positive, "negative": negative}
        parts |= {branch: without(positive, part) for branch, part in BRANCHES.items() if has(positive, part)}
        if has(negative, "expression"):
            parts["calm_negative"] = without(negative, "expression")
        self._scales = {branch: scale for branch, scale in self._scales.items() if scale != 0 and branch in parts}
        self.inner_set_conds(parts)

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        weight = self._weight(timestep, model_options)
        mixes = {"positive": "no_expression"} | ({"negative": "calm_negative"} if self.cfg != 1 else {})
        wanted = set(self._scales) | ({"positive"} if self._scales else set())
        for full, calm in mixes.items():
            # What counts 0 is not asked for.
            wanted |= {full} if weight > 0 or calm not in self.conds else set()
            wanted |= {calm} if weight < 1 and calm in self.conds else set()
        names = sorted(wanted)
        conds = [self.conds[name] for name in names]
        found = dict(zip(names, comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)))

        def mixed(full: str) -> Tensor:
            calm = mixes[full]
            if calm not in found or weight == 1:
                return found[full]
            return found[calm] if weight == 0 else torch.lerp(found[calm], found[full], weight)

        shown = mixed("positive")
        refused = mixed("negative") if self.cfg != 1 else shown
        out = self._guided(shown, refused, x, timestep, model_options)
        for branch, scale in self._scales.items():
            # The expression is pushed no more than it is there.
            part = weight if branch == "no_expression" else 1.0
            out = out + part * scale * (found["positive"] - found[branch])
        return out

    def _guided(self, shown: Tensor, refused: Tensor, x: Tensor, timestep: Tensor, model_options: dict) -> Tensor:
        """The usual guidance, with whatever other nodes have hung on it."""
        conds = [self.conds["positive"], self.conds["negative"]]
        outs = [shown, refused]
        for function in model_options.get("sampler_pre_cfg_function", []):
            given = {"conds": conds, "conds_out": outs, "cond_scale": self.cfg, "timestep": timestep, "input": x, "sigma": timestep}
            outs = function(given | {"model": self.inner_model, "model_options": model_options})
        given = {"model_options": model_options, "cond": conds[0], "uncond": conds[1]}
        return comfy.samplers.cfg_function(self.inner_model, *outs, self.cfg, x, timestep, **given)

    def _weight(self, timestep, model_options) -> float:
        """What the expression counts at this time."""
        sigmas = model_options["transformer_options"].get("sample_sigmas") if self._sigmas is None else self._sigmas
        if sigmas is None:
            return 1.0
        steps = len(sigmas) - 1
        step = int((sigmas.to(timestep) - timestep.flatten()[0]).abs().argmin())
        return self._schedule.weight(min(step, steps - 1), steps)
