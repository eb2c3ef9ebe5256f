"""Export a Transformers repository to ONNX graphs, with the files that other programs need to run them."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic, shape_inference
from tqdm.auto import tqdm

from citrinet import CitrinetFeatureExtractor, CitrinetForCTC
from citrinet.decoding_citrinet import WORD_BOUNDARY
from citrinet.feature_extraction_citrinet import LOG_GUARD
from citrinet.language_model.options import LANGUAGE_MODEL_FILE, find_language_model
from citrinet.recognition.onnx_folder import CONFIG, FRONT_END, NETWORK, TAG_HEADS, TAG_LABELS, VOCABULARY
from citrinet.transcript_citrinet import entity_types

from .hf_repository import Repository, read_repository
from .nemo_archive import ConversionError
from .onnx_graphs import add_metadata, write_front_end, write_network, write_tag_heads
from .output import FolderKind, Output
from .report import ConversionReport, count_parameters

DTYPES = ("float32", "float16", "int8")
MIN_OPSET = 18
# onnx-asr's model type for networks with NeMo's inputs and outputs and a CTC head.
_READERS_TYPE = "nemo-conformer-ctc"
_TOKENS = ("vocab.txt", "tokens.txt")  # onnx-asr's name for the list of tokens, and sherpa-onnx's
_EXPORTED = FolderKind(
    "an ONNX export",
    files=(
        FRONT_END,
        NETWORK,
        TAG_HEADS,
        CONFIG,
        VOCABULARY,
        TAG_LABELS,
        *_TOKENS,
        "tokenizer.model",
        LANGUAGE_MODEL_FILE,
    ),
    mark=(VOCABULARY, '"leading_boundaries"'),
)
# Disk space relative to the size of the network, including the quantizer's temporary files.
_ROOM = {"float32": 1.0, "float16": 0.5, "int8": 2.3}
_OTHER_FILES = 10_000_000  # maximum bytes of the other files


def export_onnx(
    model: str | Path, output: str | Path, *, dtype: str = "float32", opset: int = MIN_OPSET, force: bool = False
) -> ConversionReport:
    """
    Write a model as ONNX graphs into a folder, which appears only when it is complete.

    `frontend.onnx` computes features from waveforms, `model.onnx` log-probabilities and encoder output from features,
    `tag_classifier.onnx` the logits of the tag heads from the mean encoder output. Batch size and length are dynamic,
    and masks are part of the graphs: an utterance gives the same output alone and in a padded batch. The model's own
    language model, if any, is copied.

    Args:
        model: a converted or trained folder, or a Hub repository.
        output: the folder to write.
        dtype: `"float32"`; `"float16"`, with inputs and outputs in float32; or `"int8"`, in which the weights of matrix
            products are quantized per output channel, and their inputs dynamically over the whole batch.
        opset: ONNX opset, at least 18.
        force: whether to replace an earlier export in `output`; anything else there is never replaced.

    Returns:
        [`ConversionReport`].

    Raises:
        ConversionError: if the model is not a Citrinet, damaged or incomplete, or its values overflow in `dtype`.
        FileExistsError: if `output` exists and is not an earlier export, or `force` is not set.
        OSError: if the model cannot be found, `output` cannot be written, or the disk is full.
        ValueError: for an unsupported `dtype` or `opset`.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: use one of {', '.join(DTYPES)}.")
    if opset < MIN_OPSET:
        raise ValueError(f"opset {opset}: these graphs need {MIN_OPSET} or later.")
    place = Output(output, _EXPORTED, force=force, inputs=[model])
    repository = read_repository(str(model))
    network = repository.network
    place.require(round(_ROOM[dtype] * repository.size) + _OTHER_FILES)
    with place.complete() as folder:
        folder.mkdir()
        _write_descriptions(folder, repository)
        if (language_model := find_language_model(str(model))) is not None:
            shutil.copyfile(language_model, folder / LANGUAGE_MODEL_FILE)
        _write_graphs(folder, network, repository.features, dtype, opset)
        difference = _difference(folder / NETWORK, network)
    return ConversionReport(
        config=network.config,
        parameters=count_parameters(network),
        mapped=len(network.state_dict()),
        checked=[f"probabilities on noise equal PyTorch's within {difference:.1g}"],
        entities=entity_types(repository.tokenizer.get_vocab()),
        sampling_rate=repository.features.sampling_rate,
        output=place.path,
    )


def _write_graphs(
    folder: Path, network: CitrinetForCTC, features: CitrinetFeatureExtractor, dtype: str, opset: int
) -> None:
    steps: dict[str, Callable[[Path], None]] = {
        FRONT_END: lambda path: write_front_end(features, path, opset),
        NETWORK: lambda path: _write_network(network, path, dtype, opset),
    }
    if network.config.tag_labels:
        steps[TAG_HEADS] = lambda path: write_tag_heads(network, path, opset)
    with _quiet_exporter():
        for name, write in tqdm(steps.items(), desc="graphs", disable=None, leave=False):
            write(folder / name)
    add_metadata(folder / NETWORK, _metadata(network, dtype))


def _write_network(network: CitrinetForCTC, path: Path, dtype: str, opset: int) -> None:
    if dtype != "int8":
        write_network(network, path, opset, getattr(torch, dtype))
        return
    whole, prepared = path.with_suffix(".whole"), path.with_suffix(".prepared")
    write_network(network, whole, opset)
    shape_inference.quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
    # Seven bits (`reduce_range`): on CPUs without the newest instructions, sums of 8-bit products overflow.
    quantize_dynamic(
        prepared,
        path,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    whole.unlink()
    prepared.unlink()


def _write_descriptions(folder: Path, repository: Repository) -> None:
    """Write the files that programs without PyTorch read in addition to the graphs."""
    config, tokenizer = repository.network.config, repository.tokenizer
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(config.vocab_size - 1)))
    tokenizer_type = "char"
    if repository.sentencepiece_model is not None:
        (folder / "tokenizer.model").write_bytes(repository.sentencepiece_model)
        tokenizer_type = type(tokenizer.backend_tokenizer.model).__name__.lower()
    _write_json(folder / CONFIG, _description(repository.network, repository.features))
    _write_json(
        folder / VOCABULARY,
        {
            "vocabulary": vocabulary,
            "blank_id": config.pad_token_id,
            "tokenizer_type": tokenizer_type,
            "unknown_id": tokenizer.unk_token_id,
            "leading_boundaries": tokenizer.init_kwargs.get("leading_boundaries", "keep"),
        },
    )
    if config.tag_labels:
        categories = {
            category: {"num_classes": len(labels), "labels": labels}
            for category, labels in sorted(config.tag_labels.items())
        }
        classifier = {"categories": categories, "encoder_dim": config.hidden_size, "input_type": "pooled"}
        _write_json(folder / TAG_LABELS, classifier)
    lines = [f"{_one_word(token)} {index}\n" for index, token in enumerate([*vocabulary, "<blk>"])]
    for name in _TOKENS:
        (folder / name).write_text("".join(lines), encoding="utf-8", newline="\n")


def _description(network: CitrinetForCTC, features: CitrinetFeatureExtractor) -> dict[str, Any]:
    """Content of `config.json`."""
    rate = features.sampling_rate
    return {
        "model_type": _READERS_TYPE,
        "features_size": features.feature_size,
        "subsampling_factor": _subsampling(network),
        "confidence_temperature": network.config.confidence_temperature,
        "preprocessor": {
            "sample_rate": rate,
            "window_size": features.win_length / rate,
            "window_stride": features.hop_length / rate,
            "win_length": features.win_length,
            "hop_length": features.hop_length,
            "n_fft": features.n_fft,
            "features": features.feature_size,
            "lowfreq": 0,
            "highfreq": None,
            "preemph": features.preemphasis,
            "log": True,
            "log_zero_guard_type": "add",
            "log_zero_guard_value": LOG_GUARD,
            "normalize": "per_feature",
            "pad_to": features.pad_to_multiple_of,
            "dither": 0.0,
            "frontend": features.frontend,
        },
    }


def _metadata(network: CitrinetForCTC, dtype: str) -> dict[str, str]:
    """Metadata of the graph: the keys that sherpa-onnx reads, and the dtype of the weights."""
    return {
        "model_type": "EncDecCTCModelBPE",
        "vocab_size": str(network.config.vocab_size - 1),
        "subsampling_factor": str(_subsampling(network)),
        "normalize_type": "per_feature",
        "version": "1",
        "model_author": "citrinet",
        "dtype": dtype,
    }


def _subsampling(network: CitrinetForCTC) -> int:
    """Frames of features for each frame of logits."""
    ratio: int = network.config.inputs_to_logits_ratio // network.config.hop_length
    return ratio


def _one_word(token: str) -> str:
    """A token without spaces, for a file with space-separated columns."""
    return "".join(WORD_BOUNDARY if char.isspace() else char for char in token)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _difference(path: Path, network: CitrinetForCTC) -> float:
    """The largest difference in probabilities between the graph and PyTorch, on noise."""
    noise = np.random.default_rng(0).standard_normal((1, network.config.num_mel_bins, 96)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logprobs = session.run(["logprobs"], {"audio_signal": noise, "length": np.array([96])})[0]
    if not np.isfinite(logprobs).all():
        raise ConversionError("the graph gives infinite values or none: export it with another --dtype.")
    with torch.no_grad():
        network.float()  # type: ignore[no-untyped-call]
        expected = network(torch.from_numpy(noise).transpose(1, 2)).logits.softmax(dim=-1)
    return float(np.abs(np.exp(logprobs) - expected.numpy()).max())


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings, about missing packages and generated axis names."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
