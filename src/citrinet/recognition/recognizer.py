"""Load a recogniser from a local or Hub model, for PyTorch or ONNX."""

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
    Load a model as a recogniser.

    ```python
    >>> recognizer = citrinet.load_recognizer("my-model", precision="int8")
    >>> recognizer("speech.wav")["transcript"]
    ```

    Args:
        model: folder of a converted model, Hub repository, or folder written by `citrinet export onnx`.
        precision: `"float32"`, `"float16"` (on GPUs), `"bfloat16"` or `"int8"` (on CPUs), see
            [`CitrinetInferenceConfig`]. The precision of ONNX graphs is set when they are exported.
        device: PyTorch device: `"cpu"`, `"cuda"`, `"mps"`, ...
        optimized: whether to fold the network, and pack its weights for this CPU or use GPU kernels. If `False`, it is
            the network of `from_pretrained`, slower, with the same values up to rounding.
        citrinet_only: whether to refuse models of other kinds (Wav2Vec2, Whisper, ...).
        decoder: decoder for the outputs of a Citrinet, or options of a beam search. The default is a beam search with
            the model's own language model if it has one, otherwise greedy decoding.

    Returns:
        [`Recognizer`].

    Raises:
        ImportError: if a package that the model needs is missing.
        OSError: if the model cannot be found or downloaded.
        ValueError: if the model cannot be run here; for a `.nemo` file the message says how to convert it.
    """
    model = str(model)
    config = _check(model, precision, device, citrinet_only)
    recognizer: Recognizer
    if config is None:
        recognizer = CitrinetOnnx(model, decoder=None)  # set below
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
    Raise the errors of [`load_recognizer`] that can be found without reading the weights.

    Args:
        model, precision, device, citrinet_only: as in [`load_recognizer`].

    Raises:
        ImportError, OSError, ValueError: as in [`load_recognizer`].
    """
    if _check(str(model), precision, device, citrinet_only) is None:
        read_description(Path(model))


def _check(model: str, precision: str, device: str, citrinet_only: bool) -> "PreTrainedConfig | None":
    """Check the arguments; return the configuration of a Transformers model, `None` for ONNX graphs."""
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: use {', '.join(PRECISIONS)}.")
    if os.path.isdir(model) and is_onnx_folder(model):  # noqa: PTH112 - Path.is_dir raises if the name is too long
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
