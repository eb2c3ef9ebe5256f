"""Transformers' `Trainer` for speech: batch order, moving average of the weights, auxiliary heads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .auxiliary import PREFIX, AuxiliaryHeads, attach, detached
from .averaging import WeightAverage
from .checkpoints import load_training_weights, save_training_weights
from .data import EpochSampler, SpeechDataset
from .recipe import AuxiliaryRecipe


class SpeechTrainer(Trainer):
    """
    [`Trainer`] whose batches hold utterances of similar length, in an order that a resumed run repeats.

    With a moving average, evaluations, checkpoints and the final model have the averaged weights; a checkpoint has the
    weights of training, and those of auxiliary heads, in a separate file.

    Args:
        train_dataset: the utterances.
        ema_decay: decay of the moving average; 0 for none.
        auxiliary: settings of the auxiliary heads.
        heads: the auxiliary heads and the units of the tokens, see [`attach`].
        **kwargs: arguments of [`Trainer`].

    Raises:
        ValueError: for an average or heads with weights that are sharded across processes.
    """

    model: Any

    def __init__(
        self,
        train_dataset: SpeechDataset,
        ema_decay: float = 0.0,
        auxiliary: AuxiliaryRecipe | None = None,
        heads: tuple[AuxiliaryHeads, torch.Tensor] | None = None,
        **kwargs: Any,
    ):
        super().__init__(train_dataset=train_dataset, **kwargs)
        batch_size = self.args.train_batch_size * self.args.world_size
        self._sampler = EpochSampler(batch_size, train_dataset.examples, self.args.seed)
        self.add_callback(_EpochCallback(self._sampler, train_dataset))
        if (ema_decay or heads) and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                "`ema_decay` and `model.auxiliary_ctc` need the whole network in each process: leave out FSDP and "
                "DeepSpeed."
            )
        # Before the heads are attached: they are dropped in the end and need no average.
        self._average = WeightAverage(self.model, ema_decay) if ema_decay else None
        if self._average is not None:
            self.add_callback(_AverageCallback(self._average))
        self._auxiliary = auxiliary
        if heads is not None:
            attach(self.model, *heads)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; afterwards the model has the averaged weights, or those of the best checkpoint."""
        output = super().train(*args, **kwargs)
        if self._average is not None:
            self._average.apply()
            self._average = None
        return output

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Add the auxiliary heads' loss, with the weight at this point of training."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self._auxiliary is not None and outputs.get("auxiliary_loss") is not None:
            weight = self._auxiliary.weight_at(self.state.global_step / self.state.max_steps)
            loss = loss + weight * outputs["auxiliary_loss"]
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the averaged weights, in all processes with the buffers of the first, which are the saved ones."""
        with self._averaged():
            if distributed.is_initialized():
                for buffer in self.model.buffers():
                    distributed.broadcast(buffer, src=0)
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self._average is None:
            yield
            return
        with self._average.applied():
            yield

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with self._averaged(), detached(self.model):
            super()._save(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        weights = self._training_weights()
        if weights and self.args.should_save:
            updates = 0 if self._average is None else self._average.updates
            save_training_weights(output_dir, weights, updates)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        weights, updates = load_training_weights(resume_from_checkpoint, set(self._training_weights()))
        with detached(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._average is not None:
            self._average.restart(updates)
        self.model.load_state_dict(weights, strict=False)

    def _load_best_model(self) -> None:
        with detached(self.model):
            super()._load_best_model()
        self._average = None  # the best checkpoint has averaged weights

    def _training_weights(self) -> dict[str, torch.Tensor]:
        """The weights that a checkpoint stores in addition to those that were evaluated."""
        state = self.model.state_dict()
        return {name: state[name] for name in state if self._average is not None or name.startswith(PREFIX)}

    def _get_train_sampler(self, train_dataset: Any = None) -> "Sampler[int]":
        return self._sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> "Sampler[int]":
        """Evaluate in order, regardless of the recipe's sampling, because predictions are matched to texts by index."""
        return SequentialSampler(eval_dataset)


class _EpochCallback(TrainerCallback):
    """Sets the epoch of sampler and dataset at the start of each epoch."""

    def __init__(self, *listeners: EpochSampler | SpeechDataset):
        self.listeners = listeners

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for listener in self.listeners:
            listener.epoch = int((state.epoch or 0) + 1e-6)


class _AverageCallback(TrainerCallback):
    """Adds the weights to the average after each step, before evaluation and saving."""

    def __init__(self, average: WeightAverage):
        self.average = average

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.average.update()
