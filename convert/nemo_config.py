"""Translate NeMo's `model_config.yaml`. It is not trusted: every value is checked before it is used."""

import json
import re
import reprlib
from pathlib import Path
from typing import Any

from citrinet import CitrinetConfig, CitrinetFeatureExtractor
from citrinet.feature_extraction_citrinet import FRONTENDS
from citrinet.transcript_citrinet import NONE

from .nemo_archive import ConversionError

TAG_HEADS = "tag_classifier.heads."
OURS = "citrinet"  # the section for settings that NeMo does not have
MAX_NUMBER = 1_000_000
_MAX_FFT = 1 << 14
_MAX_FEATURES = 1024
_MAX_TOKEN = 200  # characters

ACTIVATIONS = {"swish": "silu", "silu": "silu", "relu": "relu", "gelu": "gelu"}
# Settings that Citrinet leaves at NeMo's default: with another value the network or its features would differ.
_FIXED_IN_ENCODER = {"activation": "relu", "normalization_mode": "batch", "frame_splicing": 1, "quantize": False}
_FIXED_IN_BLOCK = {"separable": True, "se": True, "groups": 1, "heads": -1, "residual_dense": False}
_FIXED_IN_PREPROCESSOR = {
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
    "use_torchaudio": False,
}
# Languages that some aggregate tokenizers give by name instead of code.
_LANGUAGES = {"mandarin": "zh", "chinese": "zh", "english": "en", "hindi": "hi"}
_REQUIRED: Any = object()


class Section:
    """
    A mapping in the configuration. Values of the wrong kind raise a [`ConversionError`]; null counts as absent.

    Args:
        values: the mapping.
        name: its path in the configuration, `""` for the whole.
    """

    def __init__(self, values: Any, name: str = ""):
        if not isinstance(values, dict):
            raise ConversionError(f"`{name}` of the configuration should be a mapping, not {reprlib.repr(values)}.")
        self.values = values
        self.name = name

    def section(self, name: str) -> "Section":
        """Get a section of this one; empty if absent."""
        return Section(self._get(name, {}), self._path(name))

    def items(self, name: str) -> list[Any]:
        """Get a list; empty if absent."""
        value = self._get(name, [])
        return value if isinstance(value, list) else self._refuse(name, "a list")

    def text(self, name: str, default: str = "") -> str:
        """Get a string."""
        value = self._get(name, default)
        return value if isinstance(value, str) else self._refuse(name, "a string")

    def flag(self, name: str, default: bool = False) -> bool:
        """Get a boolean."""
        value = self._get(name, default)
        return value if isinstance(value, bool) else self._refuse(name, "true or false")

    def whole(self, name: str, default: int = _REQUIRED, low: int = 1, high: int = MAX_NUMBER) -> int:
        """Get an integer, or the one element of a list, as NeMo writes kernels and strides."""
        value = self._get(name, default)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return int(value) if fits else self._refuse(name, f"a whole number of {low} to {high}")

    def number(self, name: str, default: float, high: float) -> float:
        """Get a number from 0 to `high`."""
        value = self._get(name, default)
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= high
        return float(value) if fits else self._refuse(name, f"a number of 0 to {high:g}")

    def require(self, name: str, value: Any, default: Any = None) -> None:
        """Refuse any other value than this one; `default` is NeMo's default, `None` if it is this value."""
        found = self.values.get(name, value if default is None else default)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            self._refuse(name, repr(value))

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def _path(self, name: str) -> str:
        return f"{self.name}.{name}" if self.name else name

    def _refuse(self, name: str, expected: str) -> Any:
        if self.values.get(name) is None:
            raise ConversionError(f"the configuration lacks `{self._path(name)}`, which should be {expected}.")
        raise ConversionError(
            f"`{self._path(name)}` is {reprlib.repr(self.values[name])}, which is not supported: only {expected} is."
        )


def refuse_other_models(nemo: Section) -> None:
    """Refuse models other than a Citrinet with a CTC head, by the classes that the configuration names."""
    for name in ("joint", "joint_net", "aux_ctc", "rnnt_decoder", "transf_decoder"):
        if nemo.values.get(name) is not None:
            raise ConversionError(f"the configuration has `{name}`: only CTC models can be converted, no transducers.")
    for name, allowed in (("encoder", ("ConvASREncoder", "ConvASREncoderAdapter")), ("decoder", ("ConvASRDecoder",))):
        kind = nemo.section(name).text("_target_").rsplit(".", 1)[-1]
        if kind not in allowed:
            raise ConversionError(
                f"the {name} is a {kind or 'nameless class'}: only Citrinet CTC models can be converted."
            )


def read_network(nemo: Section, vocabulary: list[str], tag_labels: dict[str, list[str]]) -> CitrinetConfig:
    """Read the configuration of the network; settings that [`CitrinetConfig`] cannot express are refused."""
    encoder = nemo.section("encoder")
    for name, value in _FIXED_IN_ENCODER.items():
        encoder.require(name, value)
    if not encoder.flag("conv_mask", True):
        raise ConversionError("`encoder.conv_mask` is off: batched results would depend on padding.")
    blocks = [Section(block, f"encoder.jasper[{i}]") for i, block in enumerate(encoder.items("jasper"))]
    if not blocks:
        raise ConversionError("the configuration has no `encoder.jasper` list: the encoder is no Citrinet.")
    described: list[dict[str, Any]] = []
    residual_mode = encoder.text("residual_mode", "add")
    for block in blocks:
        residual_mode = block.text("residual_mode", residual_mode)  # in NeMo it also applies to the blocks that follow
        described.append(_block(block, residual_mode))
    contexts = {block.pop("se_context_size") for block in described}
    reductions = {block.pop("se_reduction_ratio") for block in described}
    if len(contexts) != 1 or len(reductions) != 1:
        raise ConversionError(
            "the blocks differ in `se_context_size` or `se_reduction_ratio`: that cannot be represented."
        )
    lists: dict[str, Any] = {name: [block[name] for block in described] for name in described[0]}
    preprocessor = nemo.section("preprocessor")
    try:
        return CitrinetConfig(
            vocab_size=len(vocabulary) + 1,
            num_mel_bins=encoder.whole("feat_in"),
            hop_length=_samples(preprocessor, "stride", 0.01),
            se_context_size=contexts.pop(),
            se_reduction_ratio=reductions.pop(),
            adapters=_adapters(nemo.section("adapters")),
            tag_labels=tag_labels,
            **lists,
        )
    except ConversionError:
        raise
    except ValueError as error:
        raise ConversionError(f"the configuration: {error}") from error


def _block(block: Section, residual_mode: str) -> dict[str, Any]:
    """Translate an entry of NeMo's `jasper` list."""
    for name, value in _FIXED_IN_BLOCK.items():
        block.require(name, value, default=False if value is True else None)
    if block.whole("dilation", 1) != 1:
        raise ConversionError(f"`{block.name}.dilation`: dilated convolutions cannot be represented.")
    repeats, stride, residual = block.whole("repeat"), block.whole("stride"), block.flag("residual")
    if stride > 1 and repeats > 1 and not block.flag("stride_last"):
        raise ConversionError(f"`{block.name}` strides in every repeat: only `stride_last: true` can be represented.")
    if residual and residual_mode not in (("add", "stride_add") if stride == 1 else ("stride_add",)):
        raise ConversionError(
            f"`{block.name}` has `residual_mode: {residual_mode}`: only `stride_add` can be represented."
        )
    kernel = _effective_kernel(block.whole("kernel"), block.number("kernel_size_factor", 1.0, high=1000))
    future = block.whole("future_context", -1, low=-MAX_NUMBER)
    # NeMo pads evenly when it is negative or not less than the kernel.
    if 0 <= future < kernel and future != kernel // 2:
        raise ConversionError(f"`{block.name}.future_context` is {future}: only even padding can be represented.")
    return {
        "hidden_sizes": block.whole("filters"),
        "num_repeats": repeats,
        "kernel_sizes": kernel,
        "strides": stride,
        "residuals": residual,
        "dropouts": block.number("dropout", 0.0, high=1),
        "se_context_size": block.whole("se_context_size", block.whole("se_context_window", -1, low=-1), low=-1),
        "se_reduction_ratio": block.whole("se_reduction_ratio", 8),
    }


def _effective_kernel(kernel: int, factor: float) -> int:
    """The kernel size times the gamma factor, rounded to an odd number as in NeMo."""
    kernel = max(int(kernel * factor), 1)
    return kernel + 1 - kernel % 2


def _adapters(nemo: Section) -> list[dict[str, Any]]:
    """Translate NeMo's `adapters`, in order; `global_cfg` is not an adapter."""
    adapters = []
    for name in nemo.values:
        if name == "global_cfg":
            continue
        adapter = nemo.section(name)
        kind, strategy = adapter.text("_target_"), adapter.section("adapter_strategy").text("_target_")
        if not kind.endswith(".LinearAdapter"):
            raise ConversionError(f"adapter {name!r} is a {kind!r}: only a LinearAdapter can be represented.")
        if strategy and not strategy.endswith(".ResidualAddAdapterStrategy"):
            raise ConversionError(
                f"adapter {name!r} has the strategy {strategy!r}: only residual addition can be represented."
            )
        activation = adapter.text("activation", "swish")
        if activation not in ACTIVATIONS:
            raise ConversionError(
                f"adapter {name!r} has the activation {activation!r}: use one of {', '.join(ACTIVATIONS)}."
            )
        adapters.append(
            {
                "name": str(name),
                "dim": adapter.whole("dim"),
                "activation": ACTIVATIONS[activation],
                "norm_position": adapter.text("norm_position", "pre"),
                "dropout": adapter.number("dropout", 0.0, high=1),
                "enabled": adapter.flag("enabled", True),
            }
        )
    return adapters


def read_vocabulary(nemo: Section) -> list[str]:
    """Read the tokens in the order of the CTC head's outputs, without the blank."""
    vocabulary = nemo.section("decoder").items("vocabulary") or nemo.items("labels")
    if not vocabulary:
        raise ConversionError(
            "the configuration has neither `decoder.vocabulary` nor `labels`: the tokens are unknown."
        )
    for token in vocabulary:
        if not isinstance(token, str) or not 0 < len(token) <= _MAX_TOKEN:
            raise ConversionError(f"the vocabulary holds {reprlib.repr(token)}, which is no token.")
    if len(set(vocabulary)) != len(vocabulary):
        raise ConversionError("the vocabulary holds a token twice: it cannot be told which is meant.")
    return vocabulary


def read_tokenizer(nemo: Section) -> tuple[str | None, str | None]:
    """Name of the member with the SentencePiece model, `None` for characters, and the language if given."""
    tokenizer, language = nemo.section("tokenizer"), None
    if not tokenizer.values:
        return None, None
    languages = tokenizer.section("langs")
    if languages.values:
        if len(languages.values) != 1:
            raise ConversionError(f"the tokenizer aggregates {len(languages.values)} languages: only one can be read.")
        language = next(iter(languages.values))
        tokenizer = languages.section(language)
        language = _LANGUAGES.get(str(language).lower(), str(language).lower())
        language = language if re.fullmatch("[a-z]{2,3}", language) else None
    kind, path = tokenizer.text("type", "bpe"), tokenizer.text("model_path").removeprefix("nemo:")
    if kind != "bpe" or not path:
        raise ConversionError(
            f"the tokenizer (of type {kind!r}) names no SentencePiece model, the only kind to be read."
        )
    return path, language


def read_tag_labels(
    nemo: Section, heads: dict[str, int], vocabulary: list[str], label_map: str | Path | None
) -> dict[str, list[str]]:
    """
    Read the labels of every tag head, in the order of its outputs.

    Args:
        nemo: the configuration.
        heads: category -> number of outputs.
        vocabulary: the tokens, from which training derived the labels.
        label_map: a file with the labels, for checkpoints where that is not the case.

    Returns:
        category -> labels, sorted by category.
    """
    given = None if label_map is None else _read_label_map(label_map)
    if given is not None and sorted(given) != sorted(heads):
        raise ConversionError(f"{label_map} is for {sorted(given)}, the checkpoint has heads for {sorted(heads)}.")
    stated = nemo.section("tag_classifier").section("categories").values if given is None else {}
    labels = {}
    for category, outputs in sorted(heads.items()):
        if given is not None:
            labels[category] = given[category]
        elif category in stated:
            labels[category] = _labels(stated[category], f"`tag_classifier.categories.{category}`")
        else:
            labels[category] = _labels_in(vocabulary, category)
        if len(labels[category]) != outputs:
            raise ConversionError(
                f"the {category} head has {outputs} outputs but {len(labels[category])} labels are known "
                f"({', '.join(labels[category][:6])}): give the right ones in a file with --tag-labels."
            )
    return labels


def _labels_in(vocabulary: list[str], category: str) -> list[str]:
    """NONE, then the category's labels in the vocabulary, sorted as strings, which is the order in training."""
    pieces = {token.lstrip("▁") for token in vocabulary}
    return [NONE, *sorted(piece for piece in pieces if piece.startswith(f"{category}_"))]


def _read_label_map(path: str | Path) -> dict[str, list[str]]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConversionError(f'{path}: a label map looks like {{"AGE": {{"0": "NONE", "1": "AGE_14_25"}}}}.')
    return {category: _labels(labels, f"{path}: {category}") for category, labels in content.items()}


def _labels(content: Any, where: str) -> list[str]:
    """Labels from a list, or from a mapping of index to label."""
    if isinstance(content, dict):
        content = [content.get(str(index), content.get(index)) for index in range(len(content))]
    if not isinstance(content, list) or not all(isinstance(label, str) and label for label in content):
        raise ConversionError(f"{where} should be a list of labels, or a mapping of 0, 1, ... to labels.")
    if len(set(content)) != len(content):
        raise ConversionError(f"{where} names a label twice.")
    return content


def read_feature_extractor(nemo: Section, frontend: str | None) -> CitrinetFeatureExtractor:
    """Make the feature extractor from NeMo's `preprocessor`; see `convert_nemo` for `frontend`."""
    settings = nemo.section("preprocessor")
    kind = settings.text("_target_")
    if not kind.endswith("AudioToMelSpectrogramPreprocessor"):
        raise ConversionError(
            f"the preprocessor is a {kind or 'nameless class'}: only log-mel features can be computed."
        )
    for name, value in _FIXED_IN_PREPROCESSOR.items():
        settings.require(name, value)
    rate, features = settings.whole("sample_rate", 16000, low=1000), settings.whole("features", 64, high=_MAX_FEATURES)
    if settings.values.get("highfreq") not in (None, 0, rate / 2):
        settings.require("highfreq", rate / 2)
    if features != nemo.section("encoder").whole("feat_in"):
        raise ConversionError(
            f"the preprocessor makes {features} features, the encoder takes another number (`feat_in`)."
        )
    window = _samples(settings, "size", 0.02)
    n_fft = settings.whole("n_fft", 1 << (window - 1).bit_length(), low=window, high=_MAX_FFT)
    preemphasis = settings.number("preemph", 0.97, high=1) if settings.values.get("preemph", 0.97) is not None else 0.0
    try:
        return CitrinetFeatureExtractor(
            feature_size=features,
            sampling_rate=rate,
            hop_length=_samples(settings, "stride", 0.01),
            win_length=window,
            n_fft=n_fft,
            preemphasis=preemphasis,
            frontend=frontend or nemo.section(OURS).text("frontend", FRONTENDS[0]),
        )
    except ValueError as error:
        raise ConversionError(f"the preprocessor: {error}") from error


def _samples(preprocessor: Section, what: str, default: float) -> int:
    """Size or stride of the window in samples; NeMo gives it in seconds or in samples."""
    seconds = preprocessor.number(f"window_{what}", 0.0, high=1)
    if not seconds and preprocessor.values.get(f"n_window_{what}"):
        return preprocessor.whole(f"n_window_{what}", high=_MAX_FFT)
    samples = int((seconds or default) * preprocessor.whole("sample_rate", 16000))
    if not 0 < samples <= _MAX_FFT:
        raise ConversionError(f"`preprocessor.window_{what}` is {samples} samples, which makes no features.")
    return samples
