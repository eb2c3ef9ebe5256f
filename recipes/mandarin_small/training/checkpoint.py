"""What a run leaves: a model that the package loads, and a state to go on from."""

import os
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from citrinet import CitrinetForCTC, CitrinetProcessor

STATE = "training.pt"


def save_model(model: CitrinetForCTC, processor: CitrinetProcessor, folder: Path) -> None:
    """
    Write a model for use: matrices in float16, vectors (normalisation, biases) in float32, no SpecAugment.

    Args:
        model: the network; it stays as it is.
        processor: what goes with it.
        folder: appears when it is complete; one that is there is replaced.
    """
    scratch, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    for rest in (scratch, old):
        shutil.rmtree(rest, ignore_errors=True)
    config = deepcopy(model.config)
    config.freq_masks = config.time_masks = 0
    config.architectures, config.dtype = [type(model).__name__], "float32"
    scratch.mkdir(parents=True)
    config.save_pretrained(scratch)
    processor.save_pretrained(scratch)
    for module in scratch.glob("*.py"):  # remote code without the network's would be of no use
        module.unlink()
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    weights = {name: tensor.half() if tensor.ndim > 1 else tensor.clone() for name, tensor in weights.items()}
    save_file(weights, scratch / "model.safetensors", metadata={"format": "pt"})
    (scratch / "model.safetensors").chmod(0o644)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_state(state: dict[str, Any], file: Path) -> None:
    """Write a state; a run that is killed meanwhile leaves the one before."""
    scratch = file.with_name(f".{file.name}.part")
    with scratch.open("wb") as content:
        torch.save(state, content)
        content.flush()
        os.fsync(content.fileno())
    scratch.replace(file)


def load_state(file: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """
    Read the state of an interrupted run.

    Args:
        file: where it is.
        facts: what has to be as it was then.

    Returns:
        The state; none if there is no file.

    Raises:
        ValueError: if it is of another run, or damaged.
    """
    if not file.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        other = sorted(name for name in facts if state["facts"][name] != facts[name])
    except (RuntimeError, EOFError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{file} cannot be read: remove it to train from the beginning.") from error
    if other:
        raise ValueError(f"{file} is of a run with other {', '.join(other)}: remove it to train from the beginning.")
    return state
