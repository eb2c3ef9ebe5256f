"""Checkpoints of a run: separate them from earlier runs, resume from them, average them."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..configuration_citrinet import CitrinetConfig
from ..modeling_citrinet import CitrinetForCTC

TRAINING_WEIGHTS = "training_weights.safetensors"  # in a checkpoint: weights that only training needs
_EARLIER = "_earlier-run-{}"  # Trainer does not upload files that start with `_`


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
    Move the checkpoints of an earlier run into a subfolder, so that a new run starts without checkpoints.

    `Trainer` identifies checkpoints only by their step: it would overwrite some, count the others towards
    `save_total_limit`, and later resume from them.

    Args:
        folder: the `output_dir` of both runs.

    Returns:
        The new subfolder; `None` if there were no checkpoints.
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
    Check that a run can resume from a checkpoint.

    Raises:
        OSError: if the checkpoint has no configuration.
        ValueError: if its network is not that of the recipe.
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
    Load the mean of several checkpoints' weights into a model.

    Sums are in float64; in addition, one tensor of one checkpoint is in memory at a time. Integer tensors, such as the
    number of batches seen, are taken from the last checkpoint.

    Args:
        model: the model, changed in place.
        folders: checkpoints written by `Trainer`, at least one.
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
    Save the weights that `model.safetensors` lacks: those before averaging, and auxiliary heads.

    Args:
        folder: the checkpoint.
        weights: name -> tensor.
        updates: number of updates of the average.
    """
    save_file(weights, Path(folder) / TRAINING_WEIGHTS, metadata={"updates": str(updates)})


def load_training_weights(folder: str | Path, expected: set[str]) -> tuple[dict[str, torch.Tensor], int]:
    """
    Load the weights that [`save_training_weights`] saved.

    Args:
        folder: the checkpoint.
        expected: names of the weights that this run needs; empty if the checkpoint should have no such file.

    Returns:
        The weights on the CPU, and the number of updates of the average.

    Raises:
        ValueError: if the checkpoint has other weights, because its run had other settings.
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
