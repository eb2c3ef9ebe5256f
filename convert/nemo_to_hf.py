"""A NeMo Citrinet checkpoint to a complete Transformers repository."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi
from tqdm.auto import tqdm

from citrinet import CitrinetConfig, CitrinetFeatureExtractor, CitrinetForCTC, CitrinetProcessor
from citrinet.tokenizer_building import build_tokenizer
from citrinet.transcript_citrinet import ENTITY_PREFIX, MARKER_PIECE, NONE

from .model_card import write_model_card
from .nemo_archive import ConversionError, NemoArchive
from .weight_map import weight_map

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TAG_HEADS = "tag_classifier."
_JUNK = re.compile(r"_(val_)?tag_labels|preprocessor\.featurizer\.(window|fb)|(loss|_wer|wer|spec_augmentation)\..*")
_ACTIVATIONS = {"swish": "silu", "silu": "silu", "relu": "relu", "gelu": "gelu"}
_MEL_TOLERANCE = 1e-6
# Languages that aggregate tokenizers were seen to call by name rather than by code.
_LANGUAGES = {"mandarin": "zh", "chinese": "zh", "english": "en", "hindi": "hi"}


@dataclass
class ConversionReport:
    """
    What a conversion did.

    Args:
        output: the repository.
        config: the configuration of the model.
        parameters: part of the network -> number of parameters.
        mapped: number of tensors taken over.
        ignored: tensors and settings of the file that say nothing about the network.
        checked: what of the file was compared with this implementation, and how far off it was.
        language: the language of the tokenizer, as an ISO code, where known.
    """

    output: Path
    config: CitrinetConfig
    parameters: dict[str, int]
    mapped: int
    ignored: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    language: str | None = None

    def __str__(self) -> str:
        config = self.config
        lines = [
            f"Citrinet: {config.num_hidden_layers} blocks, {config.hidden_size} channels, {config.vocab_size} outputs",
            *(f"  {part}: {count:,} parameters" for part, count in self.parameters.items()),
            f"mapped: {self.mapped} tensors",
            *(f"ignored: {item}" for item in self.ignored),
            *(f"checked: {item}" for item in self.checked),
            f"written: {self.output}",
        ]
        return "\n".join(lines)


def convert_nemo(
    nemo_file: str | Path,
    output: str | Path,
    *,
    frontend: str = "nemo-2.5",
    tag_labels: str | Path | None = None,
    dtype: str = "float32",
    language: str | None = None,
    force: bool = False,
    push_to_hub: str | None = None,
) -> ConversionReport:
    """
    Convert a `.nemo` file; nothing in it is executed, and the output appears only when it is complete.

    Args:
        nemo_file: a Citrinet CTC checkpoint.
        output: the folder to write.
        frontend: `"nemo-2.5"`, or `"nemo-2.4"` for the older arithmetic of the features. The file does not say which.
        tag_labels: a JSON file `{"AGE": {"0": "NONE", "1": ...}}` (or lists) with the labels of the tag heads, for
            checkpoints whose vocabulary does not hold them.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`, the type of the weights written.
        language: ISO code for the model card; found in aggregate tokenizers if not given.
        force: whether to replace an existing `output`.
        push_to_hub: a repository to upload the result to, `owner/name`.

    Returns:
        [`ConversionReport`].

    Raises:
        ConversionError: if the file is damaged, hostile, or not a model that can be represented exactly.
        FileExistsError: if `output` exists and `force` is not set.
    """
    output = Path(output)
    if dtype not in DTYPES:
        raise ConversionError(f"dtype {dtype!r}: use one of {', '.join(DTYPES)}.")
    with _replaced_when_complete(output, force) as folder, NemoArchive(nemo_file, scratch=folder) as archive:
        nemo_config = archive.config()
        weights = archive.weights()
        vocabulary, sentencepiece_model, found_language = _vocabulary(nemo_config, archive)
        config = _config(nemo_config, weights, vocabulary, _read_labels(tag_labels))
        feature_extractor = _feature_extractor(nemo_config, frontend)
        ignored, checked = _account(weights, feature_extractor)
        model = _load(config, weights)
        report = ConversionReport(
            output,
            config,
            _count_parameters(model),
            len(model.state_dict()),
            ignored,
            checked,
            language or found_language,
        )
        tokenizer = build_tokenizer(vocabulary, sentencepiece_model)
        model.to(DTYPES[dtype]).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        feature_extractor.save_pretrained(folder)
        CitrinetProcessor(feature_extractor, tokenizer).save_pretrained(folder)
        if sentencepiece_model is not None:
            (folder / "tokenizer.model").write_bytes(sentencepiece_model)
        write_model_card(folder, report, Path(nemo_file).name, output.name)
    if push_to_hub:
        api = HfApi()
        api.create_repo(push_to_hub, exist_ok=True)
        api.upload_folder(repo_id=push_to_hub, folder_path=output, commit_message="Convert from NeMo")
    return report


@contextmanager
def _replaced_when_complete(output: Path, force: bool) -> Iterator[Path]:
    """A folder beside `output` that takes its place when the block ends well, and is removed when it does not."""
    if output.exists() and not force:
        raise FileExistsError(f"{output} exists: choose another folder, or replace it with --force (force=True).")
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file: choose another folder.")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        complete = folder / "complete"
        complete.mkdir()
        yield complete
        if output.exists():
            output.rename(folder / "replaced")
        complete.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _vocabulary(nemo_config: dict, archive: NemoArchive) -> tuple[list[str], bytes | None, str | None]:
    """Tokens without the blank, the SentencePiece model if there is one, and the language if it is named."""
    decoder = _mapping(nemo_config, "decoder")
    vocabulary = decoder.get("vocabulary") or nemo_config.get("labels")
    if not isinstance(vocabulary, list) or not all(isinstance(token, str) for token in vocabulary):
        raise ConversionError("the configuration holds no `decoder.vocabulary` and no `labels`: the tokens are unknown.")
    tokenizer, language = nemo_config.get("tokenizer"), None
    if tokenizer is None:
        return vocabulary, None, None
    if isinstance(tokenizer, dict) and isinstance(tokenizer.get("langs"), dict):
        if len(tokenizer["langs"]) != 1:
            raise ConversionError(f"the tokenizer aggregates {len(tokenizer['langs'])} languages: only one can be read.")
        language, tokenizer = next(iter(tokenizer["langs"].items()))
        language = _LANGUAGES.get(str(language).lower(), str(language).lower())
        language = language if re.fullmatch("[a-z]{2,3}", language) else None
    path = tokenizer.get("model_path") if isinstance(tokenizer, dict) else None
    if not isinstance(path, str):
        raise ConversionError("the tokenizer names no SentencePiece model (`model_path`): other kinds cannot be read.")
    return vocabulary, archive.read(path.removeprefix("nemo:")), language


def _config(nemo: dict, weights: dict[str, torch.Tensor], vocabulary: list[str], label_map: dict | None) -> CitrinetConfig:
    """The network that NeMo's configuration describes; what it cannot be told is refused."""
    encoder, decoder = _mapping(nemo, "encoder"), _mapping(nemo, "decoder")
    _refuse_other_models(nemo, encoder, decoder)
    blocks = [_block(index, block) for index, block in enumerate(_list(encoder, "jasper"))]
    contexts = {block.pop("se_context_size") for block in blocks}
    reductions = {block.pop("se_reduction_ratio") for block in blocks}
    if len(contexts) != 1 or len(reductions) != 1:
        raise ConversionError("the blocks differ in `se_context_size` or `se_reduction_ratio`: that cannot be represented.")
    try:
        return CitrinetConfig(
            vocab_size=len(vocabulary) + 1,
            num_mel_bins=int(encoder.get("feat_in", 80)),
            hidden_act=_activation(encoder.get("activation", "relu")),
            se_context_size=contexts.pop(),
            se_reduction_ratio=reductions.pop(),
            adapters=_adapters(nemo.get("adapters")),
            tag_labels=_tag_labels(weights, vocabulary, label_map),
            **{name: [block[name] for block in blocks] for name in blocks[0]},
        )
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, ConversionError) else ConversionError(f"the configuration: {error}") from error


def _refuse_other_models(nemo: dict, encoder: dict, decoder: dict) -> None:
    kinds = {name: str(part.get("_target_", "")).rsplit(".", 1)[-1] for name, part in (("encoder", encoder), ("decoder", decoder))}
    for name, allowed in (("encoder", ("ConvASREncoder", "ConvASREncoderAdapter")), ("decoder", ("ConvASRDecoder",))):
        if kinds[name] not in allowed:
            raise ConversionError(f"the {name} is a {kinds[name] or 'nameless class'}: only Citrinet CTC models can be converted.")
    for name in ("joint", "joint_net", "aux_ctc", "rnnt"):
        if name in nemo:
            raise ConversionError(f"the configuration has `{name}`, so it is a transducer or hybrid, not a CTC model.")
    if not encoder.get("conv_mask", True):
        raise ConversionError("`encoder.conv_mask` is off: batched results would depend on padding.")


def _block(index: int, block: Any) -> dict[str, Any]:
    """One entry of NeMo's `jasper` list in our terms."""
    where = f"encoder.jasper[{index}]"
    if not isinstance(block, dict):
        raise ConversionError(f"{where} is not a mapping.")
    needed = {"separable": True, "se": True}
    unsupported = {"groups": 1, "heads": -1, "dense_residual": False, "residual_dense": False, "future_context": -1}
    unsupported |= {"normalization": "batch", "norm_groups": 1, "quantize": False, "layernorm": False, "tied": False}
    for name, value in (needed | unsupported).items():
        found = block.get(name, value if name in unsupported else None)
        if found != value:
            raise ConversionError(f"{where}: `{name}: {found}` is not supported, only `{name}: {value}`.")
    if _single(block, "dilation", where, 1) != 1:
        raise ConversionError(f"{where}: dilated convolutions are not supported.")
    repeats, stride = int(block.get("repeat", 1)), _single(block, "stride", where, 1)
    residual = bool(block.get("residual", False))
    if stride > 1 and repeats > 1 and not block.get("stride_last", False):
        raise ConversionError(f"{where}: a stride in every repeat is not supported, only `stride_last: true`.")
    if stride > 1 and residual and block.get("residual_mode", "add") != "stride_add":
        raise ConversionError(f"{where}: a residual beside a stride needs `residual_mode: stride_add`.")
    return {
        "hidden_sizes": int(block["filters"]),
        "num_repeats": repeats,
        "kernel_sizes": _effective_kernel(_single(block, "kernel", where), block.get("kernel_size_factor", 1.0)),
        "strides": stride,
        "residuals": residual,
        "dropouts": float(block.get("dropout", 0.0)),
        "se_context_size": int(block.get("se_context_size", block.get("se_context_window", -1))),
        "se_reduction_ratio": int(block.get("se_reduction_ratio", 8)),
    }


def _effective_kernel(kernel: int, factor: float) -> int:
    """The kernel after the gamma factor, made odd, as NeMo rounds it."""
    kernel = max(int(kernel * factor), 1)
    return kernel + 1 - kernel % 2


def _adapters(nemo_adapters: Any) -> list[dict[str, Any]]:
    """NeMo's `adapters`, in order; `global_cfg` is no adapter."""
    adapters = []
    for name, adapter in (nemo_adapters or {}).items():
        if name == "global_cfg":
            continue
        if not isinstance(adapter, dict) or not str(adapter.get("_target_", "")).endswith("LinearAdapter"):
            raise ConversionError(f"adapter {name!r} is not a LinearAdapter: it cannot be represented.")
        adapters.append(
            {
                "name": str(name),
                "dim": int(adapter["dim"]),
                "activation": _activation(adapter.get("activation", "swish")),
                "norm_position": adapter.get("norm_position", "pre"),
                "dropout": float(adapter.get("dropout", 0.0)),
                "enabled": bool(adapter.get("enabled", True)),
            }
        )
    return adapters


def _tag_labels(weights: dict[str, torch.Tensor], vocabulary: list[str], label_map: dict | None) -> dict[str, list[str]]:
    """Labels of every tag head, from the label map or rebuilt from the vocabulary, checked against the head's rows."""
    keys = [key for key in weights if key.startswith(TAG_HEADS)]
    strange = [key for key in keys if not re.fullmatch(r"tag_classifier\.heads\.[^.]+\.(weight|bias)", key)]
    if strange:
        raise ConversionError(f"the tag classifier holds {strange[0]!r}: only linear heads on the mean can be represented.")
    categories = sorted({key.split(".")[2] for key in keys})
    if label_map is not None and sorted(label_map) != categories:
        raise ConversionError(f"the label map is for {sorted(label_map)}, the checkpoint has heads for {categories}.")
    labels = {}
    for category in categories:
        names = label_map[category] if label_map is not None else _labels_in(vocabulary, category)
        rows = len(weights.get(f"{TAG_HEADS}heads.{category}.bias", ()))
        if len(names) != rows:
            raise ConversionError(
                f"the {category} head has {rows} outputs but {len(names)} labels are known ({', '.join(names[:6])}): "
                "give the labels in a file with --tag-labels."
            )
        labels[category] = names
    return labels


def _labels_in(vocabulary: list[str], category: str) -> list[str]:
    """NONE, then the category's labels in the vocabulary, sorted as strings: the order that training used."""
    pieces = {token.lstrip("▁") for token in vocabulary}
    return [NONE, *sorted(piece for piece in pieces if piece.startswith(f"{category}_"))]


def _read_labels(path: str | Path | None) -> dict[str, list[str]] | None:
    """Read a label map: category -> labels, or category -> {index: label}."""
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            category: list(labels) if isinstance(labels, list) else [labels[str(i)] for i in range(len(labels))]
            for category, labels in content.items()
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ConversionError(
            f'{path}: a label map must be JSON like {{"AGE": {{"0": "NONE", "1": "AGE_14_25"}}}} ({error!r}).'
        ) from error


def _feature_extractor(nemo: dict, frontend: str) -> CitrinetFeatureExtractor:
    """NeMo's `preprocessor`, where it asks for what Citrinet was trained with."""
    settings = _mapping(nemo, "preprocessor")
    rate = int(settings.get("sample_rate", 16000))
    fixed = {
        "normalize": "per_feature",
        "window": "hann",
        "log": True,
        "log_zero_guard_type": "add",
        "log_zero_guard_value": 2**-24,
        "frame_splicing": 1,
        "mag_power": 2.0,
        "lowfreq": 0,
        "mel_norm": "slaney",
        "exact_pad": False,
        "stft_exact_pad": False,
    }
    for name, value in fixed.items():
        if settings.get(name, value) != value:
            raise ConversionError(f"preprocessor: `{name}: {settings[name]}` is not supported, only `{name}: {value}`.")
    if settings.get("highfreq") not in (None, 0, rate / 2):
        raise ConversionError(f"preprocessor: `highfreq: {settings['highfreq']}` is not supported, only half the rate.")
    try:
        return CitrinetFeatureExtractor(
            feature_size=int(settings.get("features", 80)),
            sampling_rate=rate,
            hop_length=int(settings.get("n_window_stride") or settings.get("window_stride", 0.01) * rate),
            win_length=int(settings.get("n_window_size") or settings.get("window_size", 0.025) * rate),
            n_fft=int(settings.get("n_fft") or 512),
            preemphasis=float(settings.get("preemph", 0.97) or 0.0),
            frontend=frontend,
        )
    except (TypeError, ValueError) as error:
        raise ConversionError(f"preprocessor: {error}") from error


def _account(weights: dict[str, torch.Tensor], feature_extractor) -> tuple[list[str], list[str]]:
    """Take out tensors that say nothing about the network, and check the ones that say how features are made."""
    ignored, checked = [], []
    ours = {
        "preprocessor.featurizer.fb": feature_extractor.mel_filters.T,
        "preprocessor.featurizer.window": feature_extractor.window,
    }
    for key in [key for key in weights if _JUNK.fullmatch(key)]:
        tensor = weights.pop(key)
        if key not in ours:
            ignored.append(key)
            continue
        theirs = tensor.float().squeeze(0).numpy()
        if theirs.shape != ours[key].shape or np.abs(theirs - ours[key]).max() > _MEL_TOLERANCE:
            raise ConversionError(f"{key} differs from ours: the model was trained on other features.")
        checked.append(f"{key} equals ours within {np.abs(theirs - ours[key]).max():.1g}")
    return ignored, checked


def _load(config: CitrinetConfig, weights: dict[str, torch.Tensor]) -> CitrinetForCTC:
    """A model with the checkpoint's tensors, every one of which must have its place and its shape."""
    with torch.device("meta"):
        model = CitrinetForCTC(config)
    expected = model.state_dict()
    state: dict[str, torch.Tensor] = {}
    rows = weight_map(config)
    missing = [row.nemo for row in rows if row.nemo not in weights]
    if missing:
        raise ConversionError(f"{len(missing)} weights are missing, the first is {missing[0]!r}.")
    unknown = sorted(weights.keys() - {row.nemo for row in rows})
    if unknown:
        raise ConversionError(f"{len(unknown)} weights have no place in the network, the first is {unknown[0]!r}.")
    for row in tqdm(rows, desc="weights", disable=None, leave=False):
        tensor = weights.pop(row.nemo)
        target = expected[row.ours]
        if tensor.shape != row.to_nemo(target).shape:
            raise ConversionError(
                f"{row.nemo} has shape {tuple(tensor.shape)}, the configuration says {tuple(row.to_nemo(target).shape)}."
            )
        if tensor.is_floating_point() != target.is_floating_point() or tensor.is_complex():
            raise ConversionError(f"{row.nemo} is of type {tensor.dtype}.")
        if not torch.isfinite(tensor).all():
            raise ConversionError(f"{row.nemo} holds NaN or infinite values.")
        state[row.ours] = row.to_ours(tensor).to(target.dtype).contiguous()
    model.load_state_dict(state, assign=True)
    return model.eval()


def _count_parameters(model: CitrinetForCTC) -> dict[str, int]:
    parts = {"encoder": 0, "adapters": 0, "CTC head": 0, "tag heads": 0}
    for name, parameter in model.named_parameters():
        top = name.split(".")[0]
        part = {"ctc_head": "CTC head", "tag_heads": "tag heads"}.get(top, "adapters" if ".adapters." in name else "encoder")
        parts[part] += parameter.numel()
    return {**{part: count for part, count in parts.items() if count}, "total": sum(parts.values())}


def _activation(name: Any) -> str:
    if name not in _ACTIVATIONS:
        raise ConversionError(f"activation {name!r} is not supported, only {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]


def _mapping(config: dict, name: str) -> dict:
    value = config.get(name)
    if not isinstance(value, dict):
        raise ConversionError(f"the configuration has no `{name}`: this is not a NeMo speech recogniser.")
    return value


def _list(config: dict, name: str) -> list:
    value = config.get(name)
    if not isinstance(value, list) or not value:
        raise ConversionError(f"the configuration has no `{name}` list: the encoder is not a Citrinet.")
    return value


def _single(block: dict, name: str, where: str, default: int | None = None) -> int:
    """NeMo writes kernel, stride and dilation as lists of one number."""
    value = block.get(name, default)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(value, int):
        raise ConversionError(f"{where}: `{name}: {value}` is not a number.")
    return value
