"""One way to make a recogniser of a model, wherever it is and whatever computes it."""

from pathlib import Path

from .onnx_folder import is_onnx_folder
from .onnx_recognizer import CitrinetOnnx
from .protocol import Recognizer


def load_recognizer(
    model: str | Path,
    *,
    precision: str = "float32",
    device: str = "cpu",
    optimized: bool = True,
    citrinet_only: bool = True,
) -> Recognizer:
    """
    Make a recogniser of a model.

    ```python
    >>> recognizer = citrinet.load_recognizer("my-model", precision="int8")
    >>> recognizer("speech.wav")["transcript"]
    ```

    Args:
        model: a converted folder, a Hub repository, or a folder that `citrinet export onnx` wrote.
        precision: `"float32"`, `"bfloat16"` or `"int8"`, see [`CitrinetInferenceConfig`]. ONNX graphs have their own.
        device: where PyTorch computes: `"cpu"`, `"cuda"`, `"mps"`, ...
        optimized: whether the network is folded and packed for this CPU; without, it is the ordinary one of
            `from_pretrained`, slower, with the same numbers up to rounding.
        citrinet_only: whether a model of another kind (Wav2Vec2, Whisper, ...) is refused.

    Returns:
        [`Recognizer`].

    Raises:
        ImportError: if a package is missing that the model needs.
        OSError: if the model cannot be found or fetched.
        ValueError: if it is none that can be run here; for a `.nemo` file the message says how to convert it.
    """
    model = str(model)
    if is_onnx_folder(model):
        if (precision, device) != ("float32", "cpu"):
            raise ValueError(f"{model} holds graphs for a CPU: their precision is that of `export onnx --dtype`.")
        return CitrinetOnnx(model)
    from ..checkpoint import load_config
    from ..configuration_citrinet import CitrinetConfig
    from .transformers_recognizer import CitrinetRecognizer, OtherRecognizer

    _check_device(device)
    config = load_config(model)
    if isinstance(config, CitrinetConfig):
        return CitrinetRecognizer(model, precision, device, optimized)
    if citrinet_only:
        raise ValueError(f"{model} is a {config.model_type} model, not a Citrinet.")
    return OtherRecognizer(model, precision, device)


def _check_device(device: str) -> None:
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"there is no device {device!r}: use cpu, cuda, cuda:1, mps, ...") from error
    if kind == "cpu":
        return
    backend = getattr(torch, kind, None)
    if backend is None or not getattr(backend, "is_available", lambda: False)():
        raise ValueError(f"PyTorch finds no {kind} device on this machine: leave --device out to use the CPU.")


__all__ = ["load_recognizer"]
