"""The moving average of a network's weights, which often recognises better than the weights themselves."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """
    Exponential moving average of weights and of buffers such as the statistics of batch normalisation.

    What is no floating point number, such as the number of batches seen, is left as it is. The decay grows with the
    updates, `min(decay, n / (n + 9))` at the n-th, so that an average forgets the random weights that it began with
    (as in TensorFlow's `ExponentialMovingAverage` with `num_updates`).

    Args:
        model: the network. Modules that it gets later are not averaged.
        decay: how much of the average an update keeps, below 1.

    Raises:
        ValueError: for a decay that is none.
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
        """Asked for each time: accelerate may put others in their place."""
        tensors = itertools.chain(self._model.named_parameters(), self._model.named_buffers())
        return {name: tensor.detach() for name, tensor in tensors}

    def _live(self) -> dict[str, torch.Tensor]:
        """The model's own tensors that are averaged; the averages follow them to their device."""
        tensors = self._tensors()
        self._mean = {name: mean.to(tensors[name].device) for name, mean in self._mean.items()}
        return {name: tensors[name] for name in self._mean}

    def update(self) -> None:
        """Take the model's weights into the average: after each step of the optimiser."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        live = self._live()
        move(list(self._mean.values()), list(live.values()), self.updates)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model, and afterwards its own weights back; the average does not change inside."""
        if self._is_applied:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def apply(self) -> None:
        """Put the averages into the model for good."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self._live().items():
            kept = live.clone()
            live.copy_(self._mean[name])
            self._mean[name].copy_(kept)
        self._is_applied = not self._is_applied

    def state_dict(self) -> dict[str, Any]:
        """`updates` and `average`, name -> tensor; not copies."""
        return {"updates": self.updates, "average": dict(self._mean)}

    @torch.no_grad()
    def restart(self, updates: int) -> None:
        """
        Go on from the averages that the model itself has, as it does when it was loaded from a checkpoint.

        Args:
            updates: how many made them.
        """
        self.load_state_dict({"updates": updates, "average": self._live()})

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on from a state.

        Args:
            state: what [`state_dict`] gave.

        Raises:
            ValueError: if it is that of another network.
        """
        average = state["average"]
        if other := sorted(average.keys() ^ self._mean.keys()):
            raise ValueError(f"the average is of another network: {other[0]} is in one of the two alone.")
        for name, mean in self._mean.items():
            mean.copy_(average[name])
        self.updates = state["updates"]
