"""Convert a NeMo Citrinet checkpoint to a complete Transformers repository."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from citrinet import CitrinetConfig, CitrinetFeatureExtractor, CitrinetForCTC, CitrinetProcessor, CitrinetTokenizer
from citrinet.tokenizer.building import build_tokenizer
from citrinet.transcript_citrinet import entity_types

from .hub import create_repository, upload
from .model_card import ORIGIN, write_model_card
from .nemo_archive import ConversionError, NemoArchive, parsing
from .nemo_config import (
    TAG_HEADS,
    Section,
    read_feature_extractor,
    read_network,
    read_tag_labels,
    read_tokenizer,
    read_vocabulary,
    refuse_other_models,
)
from .output import FolderKind, Output
from .report import ConversionReport, count_parameters
from .source import NemoSource, open_source
from .weight_map import Weight, weight_map

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_FEATURE_TOLERANCE = 1e-6
_OTHER_FILES = 1_000_000  # maximum bytes of a repository without its weights
_CONVERTED = FolderKind(
    "a converted model",
    files=(
        *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "README.md", "*_citrinet.py"),
        *("model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json"),
    ),
    mark=("README.md", ORIGIN),
)


@dataclass
class NemoModel:
    """
    The content of a `.nemo` file, checked.

    Args:
        model: the network in evaluation mode.
        tokenizer: its tokenizer.
        feature_extractor: its front end.
        sentencepiece_model: content of the tokenizer's file; `None` for a tokenizer of characters.
        report: report of the conversion.
    """

    model: CitrinetForCTC
    tokenizer: CitrinetTokenizer
    feature_extractor: CitrinetFeatureExtractor
    sentencepiece_model: bytes | None
    report: ConversionReport


def read_nemo(
    nemo_file: str | Path,
    *,
    frontend: str | None = None,
    tag_labels: str | Path | None = None,
    dtype: str = "float32",
    language: str | None = None,
    scratch: str | Path | None = None,
) -> NemoModel:
    """
    Read a `.nemo` file into memory; nothing in it is executed.

    Args:
        nemo_file: a Citrinet CTC checkpoint.
        frontend: see [`convert_nemo`].
        tag_labels: see [`convert_nemo`].
        dtype: see [`convert_nemo`].
        language: see [`convert_nemo`].
        scratch: folder for the unnamed temporary file that a compressed archive needs.

    Returns:
        [`NemoModel`].

    Raises:
        ConversionError: if the file is damaged, hostile, or not a model that can be represented exactly.
    """
    if dtype not in DTYPES:
        raise ConversionError(f"dtype {dtype!r}: use one of {', '.join(DTYPES)}.")
    if language is not None and not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*", language):
        raise ConversionError(f"language {language!r}: give an ISO code such as zh.")
    with NemoArchive(nemo_file, scratch) as archive:
        nemo = Section(archive.config())
        refuse_other_models(nemo)
        vocabulary = read_vocabulary(nemo)
        model_path, found_language = read_tokenizer(nemo)
        sentencepiece_model = archive.read(model_path) if model_path else None
        feature_extractor = read_feature_extractor(nemo, frontend)
        weights = archive.weights()
        checked = _check_features(weights, feature_extractor)
        config = read_network(nemo, vocabulary, read_tag_labels(nemo, _tag_heads(weights), vocabulary, tag_labels))
        model = _load(config, weights, DTYPES[dtype])
        with parsing("the tokenizer cannot be read"):
            tokenizer = build_tokenizer(vocabulary, sentencepiece_model)
        ignored = archive.ignored + archive.unread
    report = ConversionReport(
        config=config,
        parameters=count_parameters(model),
        mapped=len(model.state_dict()),
        ignored=ignored,
        checked=checked,
        entities=entity_types(vocabulary),
        sampling_rate=feature_extractor.sampling_rate,
        language=language or found_language,
    )
    return NemoModel(model, tokenizer, feature_extractor, sentencepiece_model, report)


def convert_nemo(
    model: str | Path,
    output: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    file: str | None = None,
    frontend: str | None = None,
    tag_labels: str | Path | None = None,
    dtype: str = "float32",
    language: str | None = None,
    force: bool = False,
    push_to_hub: str | None = None,
) -> ConversionReport:
    """
    Convert a `.nemo` file; nothing in it is executed, and the output appears only when it is complete.

    Args:
        model: a Citrinet CTC checkpoint: a `.nemo` file, its URL, or a Hub repository or folder with one.
        output: the folder to write.
        revision, token, file: see [`open_source`].
        frontend: NeMo version whose feature extraction the model was trained with: `"nemo-2.5"` (and later), or
            `"nemo-2.4"` (and earlier). By default the version that the file records, as those of [`export_nemo`] do
            but NeMo's do not, otherwise `"nemo-2.5"`.
        tag_labels: a JSON file `{"AGE": {"0": "NONE", "1": ...}}` (or lists) with the labels of the tag heads, for
            checkpoints whose vocabulary does not have them.
        dtype: dtype of the written weights, `"float32"`, `"float16"` or `"bfloat16"`.
        language: ISO code for the model card, by default that of an aggregate tokenizer or of the source's card.
        force: whether to replace an earlier conversion in `output`; anything else there is never replaced.
        push_to_hub: repository to upload the result to, `owner/name`.

    Returns:
        [`ConversionReport`].

    Raises:
        ConversionError: if the file is damaged, hostile, or not a model that can be represented exactly.
        FileExistsError: if `output` exists and is not an earlier conversion, or `force` is not set.
        OSError: if the model cannot be downloaded, `output` or the repository on the Hub cannot be written, or the disk
            is full.
        ValueError: if `push_to_hub` is not a valid name of a repository.
    """
    inputs = [path for path in (model, tag_labels) if path is not None and Path(path).exists()]
    place = Output(output, _CONVERTED, force=force, inputs=inputs)
    repository = create_repository(push_to_hub) if push_to_hub else None
    with open_source(model, revision=revision, token=token, file=file) as source, place.complete() as folder:
        nemo = read_nemo(
            source.path, frontend=frontend, tag_labels=tag_labels, dtype=dtype, language=language, scratch=folder.parent
        )
        place.require(sum(tensor.nbytes for tensor in nemo.model.state_dict().values()) + _OTHER_FILES)
        report = replace(nemo.report, output=place.path)
        _write(folder, nemo, report, source, repository or place.path.name)
    if repository:
        upload(place.path, repository)
    return report


def _write(folder: Path, nemo: NemoModel, report: ConversionReport, source: NemoSource, name: str) -> None:
    """Write the repository of a model from a source, with the given name."""
    folder.mkdir()
    # The processor also writes the feature extractor, but only this file records the front end version.
    nemo.feature_extractor.save_pretrained(folder)
    CitrinetProcessor(nemo.feature_extractor, nemo.tokenizer).save_pretrained(folder)
    if nemo.sentencepiece_model is not None:
        (folder / "tokenizer.model").write_bytes(nemo.sentencepiece_model)
    write_model_card(folder, report, source, name)
    nemo.model.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # created readable only by their owner, unlike the other files
        weights.chmod((folder / "config.json").stat().st_mode)


def _tag_heads(weights: dict[str, torch.Tensor]) -> dict[str, int]:
    """Find the tag heads: category -> number of outputs."""
    keys = [key for key in weights if key.startswith("tag_classifier.")]
    strange = [key for key in keys if not re.fullmatch(rf"{re.escape(TAG_HEADS)}[^.]+\.(weight|bias)", key)]
    if strange:
        raise ConversionError(
            f"the tag classifier holds {strange[0]!r}: only linear heads on the mean can be represented."
        )
    shapes = {key.split(".")[2]: weights[key].shape for key in keys}
    return {category: shape[0] if shape else 0 for category, shape in shapes.items()}


def _check_features(weights: dict[str, torch.Tensor], feature_extractor: CitrinetFeatureExtractor) -> list[str]:
    """Compare the filter bank and the window in the file with ours, and remove them from the weights."""
    ours = {"fb": feature_extractor.mel_filters.T, "window": feature_extractor.window}
    checked = []
    for name, values in ours.items():
        theirs = weights.pop(f"preprocessor.featurizer.{name}", None)
        if theirs is None:
            continue
        expected = torch.tensor(values)
        theirs = theirs.squeeze(0) if theirs.dim() > expected.dim() else theirs
        if theirs.shape != expected.shape or not theirs.is_floating_point():
            raise ConversionError(
                f"preprocessor.featurizer.{name} has another shape than ours: it is for other features."
            )
        tolerance = max(_FEATURE_TOLERANCE, torch.finfo(theirs.dtype).eps * expected.abs().max().item())
        difference = (theirs.double() - expected.double()).abs().max().item()
        if not difference <= tolerance:  # also refuses NaN
            raise ConversionError(
                f"preprocessor.featurizer.{name} differs from ours: the model was trained on other features."
            )
        checked.append(f"preprocessor.featurizer.{name} equals ours within {difference:.1g}")
    return checked


def _load(config: CitrinetConfig, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> CitrinetForCTC:
    """Make a model with the checkpoint's tensors; each must have a place in the network and the right shape."""
    parts = sum(config.num_repeats) + config.num_hidden_layers * len(config.adapters)
    if parts > len(weights):  # before making lists of a length that the file claims
        raise ConversionError(f"the configuration has {parts} layers, the file only {len(weights)} weights.")
    rows = weight_map(config)
    missing = [row.nemo for row in rows if row.nemo not in weights]
    if missing:
        raise ConversionError(f"{len(missing)} weights are missing, the first is {missing[0]!r}.")
    unknown = sorted(weights.keys() - {row.nemo for row in rows})
    if unknown:
        raise ConversionError(f"{len(unknown)} weights have no place in the network, the first is {unknown[0]!r}.")
    model = _empty_model(config)
    expected = model.state_dict()
    # Popped one by one, so that each converted copy replaces its original in memory.
    progress = tqdm(rows, desc="weights", disable=None, leave=False)
    state = {row.ours: _converted(row, weights.pop(row.nemo), expected[row.ours], dtype) for row in progress}
    model.load_state_dict(state, assign=True)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _empty_model(config: CitrinetConfig) -> CitrinetForCTC:
    """Make the network on the meta device, without memory for its weights."""
    try:
        with torch.device("meta"):
            return CitrinetForCTC(config)
    except KeyError as error:  # the name of an attribute of PyTorch's containers, such as `type`
        raise ConversionError(f"an adapter or tag category has a name that PyTorch does not allow: {error}") from error


def _converted(row: Weight, tensor: torch.Tensor, target: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Check a tensor, and convert it to the model's shape and dtype."""
    shape = row.to_nemo(target).shape
    if tensor.shape != shape:
        raise ConversionError(f"{row.nemo} has shape {tuple(tensor.shape)}, the configuration says {tuple(shape)}.")
    if tensor.is_floating_point() != target.is_floating_point():
        raise ConversionError(f"{row.nemo} holds numbers of type {tensor.dtype}.")
    if not torch.isfinite(tensor).all():
        raise ConversionError(f"{row.nemo} holds NaN or infinite values.")
    converted = row.to_ours(tensor).to(dtype if target.is_floating_point() else target.dtype).contiguous()
    if converted.dtype != tensor.dtype and not torch.isfinite(converted).all():
        raise ConversionError(f"{row.nemo} holds values too large for {dtype}: convert to another --dtype.")
    return converted
