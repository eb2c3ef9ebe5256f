"""Take `.nemo` archives apart and put altered ones together."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from citrinet import CitrinetConfig, CitrinetForCTC
from citrinet.convert.weight_map import weight_map

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"


def read_members(path: Path) -> dict[str, bytes]:
    """The archive's files by name, without a leading `./`."""
    with tarfile.open(path) as tar:
        return {member.name.removeprefix("./"): tar.extractfile(member).read() for member in tar if member.isfile()}


def read_config(members: dict[str, bytes]) -> dict[str, Any]:
    return yaml.safe_load(members[CONFIG])


def load_tensors(content: bytes) -> dict[str, Any]:
    return torch.load(io.BytesIO(content), weights_only=True)


def save_tensors(tensors: Any) -> bytes:
    content = io.BytesIO()
    torch.save(tensors, content)
    return content.getvalue()


def write_members(path: Path, members: dict[str, bytes], *, compress: bool = False, prefix: str = "./") -> Path:
    """Write an archive as NeMo does: one folder entry, then the files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        if prefix:
            folder = tarfile.TarInfo(prefix.rstrip("/"))
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(gzip.compress(content.getvalue(), 1) if compress else content.getvalue())
    return path


def rewrite_nemo(
    source: Path,
    target: Path,
    *,
    config: Callable[[dict], Any] | None = None,
    weights: Callable[[dict], Any] | None = None,
    members: Callable[[dict], Any] | None = None,
    compress: bool = False,
    prefix: str = "./",
) -> Path:
    """
    Write a copy of a `.nemo` file with changes.

    Args:
        source: the original.
        target: the copy.
        config: changes the configuration in place, or returns another.
        weights: changes the tensors in place, or returns others.
        members: changes the files (name -> bytes) in place, or returns others; called last.
        compress: whether to compress the copy.
        prefix: begins the names of its members.

    Returns:
        `target`.
    """
    files = read_members(source)
    if config:
        content = read_config(files)
        changed = config(content)
        files[CONFIG] = yaml.safe_dump(content if changed is None else changed, allow_unicode=True).encode()
    if weights:
        tensors = load_tensors(files[WEIGHTS])
        changed = weights(tensors)
        files[WEIGHTS] = save_tensors(tensors if changed is None else changed)
    if members:
        changed = members(files)
        files = files if changed is None else changed
    return write_members(target, files, compress=compress, prefix=prefix)


def nemo_config(config: CitrinetConfig, vocabulary: list[str]) -> dict[str, Any]:
    """The `model_config.yaml` of a character model of this architecture."""
    names = ("hidden_sizes", "num_repeats", "kernel_sizes", "strides", "residuals", "dropouts")
    blocks = zip(*(getattr(config, name) for name in names), strict=True)
    return {
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "window_size": 0.025,
            "window_stride": 0.01,
            "features": config.num_mel_bins,
            "n_fft": 512,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.conv_asr.ConvASREncoderAdapter",
            "feat_in": config.num_mel_bins,
            "activation": "relu",
            "jasper": [
                {"filters": filters, "repeat": repeat, "kernel": [kernel], "stride": [stride], "dilation": [1]}
                | {"separable": True, "se": True, "se_reduction_ratio": config.se_reduction_ratio}
                | {"residual": residual, "residual_mode": "stride_add", "stride_last": True, "dropout": dropout}
                for filters, repeat, kernel, stride, residual, dropout in blocks
            ],
        },
        "decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "vocabulary": vocabulary},
        "adapters": {
            adapter["name"]: {
                "_target_": "nemo.collections.common.parts.adapter_modules.LinearAdapter",
                "dim": adapter["dim"],
                "norm_position": adapter["norm_position"],
            }
            for adapter in config.adapters
        },
        "target": "__main__.CustomEncDecCTCModelBPE",
    }


def write_nemo(target: Path, model: CitrinetForCTC, vocabulary: list[str]) -> Path:
    """Write a model of ours as a `.nemo` file."""
    state = model.state_dict()
    tensors = {row.nemo: row.to_nemo(state[row.ours]) for row in weight_map(model.config)}
    config = yaml.safe_dump(nemo_config(model.config, vocabulary), allow_unicode=True).encode()
    return write_members(target, {CONFIG: config, WEIGHTS: save_tensors(tensors)})


def files_below(folder: Path) -> dict[str, bytes]:
    """Everything below a folder: what must not change when a conversion fails."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }
