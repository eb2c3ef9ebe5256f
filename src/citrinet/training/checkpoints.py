"""The checkpoints of a run: told apart from those of earlier runs, gone on from, averaged."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..configuration_citrinet import CitrinetConfig
from ..modeling_citrinet import CitrinetForCTC

TRAINING_WEIGHTS = "training_weights.safetensors"  # in a checkpoint, what training alone needs
_EARLIER = "_earlier-run-{}"  # Trainer uploads no files that begin with `_`


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in an `output_dir`, in the order of their steps."""
    found = {}
    for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if step.isdecimal() and path.is_dir():
            found[int(step)] = path
    return [path for _, path in sorted(found.items())]


def set_aside(folder: str | Path) -> Path | None:
    """
    Move the checkpoints of an earlier run to a folder of their own, so that a new run has none but its own.

    `Trainer` tells checkpoints by their step alone: it would write over some, count the others against
    `save_total_limit`, and go on from them later.

    Args:
        folder: the `output_dir` of both.

    Returns:
        The new folder in it; none if there was nothing to move.
    """
    found = checkpoints(folder)
    if not found:
        return None
    places = (Path(folder) / _EARLIER.format(number) for number in itertools.count(1))
    aside = next(place for place in places if not place.exists())
    aside.mkdir()
    for path in found:
        path.rename(aside / path.name)
    return aside


def check_same_network(checkpoint: str | Path, config: CitrinetConfig) -> None:
    """
    Make sure that a run can go on from a checkpoint.

    Raises:
        OSError: if it has no configuration.
        ValueError: if it is of another network than the recipe's.
    """
    stored = CitrinetConfig.from_pretrained(checkpoint)
    parts = ("hidden_sizes", "num_repeats", "kernel_sizes", "strides", "vocab_size", "adapters", "tag_labels")
    if other := [name for name in parts if getattr(stored, name) != getattr(config, name)]:
        raise ValueError(
            f"{checkpoint} is of another network than the recipe's ({', '.join(other)}): choose another `output_dir`, "
            "or start anew without resuming."
        )


def average_checkpoints(model: CitrinetForCTC, folders: Sequence[Path]) -> None:
    """
    Give a model the mean of the weights of several checkpoints.

    Sums are in float64, and one tensor of one checkpoint is in memory beside them. What is no floating point number,
    such as the number of batches seen, is the last checkpoint's.

    Args:
        model: the model, changed in place.
        folders: checkpoints that `Trainer` wrote, at least one.
    """
    mean: dict[str, torch.Tensor] = {}
    for folder in folders:
        with safe_open(folder / "model.safetensors", "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                tensor = weights.get_tensor(name)
                if not tensor.is_floating_point():
                    mean[name] = tensor
                elif name in mean:
                    mean[name] += tensor.double() / len(folders)
                else:
                    mean[name] = tensor.double() / len(folders)
    model.load_state_dict(mean)


def save_training_weights(folder: str | Path, weights: dict[str, torch.Tensor], updates: int) -> None:
    """
    Add to a checkpoint what `model.safetensors` lacks: weights beside their average, and auxiliary heads.

    Args:
        folder: the checkpoint.
        weights: name -> tensor.
        updates: how many the average has seen.
    """
    save_file(weights, Path(folder) / TRAINING_WEIGHTS, metadata={"updates": str(updates)})


def load_training_weights(folder: str | Path, expected: set[str]) -> tuple[dict[str, torch.Tensor], int]:
    """
    Read what [`save_training_weights`] wrote.

    Args:
        folder: the checkpoint.
        expected: names of the weights that this run needs; there is no file if it is empty.

    Returns:
        Weights on the CPU, and how many updates the average has seen.

    Raises:
        ValueError: if the checkpoint has others: it is of a run with other settings.
    """
    file = Path(folder) / TRAINING_WEIGHTS
    weights, updates = {}, 0
    if file.is_file():
        with safe_open(file, "pt") as content:
            updates = int(content.metadata()["updates"])
            weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - no mapping
    if weights.keys() != expected:
        raise ValueError(
            f"{folder} is of a run with another `ema_decay` or `model.auxiliary_ctc` than the recipe's: give them as "
            "they were, choose another `output_dir`, or start anew without resuming."
        )
    return weights, updates
