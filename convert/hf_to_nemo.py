"""Export a Transformers repository to a NeMo checkpoint; a model that NeMo cannot express is refused."""

import hashlib
import io
import reprlib
import tarfile
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from torch import nn
from tqdm.auto import tqdm

from citrinet import CitrinetConfig, CitrinetFeatureExtractor, CitrinetForCTC
from citrinet.decoding_citrinet import WORD_BOUNDARY
from citrinet.transcript_citrinet import entity_types

from .hf_repository import Repository, read_repository
from .nemo_archive import CONFIG, WEIGHTS, ConversionError, is_nemo
from .nemo_config import (
    ACTIVATIONS,
    OURS,
    Section,
    read_feature_extractor,
    read_network,
    read_tag_labels,
    read_vocabulary,
)
from .output import Kind, Output
from .report import ConversionReport, count_parameters
from .weight_map import weight_map

# Settings of the network and its features. The rest of the two configurations only matters for training or for files.
_NETWORK = (
    *("vocab_size", "pad_token_id", "num_mel_bins", "hop_length", "hidden_sizes", "num_repeats", "kernel_sizes"),
    *("strides", "residuals", "dropouts", "hidden_act", "se_reduction_ratio", "se_context_size", "adapters"),
    "tag_labels",
)
_FEATURES = (
    *("feature_size", "sampling_rate", "hop_length", "win_length", "n_fft", "preemphasis", "pad_to_multiple_of"),
    "frontend",
)
# NeMo's keys for the files of a tokenizer. It does not read the second, but fails without it.
_ARTIFACTS = {"model_path": "tokenizer.model", "vocab_path": "vocab.txt"}
_TAGS_NOTE = "NeMo knows no tag heads: restore_from(..., strict=False) drops them, strict=True needs a file without"
_FRONTEND_NOTE = "the model takes the features of NeMo 2.4 and earlier; NeMo 2.5 and later compute others"


def export_nemo(
    model: str | Path, output: str | Path, *, tag_heads: bool = True, force: bool = False
) -> ConversionReport:
    """
    Write a model as a `.nemo` file, which appears only when it is complete. The same model gives the same bytes.

    Weights keep the dtype of the repository's configuration. NeMo restores a model with a SentencePiece tokenizer as
    `EncDecCTCModelBPE` and one with a tokenizer of characters as `EncDecCTCModel`, and computes in float32. The front
    end version, for which NeMo's configuration has no key, is written where `convert_nemo` finds it.

    Args:
        model: a converted or trained folder, or a Hub repository.
        output: the file to write.
        tag_heads: whether to write the tag heads. NeMo does not know them: it restores a file with tag heads only with
            `strict=False`, and drops them; a file without them also restores with `strict=True`.
        force: whether to replace an existing `.nemo` file; anything else is never replaced.

    Returns:
        [`ConversionReport`].

    Raises:
        ConversionError: if the model is not a Citrinet, damaged or incomplete, or cannot be expressed in NeMo.
        FileExistsError: if `output` exists and is not a `.nemo` file, or `force` is not set.
        OSError: if the model cannot be found, `output` cannot be written, or the disk is full.
    """
    place = Output(output, _NemoFile(), force=force, inputs=[model])
    repository = read_repository(str(model))
    network, features = repository.network, repository.features
    if not tag_heads:
        network.tag_heads, network.config.tag_labels = nn.ModuleDict(), {}
    members, tensors = _members(str(model), repository), _tensors(network, features)
    place.require(2 * sum(tensor.nbytes for tensor in tensors.values()))  # once alone, once in the archive
    with place.complete() as archive:
        _write(archive, members, tensors)
    notes = {_TAGS_NOTE: bool(network.config.tag_labels), _FRONTEND_NOTE: features.frontend == "nemo-2.4"}
    return ConversionReport(
        config=network.config,
        parameters=count_parameters(network),
        mapped=len(network.state_dict()),
        entities=entity_types(repository.tokenizer.get_vocab()),
        sampling_rate=features.sampling_rate,
        output=place.path,
        notes=[note for note, applies in notes.items() if applies],
    )


class _NemoFile(Kind):
    """Any `.nemo` file, also one that this package did not write."""

    def difference(self, path: Path) -> str | None:
        if path.is_dir():
            return "is a folder"
        return None if path.is_file() and is_nemo(path) else "is no NeMo checkpoint"


def _members(model: str, repository: Repository) -> dict[str, bytes]:
    """All files of the archive except the weights, the configuration first."""
    config, features, tokenizer = repository.network.config, repository.features, repository.tokenizer
    vocabulary = list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer) - 1))))
    sentencepiece = repository.sentencepiece_model
    artifacts = {} if sentencepiece is None else {"model_path": sentencepiece, "vocab_path": _vocab(vocabulary)}
    names = {key: _unique_name(_ARTIFACTS[key], content) for key, content in artifacts.items()}
    content = yaml.safe_dump(_nemo_config(config, features, vocabulary, names), allow_unicode=True, sort_keys=False)
    _check(model, content, config, features)
    return {CONFIG: content.encode(), **{names[key]: artifact for key, artifact in artifacts.items()}}


def _vocab(vocabulary: list[str]) -> bytes:
    """Content of NeMo's `vocab.txt`."""
    words = (t.removeprefix(WORD_BOUNDARY) if t.startswith(WORD_BOUNDARY) else f"##{t}" for t in vocabulary)
    return "".join(f"{word}\n" for word in words).encode()


def _unique_name(name: str, content: bytes) -> str:
    """Name of an artifact with a prefix of 32 hexadecimal digits: a hash of the content, where NeMo's are random."""
    return f"{hashlib.sha256(content).hexdigest()[:32]}_{name}"


def _nemo_config(
    config: CitrinetConfig, features: CitrinetFeatureExtractor, vocabulary: list[str], artifacts: dict[str, str]
) -> dict[str, Any]:
    """Content of NeMo's `model_config.yaml`; `artifacts` are the tokenizer's files, empty for characters."""
    nemo: dict[str, Any] = {
        "sample_rate": features.sampling_rate,
        "preprocessor": _preprocessor(features),
        "encoder": _encoder(config),
        "decoder": {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": config.hidden_size,
            "num_classes": len(vocabulary),
            "vocabulary": vocabulary,
        },
        "validation_ds": {"manifest_filepath": None, "use_start_end_token": False},  # `transcribe` reads the second
        OURS: {"frontend": features.frontend},
    }
    if artifacts:
        files = {key: f"nemo:{name}" for key, name in artifacts.items()}
        nemo["tokenizer"] = {"dir": "tokenizer", "type": "bpe", **files}
    if config.adapters:
        nemo["adapters"] = {adapter["name"]: _adapter(adapter, config.hidden_size) for adapter in config.adapters}
    if config.tag_labels:
        nemo["tag_classifier"] = {"categories": dict(config.tag_labels)}
    kind = "ctc_bpe_models.EncDecCTCModelBPE" if artifacts else "ctc_models.EncDecCTCModel"
    return nemo | {"target": f"nemo.collections.asr.models.{kind}"}


def _preprocessor(features: CitrinetFeatureExtractor) -> dict[str, Any]:
    rate = features.sampling_rate
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": rate,
        "normalize": "per_feature",
        "window_size": features.win_length / rate,
        "window_stride": features.hop_length / rate,
        "window": "hann",
        "features": features.feature_size,
        "n_fft": features.n_fft,
        "preemph": features.preemphasis,
        "pad_to": features.pad_to_multiple_of,
    }


def _encoder(config: CitrinetConfig) -> dict[str, Any]:
    kind = "ConvASREncoderAdapter" if config.adapters else "ConvASREncoder"
    names = ("hidden_sizes", "num_repeats", "kernel_sizes", "strides", "residuals", "dropouts")
    blocks = zip(*(getattr(config, name) for name in names), strict=True)
    return {
        "_target_": f"nemo.collections.asr.modules.conv_asr.{kind}",
        "feat_in": config.num_mel_bins,
        "activation": config.hidden_act,
        "conv_mask": True,
        "jasper": [
            {"filters": filters, "repeat": repeat, "kernel": [kernel], "stride": [stride], "dilation": [1]}
            | {"dropout": dropout, "residual": residual, "residual_mode": "stride_add", "stride_last": True}
            | {"separable": True, "se": True}
            | {"se_reduction_ratio": config.se_reduction_ratio, "se_context_size": config.se_context_size}
            for filters, repeat, kernel, stride, residual, dropout in blocks
        ],
    }


def _adapter(adapter: dict[str, Any], channels: int) -> dict[str, Any]:
    ours = adapter["activation"]
    return {
        "_target_": "nemo.collections.common.parts.adapter_modules.LinearAdapter",
        "in_features": channels,
        "dim": adapter["dim"],
        "activation": next((nemo for nemo, name in ACTIVATIONS.items() if name == ours), ours),
        "norm_position": adapter["norm_position"],
        "dropout": adapter["dropout"],
        "enabled": adapter["enabled"],
    }


def _activation(name: str) -> str:
    """The name of an activation after a round trip through NeMo: `silu` for `swish`."""
    return ACTIVATIONS.get(name, name)


def _check(model: str, content: str, config: CitrinetConfig, features: CitrinetFeatureExtractor) -> None:
    """Read NeMo's configuration as the converter would, and refuse a model that does not come back the same."""
    try:
        nemo = Section(yaml.safe_load(content))
        vocabulary = read_vocabulary(nemo)
        heads = {category: len(labels) for category, labels in config.tag_labels.items()}
        read = read_network(nemo, vocabulary, read_tag_labels(nemo, heads, vocabulary, None))
        read_features = read_feature_extractor(nemo, None)
    except ConversionError as error:
        raise ConversionError(f"{model} cannot be a .nemo file: {error}") from error
    for names, ours, theirs in ((_NETWORK, config, read), (_FEATURES, features, read_features)):
        for name in names:
            here, there = getattr(ours, name), getattr(theirs, name)
            if name == "adapters":
                here = [adapter | {"activation": _activation(adapter["activation"])} for adapter in here]
            if here != there:
                raise ConversionError(
                    f"{model} cannot be a .nemo file: `{name}` is {reprlib.repr(here)}, there it would be "
                    f"{reprlib.repr(there)}."
                )


def _tensors(network: CitrinetForCTC, features: CitrinetFeatureExtractor) -> dict[str, torch.Tensor]:
    """The weights under NeMo's names, with the buffers of NeMo's front end."""
    state, rows = network.state_dict(), weight_map(network.config)
    if strange := state.keys() ^ {row.ours for row in rows}:
        raise ConversionError(f"the network was changed, as PEFT does ({min(strange)}): merge and save it first.")
    tensors = {row.nemo: row.to_nemo(state[row.ours]) for row in rows}
    tensors["preprocessor.featurizer.window"] = torch.tensor(features.window)
    tensors["preprocessor.featurizer.fb"] = torch.tensor(features.mel_filters.T[None]).contiguous()
    return tensors


def _write(archive: Path, members: dict[str, bytes], tensors: dict[str, torch.Tensor]) -> None:
    """Write the archive, without times and owners; the weights are first written to a separate file."""
    weights = archive.parent / WEIGHTS
    size = sum(tensor.nbytes for tensor in tensors.values())
    bar: dict[str, Any] = {"desc": "weights", "disable": None, "leave": False}
    with weights.open("wb") as file, tqdm.wrapattr(file, "write", total=size, **bar) as counted:
        torch.save(tensors, counted)  # type: ignore[arg-type]  # PyTorch only calls its `write`
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar, weights.open("rb") as saved:
        for name, content in members.items():
            _add(tar, name, io.BytesIO(content), len(content))
        _add(tar, WEIGHTS, saved, weights.stat().st_size)


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(f"./{name}")  # as NeMo writes names
    member.size = size
    tar.addfile(member, content)
