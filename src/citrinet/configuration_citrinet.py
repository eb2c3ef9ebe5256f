"""The Citrinet configuration; block parameters are lists with one entry per block."""

import math
import re
from copy import deepcopy
from typing import Any

from transformers import PreTrainedConfig

# Where a repository with remote code has each class. The configuration holds the whole map, because saving a model or a
# Trainer checkpoint would otherwise write only the class being saved.
AUTO_MAP = {
    "AutoConfig": "configuration_citrinet.CitrinetConfig",
    "AutoModel": "modeling_citrinet.CitrinetModel",
    "AutoModelForCTC": "modeling_citrinet.CitrinetForCTC",
    "AutoFeatureExtractor": "feature_extraction_citrinet.CitrinetFeatureExtractor",
    "AutoTokenizer": [None, "tokenization_citrinet.CitrinetTokenizer"],
    "AutoProcessor": "processing_citrinet.CitrinetProcessor",
}
CUSTOM_PIPELINES = {
    "automatic-speech-recognition": {
        "impl": "pipeline_citrinet.CitrinetPipeline",
        "pt": ["AutoModelForCTC"],
        "type": "multimodal",
    }
}
IS_REMOTE_CODE = __name__.startswith("transformers_modules")

_GAMMA_KERNELS = [5, 3, 3, 3, 5, 5, 5, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7, 7, 9, 9, 9, 9, 11]
_BLOCKS = len(_GAMMA_KERNELS)
_ADAPTER_DEFAULTS = {"activation": "silu", "norm_position": "pre", "dropout": 0.0, "enabled": True}


class CitrinetConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    r"""
    Configuration of a [`CitrinetModel`]. The defaults give Citrinet-1024 with gamma 0.25, 23 blocks and no adapter.

    Source: *Citrinet: Closing the Gap between Non-Autoregressive and Autoregressive End-to-End Models for Automatic
    Speech Recognition* (arXiv:2104.01721); NeMo's `ConvASREncoder`, `ConvASRDecoder` and `LinearAdapter`.

    Args:
        vocab_size (`int`, defaults to 5001):
            Number of outputs of the CTC head, including the blank.
        num_mel_bins (`int`, defaults to 80):
            Number of mel bins of the input features.
        hop_length (`int`, defaults to 160):
            Number of audio samples between feature frames.
        hidden_sizes (`list[int]`, *optional*):
            Output channels of each block. NeMo: `filters`.
        num_repeats (`list[int]`, *optional*):
            Number of separable convolutions in each block. NeMo: `repeat`.
        kernel_sizes (`list[int]`, *optional*):
            Kernel size of each block's depthwise convolutions, with the gamma factor applied.
        strides (`list[int]`, *optional*):
            Stride of each block, applied by its last convolution. NeMo: `stride` with `stride_last`.
        residuals (`list[bool]`, *optional*):
            Whether each block has a residual branch, with the stride of the block. NeMo: `residual`, `stride_add`.
        dropouts (`list[float]`, *optional*):
            Dropout of each block.
        hidden_act (`str`, defaults to `"relu"`):
            Activation function inside and after each block.
        se_reduction_ratio (`int`, defaults to 8):
            Reduction ratio of the squeeze-excitation bottleneck.
        se_context_size (`int`, defaults to -1):
            Number of frames in the random window that the squeeze-excitation averages in training; -1 averages the
            whole utterance. In evaluation it always averages the whole utterance, as in NeMo.
        adapters (`list[dict]`, *optional*):
            Adapters of every block in the order in which they are applied, each
            `{"name", "dim", "activation", "norm_position": "pre" | "post", "dropout", "enabled"}`.
        tag_labels (`dict[str, list[str]]`, *optional*):
            Labels of each tag category, in the order of the head's outputs.
        pad_token_id (`int`, *optional*):
            Id of the CTC blank, which also serves as padding. Defaults to `vocab_size - 1`, as in NeMo.
        ctc_loss_reduction (`str`, defaults to `"mean_batch"`):
            `"mean_batch"` averages the utterances' losses over the batch, as NeMo does; `"mean"` and `"sum"` are
            those of `torch.nn.functional.ctc_loss`.
        ctc_zero_infinity (`bool`, defaults to `True`):
            Whether the loss of an utterance too short for its labels is zero instead of infinite.
        tag_loss_weight (`float`, defaults to 0.1):
            Weight of the tag loss, the mean cross-entropy over the tag categories, which is added to the CTC loss.
        freq_masks, freq_width (`int`, default to 0 and 27):
            SpecAugment, in training only: number of masked frequency bands, and their largest width in mel bins.
        time_masks (`int`, defaults to 0), time_width (`int` or `float`, defaults to 80):
            Number of masked time spans, and their largest width in frames; a `float` is a fraction of the utterance.
            All four are as in NeMo's `SpectrogramAugmentation`.
        confidence_temperature (`float`, defaults to 1.0):
            Temperature that divides the log-odds of a character's probability to give its confidence (Guo et al., "On
            Calibration of Modern Neural Networks", 2017, applied to right against wrong). It does not change the text;
            `citrinet evaluate --calibrate` finds it.

    Raises:
        ValueError: if the lists differ in length, a value is invalid, or an adapter name is used twice.
    """

    model_type = "citrinet"
    keys_to_ignore_at_inference = ["last_hidden_state", "hidden_states", "attention_mask"]

    def __init__(
        self,
        vocab_size: int = 5001,
        num_mel_bins: int = 80,
        hop_length: int = 160,
        hidden_sizes: list[int] | None = None,
        num_repeats: list[int] | None = None,
        kernel_sizes: list[int] | None = None,
        strides: list[int] | None = None,
        residuals: list[bool] | None = None,
        dropouts: list[float] | None = None,
        hidden_act: str = "relu",
        se_reduction_ratio: int = 8,
        se_context_size: int = -1,
        adapters: list[dict[str, Any]] | None = None,
        tag_labels: dict[str, list[str]] | None = None,
        pad_token_id: int | None = None,
        ctc_loss_reduction: str = "mean_batch",
        ctc_zero_infinity: bool = True,
        tag_loss_weight: float = 0.1,
        freq_masks: int = 0,
        freq_width: int = 27,
        time_masks: int = 0,
        time_width: int | float = 80,
        confidence_temperature: float = 1.0,
        **kwargs: Any,
    ):
        kwargs.pop("custom_pipelines", None)
        kwargs.pop("auto_map", None)
        self.vocab_size = vocab_size
        self.num_mel_bins = num_mel_bins
        self.hop_length = hop_length
        self.hidden_sizes = list(hidden_sizes or [1024] * _BLOCKS)
        self.num_repeats = list(num_repeats or [1] + [5] * (_BLOCKS - 2) + [1])
        self.kernel_sizes = list(kernel_sizes or _GAMMA_KERNELS)
        self.strides = list(strides or [2 if block in (1, 7, 14) else 1 for block in range(_BLOCKS)])
        self.residuals = list(residuals or [False] + [True] * (_BLOCKS - 2) + [False])
        self.dropouts = list(dropouts or [0.0] + [0.1] * (_BLOCKS - 2) + [0.0])
        self.hidden_act = hidden_act
        self.se_reduction_ratio = se_reduction_ratio
        self.se_context_size = se_context_size
        self.adapters: list[dict[str, Any]] = [_ADAPTER_DEFAULTS | adapter for adapter in adapters or []]
        self.tag_labels = deepcopy(tag_labels or {})
        self.ctc_loss_reduction = ctc_loss_reduction
        self.ctc_zero_infinity = ctc_zero_infinity
        self.tag_loss_weight = tag_loss_weight
        self.freq_masks = freq_masks
        self.freq_width = freq_width
        self.time_masks = time_masks
        self.time_width = time_width
        self.confidence_temperature = confidence_temperature
        self._check()
        super().__init__(**kwargs)
        self.pad_token_id = vocab_size - 1 if pad_token_id is None else pad_token_id
        self.auto_map = deepcopy(AUTO_MAP)
        if IS_REMOTE_CODE:
            # Only then should pipeline() take its class from the repository; an installed citrinet registers its own.
            # A copy, because pipeline() replaces the names with classes.
            self.custom_pipelines = deepcopy(CUSTOM_PIPELINES)

    @property
    def num_hidden_layers(self) -> int:
        """Number of blocks."""
        return len(self.hidden_sizes)

    @property
    def hidden_size(self) -> int:
        """Number of channels of the encoder output."""
        return self.hidden_sizes[-1]

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Number of audio samples per frame of logits, for CTC pipelines."""
        return self.hop_length * math.prod(self.strides)

    def to_dict(self) -> dict[str, Any]:
        """Serialise to a dictionary, with the pipeline class for users who load with remote code."""
        return super().to_dict() | {"custom_pipelines": deepcopy(CUSTOM_PIPELINES)}

    def _check(self) -> None:
        lists = ("num_repeats", "kernel_sizes", "strides", "residuals", "dropouts")
        for name in lists:
            if len(getattr(self, name)) != self.num_hidden_layers:
                raise ValueError(
                    f"`{name}` has {len(getattr(self, name))} entries for {self.num_hidden_layers} blocks: "
                    "give one entry for each block in `hidden_sizes`."
                )
        if any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernel_sizes):
            raise ValueError(f"`kernel_sizes` must be odd and positive, got {self.kernel_sizes}.")
        for name in ("hidden_sizes", "num_repeats", "strides"):
            if any(value < 1 for value in getattr(self, name)):
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if not 0 < self.confidence_temperature < math.inf:
            raise ValueError(f"`confidence_temperature` must be above 0, got {self.confidence_temperature}.")
        if self.ctc_loss_reduction not in ("mean_batch", "mean", "sum"):
            raise ValueError(f"`ctc_loss_reduction` is {self.ctc_loss_reduction!r}; use 'mean_batch', 'mean' or 'sum'.")
        names = [adapter["name"] for adapter in self.adapters]
        if len(set(names)) != len(names):
            raise ValueError(f"adapter names repeat: {names}.")
        for name in names + list(self.tag_labels):
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"{name!r} cannot name an adapter or tag category: use letters, digits, '_' and '-'.")
        for category, labels in self.tag_labels.items():
            if not isinstance(labels, (list, tuple)) or not all(isinstance(label, str) for label in labels):
                raise ValueError(f"`tag_labels`: the labels of {category} must be a list of strings, got {labels!r}.")
        for adapter in self.adapters:
            if adapter["norm_position"] not in ("pre", "post"):
                raise ValueError(f"adapter {adapter['name']!r}: `norm_position` must be 'pre' or 'post'.")


__all__ = ["CitrinetConfig"]
