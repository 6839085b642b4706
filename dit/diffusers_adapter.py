"""The portrait adapter on diffusers' Wan transformers, by hooks: the same file and the same numbers as on ComfyUI's native model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .adapter.adapter import PortraitAdapter, PortraitCondition
from .adapter.config import CONDITION_CHANNELS, check_base
from .guidance import Schedule


class DiffusersAdapter:
    """An adapter attached to one or more transformers (the two experts of Wan 2.2) until `remove` is called, or as a context manager.

    Works on `WanTransformer3DModel` and `WanVACETransformer3DModel`, under gradient checkpointing too. Raises ValueError if a
    transformer is of another size than the adapter's base.
    """

    def __init__(self, transformers: list[nn.Module], adapter: PortraitAdapter):
        self.adapter = adapter
        self._condition = PortraitCondition()
        self._strengths = (1.0, 1.0, 1.0)
        self._weight = 1.0
        self._grid = 0
        self._frames = 0
        self._handles, self._forwards = [], []
        for transformer in transformers:
            self._check(transformer)
        for transformer in transformers:
            self._forwards.append((transformer, transformer.forward))
            transformer.forward = self._mixed(transformer.forward)
            self._handles.append(transformer.register_forward_pre_hook(self._before_all, with_kwargs=True))
            self._handles.append(transformer.blocks[0].register_forward_pre_hook(self._before_first))
            for index in adapter.config.expression_blocks:
                self._handles.append(transformer.blocks[index].register_forward_hook(self._after(index)))

    def __enter__(self) -> DiffusersAdapter:
        return self

    def __exit__(self, *error) -> None:
        self.remove()

    def remove(self) -> None:
        """Leaves the transformers as they were."""
        for handle in self._handles:
            handle.remove()
        for transformer, forward in self._forwards:
            transformer.forward = forward
        self._handles, self._forwards = [], []

    def set(self, condition: PortraitCondition | None, strengths: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
        """What the head does from now on; None leaves the transformers to themselves. Strengths of control, reference, expression."""
        self._condition, self._strengths = condition or PortraitCondition(), strengths

    def fade(self, schedule: Schedule, step: int, steps: int) -> None:
        """Weighs the expression as the schedule does at a step. Between 0 and 1 the transformers are called twice, and their results
        averaged."""
        self._weight = schedule.weight(step, steps)

    def _check(self, transformer: nn.Module) -> None:
        sizes = transformer.config
        width = sizes.num_attention_heads * sizes.attention_head_dim
        check_base(self.adapter.config, width, sizes.num_layers, sizes.out_channels or sizes.in_channels, sizes.in_channels)

    def _before_all(self, transformer: nn.Module, args: tuple, kwargs: dict):
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        self._frames, (height, width) = hidden.shape[2], hidden.shape[3:]
        self._grid = (height // 2) * (width // 2)
        reference = self._condition.reference
        if reference is None or self.adapter.config.reference != "condition":
            return None
        first = hidden.shape[1] - CONDITION_CHANNELS
        added = self._strengths[1] * reference.to(hidden)
        if added.shape[3:] != hidden.shape[3:]:
            raise ValueError(
                f"the reference was made for latents of {added.shape[4]} x {added.shape[3]}, but they are {width} x {height}; make both of "
                f"the same size"
            )
        hidden = torch.cat([hidden[:, :first], hidden[:, first:] + added], 1)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def _before_first(self, block: nn.Module, args: tuple):
        tokens, found = args[0], self._condition
        if found.control is not None:
            tokens = self.adapter.add_control(tokens, _batched(found.control, tokens), self._strengths[0])
        if found.reference is not None and self.adapter.config.reference == "tokens":
            tokens = self.adapter.add_reference(tokens, _batched(found.reference, tokens), self._frames, self._strengths[1])
        return (tokens, *args[1:])

    def _after(self, index: int):
        def hook(block: nn.Module, args: tuple, tokens: Tensor):
            expression = self._condition.expression
            if expression is None or self._weight == 0:
                return None
            return self.adapter.add_expression(index, tokens, _batched(expression, tokens), self._grid, self._strengths[2])

        return hook

    def _mixed(self, forward: Callable) -> Callable:
        def mixed(*args, **kwargs):
            weight = self._weight
            if self._condition.expression is None or weight in (0.0, 1.0):
                return forward(*args, **kwargs)
            self._weight = 0.0
            calm = forward(*args, **kwargs)
            self._weight = 1.0
            full = forward(*args, **kwargs)
            self._weight = weight
            sample = torch.lerp(calm[0], full[0], weight)
            return (sample,) if type(full) is tuple else type(full)(sample=sample)

        return mixed


def _batched(value: Tensor, tokens: Tensor) -> Tensor:
    return value.expand(tokens.shape[0], *value.shape[1:])
