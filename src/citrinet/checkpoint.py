"""Checkpoints, from a folder or the Hub: loaded whole, or refused in one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig

from .configuration_citrinet import CitrinetConfig
from .modeling_citrinet import CitrinetForCTC
from .processing_citrinet import CitrinetProcessor

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_LFS_POINTER = b"version https://git-lfs"


def load_config(model: str) -> PreTrainedConfig:
    """
    Load the configuration of a model, Citrinet or not.

    Args:
        model: a folder or a Hub repository.

    Raises:
        OSError: if it cannot be found or fetched.
        ValueError: if it is no model that Transformers loads: a `.nemo` file, a folder without a configuration, ...
    """
    _refuse_other_places(model)
    with _one_line(model):
        return AutoConfig.from_pretrained(model)


def load_citrinet_config(model: str) -> CitrinetConfig:
    """
    Load the configuration of a Citrinet.

    Raises:
        OSError, ValueError: as [`load_config`], and ValueError for a model of another kind.
    """
    config = load_config(model)
    if not isinstance(config, CitrinetConfig):
        raise ValueError(f"{model} is a {config.model_type} model, not a Citrinet.")
    return config


def load_processor(model: str) -> CitrinetProcessor:
    """
    Load feature extractor and tokenizer of a Citrinet.

    Raises:
        OSError, ValueError: as [`load_config`].
    """
    with _one_line(model):
        return CitrinetProcessor.from_pretrained(model)


def load_network(model: str, **kwargs: Any) -> CitrinetForCTC:
    """
    Load the network of a Citrinet, of whose weights none is missing and none left over.

    Args:
        model: a folder or a Hub repository.
        **kwargs: those of `from_pretrained`, such as `dtype` and `quantization_config`.

    Returns:
        The network, in evaluation mode.

    Raises:
        OSError: if it cannot be found or fetched.
        ValueError: if it is no Citrinet, or its weights are damaged or not those of its configuration.
    """
    load_citrinet_config(model)
    with _one_line(model):
        network, found = CitrinetForCTC.from_pretrained(
            model, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[problem]:
            raise ValueError(
                f"{model}: the weights are not those of its configuration ({len(found[problem])} "
                f"{problem.removesuffix('_keys')}, such as {min(found[problem])})."
            )
    return network.eval()


def _refuse_other_places(model: str) -> None:
    """What stands on this disk and is no model of Transformers."""
    place = Path(model)
    if place.suffix == ".nemo" and (place.exists() or len(place.parts) > 2):
        raise ValueError(f"{model} is a NeMo checkpoint: convert it first, `citrinet convert {model} my-model`.")
    if place.is_file():
        raise ValueError(f"{model} is a file: give the folder of a converted model, or a Hub repository.")
    if place.is_dir() and not (place / "config.json").is_file():
        if nemo := next(iter(sorted(place.glob("*.nemo"))), None):
            raise ValueError(f"{model} holds a NeMo checkpoint: convert it first, `citrinet convert {nemo} my-model`.")
        raise OSError(f"{model} has no config.json: it is not a converted model.")


def _check_weights(folder: Path) -> None:
    """Weights of a folder that are not there, or stand somewhere else; the rest is found out by reading them."""
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any((folder / name).is_file() for name in (*WEIGHTS, "pytorch_model.bin")):
        raise OSError(f"{folder} holds no weights (model.safetensors): copy or download the whole model.")
    for file in files:
        with file.open("rb") as content:
            if content.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise ValueError(f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` in {folder}.")


@contextmanager
def _one_line(model: str) -> Iterator[None]:
    """The errors of Transformers, the Hub and safetensors, each in one line that says what to do."""
    try:
        if Path(model).is_dir():
            _check_weights(Path(model))
        yield
    except SafetensorError as error:
        raise ValueError(f"{model}: the weights cannot be read, copy or download them again ({error}).") from error
    except (httpx.HTTPError, HFValidationError) as error:
        raise OSError(f"{model}: no such folder, and the Hub cannot be asked ({error}).") from error
