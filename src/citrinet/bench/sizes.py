"""
Models of the published sizes, with random weights.

The speed of a network does not depend on its weights, so it can be measured without a download. One thing differs: with
random weights the network writes more tokens than speech has, and joining them takes longer.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor

from ..configuration_citrinet import CitrinetConfig
from ..default import default_model
from ..modeling_citrinet import CitrinetForCTC

# NeMo's `examples/asr/conf/citrinet`: depthwise kernels of the 23 blocks, and channels of the last one.
_KERNELS = [5, 11, *range(13, 22, 2), 13, *range(15, 26, 2), 25, *range(27, 40, 2), 41]
_LAST = {256: 640, 384: 640, 512: 640, 1024: 1024}
_META = "stt_meta_zh_150m"

SIZES = (*(f"citrinet_{width}{gamma}" for gamma in ("", "_gamma_0_25") for width in _LAST), _META)


def size_config(name: str) -> CitrinetConfig:
    """
    Make the configuration of a published size, with the vocabulary of the package's own model.

    Args:
        name: one of `SIZES`: `citrinet_WIDTH` with NeMo's kernel sizes, `citrinet_WIDTH_gamma_0_25` with kernels a
            quarter as long, or `stt_meta_zh_150m`, which is `citrinet_1024_gamma_0_25` with an adapter in every block
            and tag heads, as in WhissleAI's model of that name.

    Raises:
        ValueError: for another name.
    """
    if name not in SIZES:
        raise ValueError(f"there is no published size {name!r}: use {', '.join(SIZES)}.")
    small = AutoConfig.from_pretrained(default_model())
    if name == _META:
        adapters = [{"name": "adapter", "dim": 256}]
        return CitrinetConfig(vocab_size=small.vocab_size, tag_labels=small.tag_labels, adapters=adapters)
    width = int(re.findall(r"\d+", name)[0])
    return CitrinetConfig(
        vocab_size=small.vocab_size,
        hidden_sizes=[width] * (len(_KERNELS) - 1) + [_LAST[width]],
        kernel_sizes=None if "gamma" in name else _KERNELS,
    )


@contextmanager
def model_folder(model: str) -> Iterator[str]:
    """
    Write a model of a published size into a temporary folder; any other model is returned unchanged.

    Args:
        model: one of `SIZES`, a folder (preferred if it has the same name) or a Hub repository.

    Returns:
        A model for [`load_recognizer`].
    """
    if model not in SIZES or Path(model).is_dir():
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        CitrinetForCTC(size_config(model)).save_pretrained(folder)
        processor: Any = AutoProcessor
        processor.from_pretrained(default_model()).save_pretrained(folder)
        yield folder


__all__ = ["SIZES", "model_folder", "size_config"]
