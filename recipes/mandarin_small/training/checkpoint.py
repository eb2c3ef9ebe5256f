"""Output of a run: a model that the package loads, and a state to resume from."""

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
        model: the network, which is not changed.
        processor: its processor.
        folder: output folder, which appears when it is complete; an existing one is replaced.
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
    for module in scratch.glob("*.py"):  # useless without the code of the network
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
    """Write a state atomically; if the run is killed meanwhile, the previous state is kept."""
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
        file: file of the state.
        facts: settings that must be the same in both runs.

    Returns:
        The state; `None` if there is no file.

    Raises:
        ValueError: if the state is damaged, or its settings differ.
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
