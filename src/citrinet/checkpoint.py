"""Load checkpoints from a folder or the Hub; errors are a single line that says what to do."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    GatedRepoError,
    HFValidationError,
    HTTPError,  # that of its HTTP library, httpx or httpx2
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CTC_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
)
from transformers.utils import logging

from .configuration_citrinet import CitrinetConfig
from .modeling_citrinet import CitrinetForCTC
from .processing_citrinet import CitrinetProcessor
from .tokenization_citrinet import CitrinetTokenizer

TOKENIZER = "tokenizer.json"
JSON_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    TOKENIZER,
    "tokenizer_config.json",
)
# In the order in which Transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
LINE = 250  # characters kept of another library's message
_LFS_POINTER = b"version https://git-lfs"


def load_config(model: str) -> PreTrainedConfig:
    """
    Load the configuration of a model, Citrinet or not.

    Args:
        model: folder or Hub repository.

    Raises:
        OSError: if the model cannot be found or downloaded.
        ValueError: if Transformers cannot load it: a `.nemo` file, a damaged configuration, ...
    """
    refuse_other_places(model)
    try:
        with _one_line(model):
            config: PreTrainedConfig = AutoConfig.from_pretrained(model)
    except ValueError as error:  # raised by Transformers for a repository without a config.json
        if not Path(model).is_dir() and (nemo := _nemo_on_hub(model)):
            hint = f"convert it first, `citrinet convert {model} my-model`"
            raise ValueError(f"{model} holds a NeMo checkpoint, {nemo}: {hint}.") from error
        raise
    return config


def load_citrinet_config(model: str) -> CitrinetConfig:
    """
    Load the configuration of a Citrinet.

    Raises:
        OSError, ValueError: as in [`load_config`], and ValueError if the model is not a Citrinet.
    """
    config = load_config(model)
    if not isinstance(config, CitrinetConfig):
        raise ValueError(f"{model} is a {config.model_type} model, not a Citrinet.")
    return config


def recognizes_speech(config: PreTrainedConfig) -> bool:
    """Whether Transformers has a speech recognition model for this type of configuration."""
    return type(config) in MODEL_FOR_CTC_MAPPING or type(config) in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING


def load_processor(model: str) -> CitrinetProcessor:
    """
    Load the feature extractor and tokenizer of a Citrinet.

    Raises:
        OSError, ValueError: as in [`load_citrinet_config`], and ValueError if the tokenizer does not match the network.
    """
    config = load_citrinet_config(model)
    if Path(model).is_dir() and not Path(model, TOKENIZER).is_file():  # of which Transformers asks for other packages
        raise OSError(f"{model} holds no {TOKENIZER}: copy or download the whole model.")
    with _one_line(model):
        processor = CitrinetProcessor.from_pretrained(model)
    tokens, blank = len(processor.tokenizer), processor.tokenizer.pad_token_id
    if (tokens, blank) != (config.vocab_size, config.pad_token_id):
        raise ValueError(
            f"{model}: the tokenizer is not that of the network (tokens and blank {tokens} and {blank} instead of "
            f"{config.vocab_size} and {config.pad_token_id}): copy or download the whole model."
        )
    return processor


def load_tokenizer(place: str) -> CitrinetTokenizer:
    """
    Load the tokenizer of a Citrinet, from a model or from a folder with only the tokenizer.

    Raises:
        OSError: if it cannot be found or downloaded.
        ValueError: if it is damaged, or not a tokenizer of a Citrinet.
    """
    with _one_line(place):
        tokenizer = AutoTokenizer.from_pretrained(place)
    if not isinstance(tokenizer, CitrinetTokenizer):
        raise ValueError(f"{place} has a {type(tokenizer).__name__}, not a tokenizer of a Citrinet.")
    return tokenizer


def load_network(model: str, **kwargs: Any) -> CitrinetForCTC:
    """
    Load the network of a Citrinet; missing or unexpected weights are an error.

    Args:
        model: folder or Hub repository.
        **kwargs: arguments of `from_pretrained`, such as `dtype` and `quantization_config`.

    Returns:
        The network, in evaluation mode.

    Raises:
        OSError: if it cannot be found or downloaded.
        ValueError: if it is not a Citrinet, or its weights are damaged or do not match its configuration.
    """
    load_citrinet_config(model)
    check_weights(model)
    options: Any = {"output_loading_info": True, "ignore_mismatched_sizes": True, **kwargs}
    with _one_line(model):
        loaded: Any = CitrinetForCTC.from_pretrained(model, **options)
    network, found = loaded
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[problem]:
            first = min(found[problem])  # a tuple with both shapes for mismatched keys
            raise ValueError(
                f"{model}: the weights are not those of its configuration ({len(found[problem])} "
                f"{problem.removesuffix('_keys')}, such as {first if isinstance(first, str) else first[0]})."
            )
    evaluated: CitrinetForCTC = network.eval()
    return evaluated


def refuse_other_places(model: str) -> None:
    """
    Refuse what cannot be a Transformers model, judged by its name and by the local files of that name.

    Raises:
        OSError: if there is no such folder and the name is not valid for a repository, or a folder has no config.json.
        ValueError: if the name is empty, or for a file or a NeMo checkpoint.
    """
    if not model.strip():
        raise ValueError("the name of the model is empty: give a folder or a Hub repository.")
    place = Path(model)
    if os.path.isfile(model):  # noqa: PTH113 - Path.is_file raises if the name is too long
        if place.suffix == ".nemo":
            raise ValueError(f"{model} is a NeMo checkpoint: convert it first, `citrinet convert {model} my-model`.")
        raise ValueError(f"{model} is a file: give the folder of a converted model, or a Hub repository.")
    if os.path.isdir(model):  # noqa: PTH112
        if not (place / "config.json").is_file():
            if nemo := next(iter(sorted(place.glob("*.nemo"))), None):
                hint = f"`citrinet convert {nemo} my-model`"
                raise ValueError(f"{model} holds a NeMo checkpoint: convert it first, {hint}.")
            raise OSError(f"{model} has no config.json: give the folder of a converted model.")
        return
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise OSError(f"{model}: there is no such folder, and a Hub repository is named owner/name.") from error
    if place.suffix == ".nemo":
        raise OSError(f"{model}: there is no such file.")


def _check_files(folder: Path) -> None:
    """Refuse Git LFS pointers, damaged JSON and a config.json without a model type; loading finds other damage."""
    descriptions = [folder / name for name in JSON_FILES if (folder / name).is_file()]
    for file in [*descriptions, *sorted(folder.glob("tokenizer.model")), *sorted(folder.glob("*.safetensors"))]:
        with file.open("rb") as content:
            if content.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise ValueError(f"{file} is a Git LFS pointer, not the file: run `git lfs pull` in {folder}.")
    contents = {file.name: _json(file) for file in descriptions}
    config = contents.get("config.json")  # a folder with only a tokenizer has none
    if config is not None and not isinstance(config.get("model_type"), str):
        raise ValueError(f"{folder / 'config.json'} names no `model_type`: it is not that of a model of Transformers.")


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: copy or download it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object: copy or download it again.")
    return content


def check_weights(model: str) -> None:
    """
    Check that a folder has weights, without reading them; repositories on the Hub are not checked.

    Raises:
        OSError: if weights, or shards of them, are missing.
        ValueError: if their index is damaged.
    """
    folder = Path(model)
    if not folder.is_dir():
        return
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise OSError(f"{folder} holds no weights ({WEIGHTS[0]}): copy or download the whole model.")
    index = folder / f"{WEIGHTS[0]}.index.json"
    if index.is_file() and not (folder / WEIGHTS[0]).is_file():
        parts = _json(index).get("weight_map")
        if not isinstance(parts, dict):
            raise ValueError(f"{index} has no `weight_map`: copy or download it again.")
        if missing := sorted({str(part) for part in parts.values() if not (folder / str(part)).is_file()}):
            raise OSError(f"{folder} lacks {missing[0]}, a part of its weights: copy or download the whole model.")


@contextmanager
def _one_line(model: str) -> Iterator[None]:
    """Turn errors of Transformers, the Hub, safetensors and tokenizers into one line that says what to do."""
    try:
        if Path(model).is_dir():
            _check_files(Path(model))
        with _without_reports():
            yield
    except (ImportError, MemoryError):
        raise
    except SafetensorError as error:
        raise ValueError(f"{model}: the weights cannot be read, copy or download them again ({error}).") from error
    except (OSError, HTTPError) as error:
        if getattr(error, "filename", None):  # an error of the local disk
            raise
        raise OSError(_hub_line(model, error)) from error
    except json.JSONDecodeError as error:  # in the cache of the Hub
        raise ValueError(f"{model}: one of its files is damaged JSON, download it again ({error}).") from error
    except ValueError as error:
        raise ValueError(_short(error) if model in str(error) else f"{model}: {_short(error)}") from error
    except Exception as error:  # tokenizers, and code that reads a configuration, raise any class for damage
        reason = f"{type(error).__name__}: {_short(error)}"
        raise ValueError(f"{model}: one of its files is damaged, or this is no Citrinet ({reason}).") from error


@contextmanager
def _without_reports() -> Iterator[None]:
    """Silence Transformers' table of missing and unexpected weights, which are an error here."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _hub_line(model: str, error: BaseException) -> str:
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return f"{model}: its owner gives access on its page; then log in, `hf auth login`."
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"{model}: there is no such folder, and no such repository on the Hub (a private one: `hf auth login`)."
    if any(isinstance(cause, OfflineModeIsEnabled | LocalEntryNotFoundError | HTTPError) for cause in causes):
        return f"{model}: there is no such folder, and the Hub cannot be reached; it is not in the cache either."
    return _short(error) if model in str(error) else f"{model}: {_short(error)}"


def _nemo_on_hub(repository: str) -> str | None:
    """Return the first `.nemo` file of a repository, if there is one."""
    try:
        files = HfApi().list_repo_files(repository)
    except (HTTPError, OSError):
        return None
    return min((file for file in files if file.endswith(".nemo")), default=None)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LINE else f"{text[:LINE]}..."
