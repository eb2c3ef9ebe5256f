"""Moving average of a network's weights, which is often more accurate than the weights themselves."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """
    Exponential moving average of the weights, and of buffers such as the statistics of batch normalisation.

    Integer tensors, such as the number of batches seen, are not averaged. The decay grows with the number of updates,
    `min(decay, n / (n + 9))` at the n-th, so that the average forgets the random initial weights (as in TensorFlow's
    `ExponentialMovingAverage` with `num_updates`).

    Args:
        model: the network. Modules that are added to it later are not averaged.
        decay: fraction of the average that an update keeps, at least 0 and below 1.

    Raises:
        ValueError: if `decay` is out of range.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of a moving average is at least 0 and below 1, not {decay}.")
        self.decay = decay
        self.updates = 0
        self._model = model
        self._mean = {name: tensor.clone() for name, tensor in self._tensors().items() if tensor.is_floating_point()}
        self._is_applied = False

    def _tensors(self) -> dict[str, torch.Tensor]:
        """The model's tensors, looked up at each call because Accelerate may replace them."""
        tensors = itertools.chain(self._model.named_parameters(), self._model.named_buffers())
        return {name: tensor.detach() for name, tensor in tensors}

    def _live(self) -> dict[str, torch.Tensor]:
        """The model's tensors that are averaged; moves the averages to their device."""
        tensors = self._tensors()
        self._mean = {name: mean.to(tensors[name].device) for name, mean in self._mean.items()}
        return {name: tensors[name] for name in self._mean}

    def update(self) -> None:
        """Add the model's weights to the average; to be called after each optimiser step."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        live = self._live()
        move(list(self._mean.values()), list(live.values()), self.updates)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model within the context, then restore its own weights; do not update inside."""
        if self._is_applied:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def apply(self) -> None:
        """Replace the model's weights by the averages permanently."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self._live().items():
            kept = live.clone()
            live.copy_(self._mean[name])
            self._mean[name].copy_(kept)
        self._is_applied = not self._is_applied

    def state_dict(self) -> dict[str, Any]:
        """The number of `updates`, and the `average`, name -> tensor; tensors are not copied."""
        return {"updates": self.updates, "average": dict(self._mean)}

    @torch.no_grad()
    def restart(self, updates: int) -> None:
        """
        Continue from the model's weights as averages, after they were loaded from a checkpoint.

        Args:
            updates: number of updates of the stored average.
        """
        self.load_state_dict({"updates": updates, "average": self._live()})

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Continue from a saved state.

        Args:
            state: result of [`state_dict`].

        Raises:
            ValueError: if the state is of another network.
        """
        average = state["average"]
        if other := sorted(average.keys() ^ self._mean.keys()):
            raise ValueError(f"the average is of another network: {other[0]} is in one of the two alone.")
        for name, mean in self._mean.items():
            mean.copy_(average[name])
        self.updates = state["updates"]
