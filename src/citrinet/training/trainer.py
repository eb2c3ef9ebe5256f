"""Transformers' `Trainer` for speech: order of the batches, moving average of the weights, auxiliary heads."""

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

    With a moving average, evaluations, checkpoints and the model in the end have the averaged weights; a checkpoint
    holds those of training in a file of its own, and those of auxiliary heads.

    Args:
        train_dataset: the utterances.
        ema_decay: of the moving average; 0 for none.
        auxiliary: what the recipe says of auxiliary heads.
        heads: these heads, and what the tokens are to them, see [`attach`].
        **kwargs: those of [`Trainer`].

    Raises:
        ValueError: for an average or heads where weights are divided among processes.
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
        # Before the heads are there: what is thrown away needs no average.
        self._average = WeightAverage(self.model, ema_decay) if ema_decay else None
        if self._average is not None:
            self.add_callback(_AverageCallback(self._average))
        self._auxiliary = auxiliary
        if heads is not None:
            attach(self.model, *heads)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the model has its averages then, or is the best one."""
        output = super().train(*args, **kwargs)
        if self._average is not None:
            self._average.apply()
            self._average = None
        return output

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Add the auxiliary heads' loss, whose weight falls as training goes on."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self._auxiliary is not None and outputs.get("auxiliary_loss") is not None:
            weight = self._auxiliary.weight_at(self.state.global_step / self.state.max_steps)
            loss = loss + weight * outputs["auxiliary_loss"]
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the averages; in all processes with the statistics of the first, which are those that are saved."""
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
        self._average = None  # the best one's is in the model

    def _training_weights(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds beside the weights that were evaluated."""
        state = self.model.state_dict()
        return {name: state[name] for name in state if self._average is not None or name.startswith(PREFIX)}

    def _get_train_sampler(self, train_dataset: Any = None) -> "Sampler[int]":
        return self._sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> "Sampler[int]":
        """In order, whatever the recipe says of sampling: predictions are compared with texts one by one."""
        return SequentialSampler(eval_dataset)


class _EpochCallback(TrainerCallback):
    """Tells sampler and data which pass it is, before either is asked for it."""

    def __init__(self, *listeners: EpochSampler | SpeechDataset):
        self.listeners = listeners

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for listener in self.listeners:
            listener.epoch = int((state.epoch or 0) + 1e-6)


class _AverageCallback(TrainerCallback):
    """Takes the weights into the average after each step, before they are evaluated and saved."""

    def __init__(self, average: WeightAverage):
        self.average = average

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.average.update()
