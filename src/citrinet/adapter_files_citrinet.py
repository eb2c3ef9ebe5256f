"""
Adapter files, `adapter.NAME.safetensors`: writing, reading, and checking that they fit a network.

A file holds the adapter's weights of every block, the CTC head and the tag heads; its metadata holds the matching
entries of the configuration. The adapter's tokenizer is in a folder `NAME` next to the file.

Source: file name and location follow Wav2Vec2's adapters in Transformers (MMS, arXiv:2305.13516).
"""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

ADAPTER_FILE = "adapter.{}.safetensors"
HEAD_FACTS = ("vocab_size", "pad_token_id", "tag_labels")
_METADATA = "citrinet_adapter"
_FACTS = {"adapter", "enabled", "hidden_sizes", *HEAD_FACTS}
_ADAPTER_FACTS = {"name", "dim", "activation", "norm_position", "dropout", "enabled"}


def check_adapter_name(name: str) -> None:
    """
    Check that an adapter name is valid for a file and for a network.

    Raises:
        ValueError: if it is not.
    """
    # The second condition: a key of a ModuleDict cannot have the name of one of its attributes.
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            f"{name!r} cannot name an adapter: use letters, digits, '_' and '-', and no word of PyTorch's."
        )


def write_adapter(
    folder: Path, name: str, facts: dict[str, Any], weights: dict[str, torch.Tensor], tokenizer: Any = None
) -> Path:
    """
    Write an adapter file; it appears when it is complete, after its tokenizer.

    Args:
        folder: folder to write to; created if it does not exist.
        name: name of the adapter.
        facts: `adapter` (its description or `None`), `enabled` (names), `hidden_sizes` and the keys in `HEAD_FACTS`.
        weights: name -> weight, contiguous and on the CPU.
        tokenizer: tokenizer of the CTC head, written to the folder `name`.

    Returns:
        Path of the file.

    Raises:
        OSError: if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ADAPTER_FILE.format(name)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{file.name}.") as scratch:
        written = Path(scratch, file.name)
        written.write_bytes(save(weights, {"format": "pt", _METADATA: json.dumps(facts)}))
        if tokenizer is not None:  # first, so that an adapter that exists has its tokenizer
            tokenizer.save_pretrained(Path(scratch, name))
            (folder / name).mkdir(exist_ok=True)
            for part in Path(scratch, name).iterdir():
                part.replace(folder / name / part.name)
        written.replace(file)
    return file


def read_adapter(file: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """
    Read an adapter file.

    Returns:
        `facts` and `weights`, as in [`write_adapter`].

    Raises:
        ValueError: if it is damaged, or not an adapter file.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            facts = json.loads((stored.metadata() or {})[_METADATA])
            weights = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118  # it is not a dictionary
        adapter = facts["adapter"]
        if facts.keys() != _FACTS or (adapter and adapter.keys() != _ADAPTER_FACTS):
            raise KeyError(f"it has the facts {sorted(facts)}")
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not an adapter of a Citrinet ({error}).") from error
    return facts, weights


def check_adapter_weights(file: str, parts: Mapping[str, nn.Module], weights: dict[str, torch.Tensor]) -> None:
    """
    Check that an adapter file has exactly the weights of these parts of a network.

    Args:
        file: name of the file, for the message.
        parts: prefix of the weights' names -> module.
        weights: weights in the file.

    Raises:
        ValueError: if a weight is missing, unexpected or has another shape.
    """
    expected = {
        f"{prefix}.{key}": list(tensor.shape)
        for prefix, part in parts.items()
        for key, tensor in part.state_dict().items()
    }
    for problem, keys in (("lacks", expected.keys() - weights), ("also holds", weights.keys() - expected)):
        if keys:
            raise ValueError(f"{file} does not fit this model: it {problem} {min(keys)} ({len(keys)} such weights).")
    for key, shape in expected.items():
        if (found := list(weights[key].shape)) != shape:
            raise ValueError(f"{file} does not fit this model: {key} is {found}, and {shape} is needed.")


__all__ = ["ADAPTER_FILE", "HEAD_FACTS", "check_adapter_name", "check_adapter_weights", "read_adapter", "write_adapter"]
