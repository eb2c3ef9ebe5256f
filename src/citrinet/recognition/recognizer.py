"""One way to make a recogniser of a model, wherever it is and whatever computes it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..decoding_citrinet import Decoder
from ..language_model import DecodingOptions
from .onnx_folder import is_onnx_folder, read_description
from .onnx_recognizer import CitrinetOnnx
from .protocol import Recognizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PRECISIONS = ("float32", "float16", "bfloat16", "int8")


def load_recognizer(
    model: str | Path,
    *,
    precision: str = "float32",
    device: str = "cpu",
    optimized: bool = True,
    citrinet_only: bool = True,
    decoder: Decoder | DecodingOptions | None = None,
) -> Recognizer:
    """
    Make a recogniser of a model.

    ```python
    >>> recognizer = citrinet.load_recognizer("my-model", precision="int8")
    >>> recognizer("speech.wav")["transcript"]
    ```

    Args:
        model: a converted folder, a Hub repository, or a folder that `citrinet export onnx` wrote.
        precision: `"float32"`, `"float16"` (on GPUs), `"bfloat16"` or `"int8"` (on CPUs), see
            [`CitrinetInferenceConfig`]. ONNX graphs have their own.
        device: where PyTorch computes: `"cpu"`, `"cuda"`, `"mps"`, ...
        optimized: whether the network is folded, and packed for this CPU or given kernels for a GPU; without, it is the
            ordinary one of `from_pretrained`, slower, with the same numbers up to rounding.
        citrinet_only: whether a model of another kind (Wav2Vec2, Whisper, ...) is refused.
        decoder: what finds the tokens in the outputs of a Citrinet, or options of a beam search. If not given, a beam
            search with the model's own language model, if it has one, else greedy decoding.

    Returns:
        [`Recognizer`].

    Raises:
        ImportError: if a package is missing that the model needs.
        OSError: if the model cannot be found or fetched.
        ValueError: if it is none that can be run here; for a `.nemo` file the message says how to convert it.
    """
    model = str(model)
    config = _check(model, precision, device, citrinet_only)
    recognizer: Recognizer
    if config is None:
        recognizer = CitrinetOnnx(model, decoder=None)  # it is set below
    else:
        recognizer = _with_transformers(model, config, precision, device, optimized)
    _set_decoder(recognizer, decoder or DecodingOptions())
    return recognizer


def _set_decoder(recognizer: Recognizer, decoder: Decoder | DecodingOptions) -> None:
    if not recognizer.pieces:
        if not (isinstance(decoder, DecodingOptions) and decoder.is_default):
            raise ValueError(f"{recognizer.model} is no Citrinet: it has a decoder of its own.")
    elif isinstance(decoder, DecodingOptions):
        recognizer.decoder = decoder.decoder(recognizer.model, recognizer.pieces)
    else:
        recognizer.decoder = decoder


def _with_transformers(
    model: str, config: "PreTrainedConfig", precision: str, device: str, optimized: bool
) -> Recognizer:
    from ..configuration_citrinet import CitrinetConfig
    from .transformers_recognizer import CitrinetRecognizer, OtherRecognizer

    if isinstance(config, CitrinetConfig):
        return CitrinetRecognizer(model, precision, device, optimized)
    return OtherRecognizer(model, precision, device)


def check_model(
    model: str | Path, *, precision: str = "float32", device: str = "cpu", citrinet_only: bool = True
) -> None:
    """
    Refuse what [`load_recognizer`] would refuse, as far as that shows without reading the weights.

    Args:
        model, precision, device, citrinet_only: as there.

    Raises:
        ImportError, OSError, ValueError: as there.
    """
    if _check(str(model), precision, device, citrinet_only) is None:
        read_description(Path(model))


def _check(model: str, precision: str, device: str, citrinet_only: bool) -> "PreTrainedConfig | None":
    """The configuration of a model that Transformers runs, none for ONNX graphs."""
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: use {', '.join(PRECISIONS)}.")
    if os.path.isdir(model) and is_onnx_folder(model):  # noqa: PTH112 - Path's raises for a name too long
        if (precision, device) != ("float32", "cpu"):
            raise ValueError(f"{model} holds graphs for a CPU: their precision is that of `export onnx --dtype`.")
        return None
    try:
        from ..checkpoint import check_weights, load_config, recognizes_speech
        from ..configuration_citrinet import CitrinetConfig
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{model} is no ONNX folder, and other models need the ordinary installation, without --no-deps: "
            f"{error.name} is missing."
        ) from error
    _check_device(device, precision)
    config = load_config(model)
    if not isinstance(config, CitrinetConfig):
        if citrinet_only:
            raise ValueError(f"{model} is a {config.model_type} model, not a Citrinet.")
        if not recognizes_speech(config):
            raise ValueError(f"{model} is a {config.model_type} model, which does not recognise speech.")
    check_weights(model)
    return config


def _check_device(device: str, precision: str) -> None:
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"there is no device {device!r}: use cpu, cuda, cuda:1, mps, ...") from error
    if wanted.type == "cpu":
        if precision == "float16":
            raise ValueError("float16 is for GPUs: use float32, bfloat16 or int8 on a CPU.")
        return
    if precision == "int8":
        raise ValueError(f"int8 is for CPUs: use bfloat16, float16 or float32 on {device}.")
    backend = getattr(torch, wanted.type, None)
    if backend is None or not getattr(backend, "is_available", lambda: False)():
        raise ValueError(f"PyTorch finds no {wanted.type} device on this machine: use cpu.")
    count = backend.device_count()
    if wanted.index is not None and wanted.index >= count:
        raise ValueError(f"there is no device {device!r}: PyTorch finds {count} of {wanted.type}, counted from 0.")


__all__ = ["check_model", "load_recognizer"]
