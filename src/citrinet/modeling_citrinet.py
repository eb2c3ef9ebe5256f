"""
The Citrinet network in PyTorch, from layers to heads. Hidden states are always (B, T, C).

Source: *Citrinet* (arXiv:2104.01721) and NeMo's `ConvASREncoder`, `JasperBlock`, `SqueezeExcite`, `LinearAdapter` and
`ConvASRDecoder`, whose outputs this module reproduces.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput

from .adapters_citrinet import CitrinetAdapter, CitrinetAdapterMixin
from .configuration_citrinet import CitrinetConfig

if TYPE_CHECKING:  # saving a model copies the modules that it imports; all that its configuration names must be here
    from .feature_extraction_citrinet import CitrinetFeatureExtractor  # noqa: F401
    from .pipeline_citrinet import CitrinetPipeline  # noqa: F401
    from .processing_citrinet import CitrinetProcessor  # noqa: F401
    from .tokenization_citrinet import CitrinetTokenizer  # noqa: F401

BATCH_NORM_EPS = 1e-3
_SPEECH_ARGUMENTS = ("language", "task", "return_timestamps", "tokenizer")  # of `generate` in Whisper and others


@dataclass
class CitrinetModelOutput(ModelOutput):
    """
    Output of [`CitrinetModel`].

    Args:
        last_hidden_state: (B, T', C), the encoder output; frames outside `attention_mask` are meaningless.
        attention_mask: (B, T') bool, True at valid frames.
        hidden_states: input features and the output of every block, with `output_hidden_states`.
    """

    last_hidden_state: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class CitrinetCTCOutput(ModelOutput):
    """
    Output of [`CitrinetForCTC`].

    Args:
        loss: CTC loss plus the weighted tag loss, if labels were given.
        logits: (B, T', V), before log-softmax; in evaluation frames outside `attention_mask` predict the blank.
        tag_logits: category -> (B, n), before softmax.
        last_hidden_state: (B, T', C), the encoder output.
        attention_mask: (B, T') bool, True at valid frames.
        hidden_states: input features and the output of every block, with `output_hidden_states`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    tag_logits: dict[str, torch.Tensor] | None = None
    last_hidden_state: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class CitrinetGenerateOutput(ModelOutput):
    """
    Output of [`CitrinetForCTC.generate`] with `return_dict_in_generate`.

    Args:
        sequences: (B, T') token ids, blank at padded frames.
        logits: (B, T', V).
    """

    sequences: torch.Tensor | None = None
    logits: torch.Tensor | None = None


def masked_mean(hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over valid frames in float32: (B, T, C), (B, T) -> (B, C). Zero if there are no valid frames."""
    if mask is None:
        return hidden_states.mean(dim=1, dtype=torch.float32)
    total = hidden_states.masked_fill(~mask[..., None], 0.0).sum(dim=1, dtype=torch.float32)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def with_spare_rows(rows: torch.Tensor) -> torch.Tensor:
    """
    Append 16 rows of zeros: (B, C) -> (B + 16, C).

    Matrix libraries use different kernels, with different rounding, for few rows and for many. With the extra rows they
    always use the second, so that an utterance gives the same bits alone and in a batch.
    """
    return F.pad(rows, (0, 0, 0, 16))


def blank_padding(scores: torch.Tensor, mask: torch.Tensor, blank: int) -> torch.Tensor:
    """
    Make frames outside the mask predict the blank, so that callers who ignore the mask decode nothing from them.

    Args:
        scores: (B, T', V) logits or log-probabilities.
        mask: (B, T') bool, True at valid frames.
        blank: id of the blank.

    Returns:
        (B, T', V).
    """
    is_blank = torch.arange(scores.shape[-1], device=scores.device) == blank
    padding = scores.new_full((scores.shape[-1],), torch.finfo(scores.dtype).min).masked_fill(is_blank, 0.0)
    return torch.where(mask[..., None], scores, padding)


def ctc_loss(
    logits: torch.Tensor,
    frame_lengths: torch.Tensor,
    labels: torch.Tensor,
    label_lengths: torch.Tensor,
    blank: int,
    reduction: str,
    zero_infinity: bool,
) -> torch.Tensor:
    """
    CTC loss in float32.

    Args:
        logits: (B, T', V), before log-softmax.
        frame_lengths: (B,).
        labels: (B, L) padded, or (sum of the lengths,).
        label_lengths: (B,).
        blank: id of the blank.
        reduction: `"mean_batch"`, the sum divided by B, or a value for [`torch.nn.functional.ctc_loss`].
        zero_infinity: whether the loss of an utterance too short for its labels is zero.

    Returns:
        () float32.
    """
    loss = F.ctc_loss(
        F.log_softmax(logits, dim=-1, dtype=torch.float32).transpose(0, 1),
        labels,
        frame_lengths,
        label_lengths,
        blank=blank,
        reduction="sum" if reduction == "mean_batch" else reduction,
        zero_infinity=zero_infinity,
    )
    return loss / logits.shape[0] if reduction == "mean_batch" else loss


def refuse_unknown_arguments(caller: str, names: Iterable[str]) -> None:
    """
    Refuse arguments that `generate` does not have; those it has are accepted although CTC does not use them.

    Args:
        caller: name of the called function, for the message.
        names: names of the arguments.

    Raises:
        TypeError: for the first argument that Transformers' `generate` does not have.
    """
    names = list(names)
    if not names:
        return
    settings = vars(GenerationConfig())  # type: ignore[no-untyped-call]
    known = {*settings, *inspect.signature(GenerationMixin.generate).parameters, *_SPEECH_ARGUMENTS}
    if unknown := [name for name in names if name not in known]:
        raise TypeError(f"{caller} got an unexpected keyword argument {unknown[0]!r}")


class CitrinetBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the last axis: (B, T, C) -> (B, T, C)."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=BATCH_NORM_EPS)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states.flatten(0, 1)).view_as(hidden_states)


class CitrinetDepthwiseConv(nn.Conv1d):
    """Depthwise convolution over time: (B, T, C) -> (B, T / stride, C)."""

    def __init__(self, channels: int, kernel_size: int, stride: int):
        super().__init__(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states.transpose(1, 2)
        if hidden_states.device.type != "cpu":
            return super().forward(hidden_states).transpose(1, 2)
        # (B, T, C) has the memory layout of a channels-last image with one row, which oneDNN convolves without a copy,
        # several times faster than a transposed sequence.
        image, weight = hidden_states.unsqueeze(2), self.weight.unsqueeze(2)
        padding = (0, self.kernel_size[0] // 2)
        image = F.conv2d(image, weight, None, (1, self.stride[0]), padding, groups=self.groups)
        return image.squeeze(2).transpose(1, 2)


class CitrinetSeparableConv(nn.Module):
    """Depthwise convolution over time, pointwise convolution, batch normalisation, activation."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, act: nn.Module):
        super().__init__()
        self.stride = stride
        self.depthwise = CitrinetDepthwiseConv(in_channels, kernel_size, stride)
        self.pointwise = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = CitrinetBatchNorm(out_channels)
        self.act = act

    def forward(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, C_in), (B, T) -> (B, T / stride, C_out), (B, T / stride)."""
        if mask is not None:
            # The depthwise convolution is the only step that mixes frames, so padding must be 0 in its input.
            hidden_states = hidden_states.masked_fill(~mask[..., None], 0.0)
            mask = mask if self.stride == 1 else mask[:, :: self.stride]
        return self.act(self.norm(self.pointwise(self.depthwise(hidden_states)))), mask


class CitrinetSqueezeExcitation(nn.Module):
    """Squeeze-excitation: a gate for each channel, computed from the channel means of the utterance."""

    def __init__(self, config: CitrinetConfig, channels: int):
        super().__init__()
        self.context_size = config.se_context_size
        self.down = nn.Linear(channels, channels // config.se_reduction_ratio, bias=False)
        self.up = nn.Linear(channels // config.se_reduction_ratio, channels, bias=False)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, C), (B, T) -> (B, 1, C)."""
        context, context_mask = self._context(hidden_states, mask)
        mean = masked_mean(context, context_mask).to(hidden_states.dtype)
        gate = torch.sigmoid(self.up(F.relu(self.down(with_spare_rows(mean)))))
        return gate[: mean.shape[0], None]

    def _context(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Select the frames to average: a random window in training if `se_context_size` is set, otherwise all."""
        frames = hidden_states.shape[1]
        if not self.training or self.context_size <= 0 or frames <= self.context_size:
            return hidden_states, mask
        start = int(torch.randint(frames - self.context_size, ()))
        window = slice(start, start + self.context_size)
        return hidden_states[:, window], None if mask is None else mask[:, window]


class CitrinetBlock(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    """Separable convolutions, squeeze-excitation, residual branch, activation, adapters; NeMo's `JasperBlock`."""

    def __init__(self, config: CitrinetConfig, layer_idx: int):
        super().__init__()
        in_channels = config.hidden_sizes[layer_idx - 1] if layer_idx else config.num_mel_bins
        channels = config.hidden_sizes[layer_idx]
        repeats = config.num_repeats[layer_idx]
        self.stride = config.strides[layer_idx]
        self.act = nn.Sequential(ACT2FN[config.hidden_act], nn.Dropout(config.dropouts[layer_idx]))
        self.convs = nn.ModuleList(
            CitrinetSeparableConv(
                in_channels if repeat == 0 else channels,
                channels,
                config.kernel_sizes[layer_idx],
                self.stride if repeat == repeats - 1 else 1,
                nn.Identity() if repeat == repeats - 1 else self.act,
            )
            for repeat in range(repeats)
        )
        self.squeeze_excitation = CitrinetSqueezeExcitation(config, channels)
        self.residual: Any = None
        if config.residuals[layer_idx]:
            self.residual = nn.Linear(in_channels, channels, bias=False)
            self.residual_norm = CitrinetBatchNorm(channels)
        self.adapters = nn.ModuleDict({a["name"]: CitrinetAdapter(channels, a) for a in config.adapters})

    def forward(
        self, inputs: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, C_in), (B, T) -> (B, T / stride, C), (B, T / stride)."""
        hidden_states = inputs
        for conv in self.convs:
            hidden_states, mask = conv(hidden_states, mask)
        gate = self.squeeze_excitation(hidden_states, mask)
        if self.residual is None:
            hidden_states = hidden_states * gate
        else:
            # Contiguous: with a strided input, the matrix product takes different code paths for even and odd numbers
            # of frames, and an exported program would have only the path it was traced with.
            hidden_states = self._with_residual(inputs[:, :: self.stride].contiguous(), hidden_states, gate)
        hidden_states = self.act(hidden_states)
        for adapter in self.adapters.values():
            hidden_states = adapter(hidden_states)
        return hidden_states, mask

    def _with_residual(self, inputs: torch.Tensor, hidden_states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """(B, T, C_in), (B, T, C), (B, 1, C) -> (B, T, C)."""
        return torch.addcmul(self.residual_norm(self.residual(inputs)), hidden_states, gate)


class CitrinetSpecAugment(nn.Module):
    """SpecAugment: zero random frequency bands and time spans in training; NeMo's `SpectrogramAugmentation`."""

    def __init__(self, config: CitrinetConfig):
        super().__init__()
        self.freq_masks, self.freq_width = config.freq_masks, config.freq_width
        self.time_masks, self.time_width = config.time_masks, config.time_width

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, F), (B, T) -> (B, T, F)."""
        if not self.training or not (self.freq_masks or self.time_masks):
            return features
        batch, frames, bins = features.shape
        lengths = features.new_full((batch, 1), frames) if mask is None else mask.sum(dim=1, keepdim=True)
        time_width = self.time_width * lengths if isinstance(self.time_width, float) else self.time_width
        in_time = _random_spans(self.time_masks, time_width, lengths, frames)
        in_freq = _random_spans(self.freq_masks, self.freq_width, lengths.new_full((batch, 1), bins), bins)
        return features.masked_fill(in_time[:, :, None] | in_freq[:, None, :], 0.0)


def _random_spans(count: int, width: float | torch.Tensor, lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Mask (B, size) with `count` random spans of up to `width` (one value or one per row) in `lengths` (B, 1)."""
    widths = (torch.rand(len(lengths), count, device=lengths.device) * (width + 1)).floor()
    room = (lengths - width).clamp(min=1)
    starts = (torch.rand(len(lengths), count, device=lengths.device) * room).floor()
    places = torch.arange(size, device=lengths.device)
    return ((places >= starts[..., None]) & (places < (starts + widths)[..., None])).any(dim=1)


class CitrinetPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Base class of all Citrinet models: initialisation, loading and saving of weights."""

    config_class = CitrinetConfig
    base_model_prefix = "model"
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CitrinetBlock"]
    before_move: Callable[[Any, torch.device], None] | None = None  # set in optimised networks, for `_apply`

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        """Accept any implementation without checking for its packages: there is no attention."""
        return attn_implementation or "eager"

    def get_correct_attn_implementation(self, requested_attention: str | None, *args: Any, **kwargs: Any) -> str:
        """As above, for a model that is part of another."""
        return requested_attention or "eager"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "CitrinetPreTrainedModel":
        """Move or cast all weights; an optimised network first prepares its layers for the target device."""
        if self.before_move is not None:
            self.before_move(self, fn(torch.empty(0)).device)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def train(self, mode: bool = True) -> "CitrinetPreTrainedModel":
        """Set training mode; batch normalisation with frozen weights stays in evaluation mode with fixed statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d) and not module.weight.requires_grad:
                module.eval()
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise as NeMo does: Xavier for convolutions and heads; adapters start as the identity."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, CitrinetAdapter):
            init.zeros_(module.up.weight if module.pre_norm else module.norm.weight)


class CitrinetModel(CitrinetPreTrainedModel):
    """The encoder: mel features to hidden states, subsampled by the product of the strides (8 by default)."""

    _keys_to_ignore_on_load_unexpected = [r"^ctc_head\.", r"^tag_heads\."]
    run_blocks: Callable[..., tuple[torch.Tensor, torch.Tensor | None]] | None = None  # set in optimised networks

    def __init__(self, config: CitrinetConfig):
        super().__init__(config)
        self.spec_augment = CitrinetSpecAugment(config)
        self.blocks = nn.ModuleList(CitrinetBlock(config, idx) for idx in range(config.num_hidden_layers))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CitrinetModelOutput | tuple[Any, ...]:
        """
        Encode features.

        Args:
            input_features: (B, T, num_mel_bins), padded on the right.
            attention_mask: (B, T), nonzero at valid frames; `None` means that all are valid.
            output_hidden_states: whether to return every block's output.
            return_dict: whether to return a [`CitrinetModelOutput`] rather than a tuple.

        Returns:
            [`CitrinetModelOutput`] with T' = ceil(T / product of the strides).
        """
        output_hidden_states = _default(output_hidden_states, self.config.output_hidden_states)
        mask = None if attention_mask is None else attention_mask.bool()
        hidden_states = self._differentiable(self.spec_augment(input_features.to(self.dtype), mask))
        all_hidden_states: tuple[torch.Tensor, ...] = (hidden_states,)
        if self.run_blocks is not None and not output_hidden_states:
            hidden_states, mask = self.run_blocks(self.blocks, hidden_states, mask)
        else:
            for block in self.blocks:
                hidden_states, mask = block(hidden_states, mask)
                if output_hidden_states:
                    all_hidden_states += (hidden_states,)
        output = CitrinetModelOutput(
            last_hidden_state=hidden_states,
            attention_mask=mask,
            hidden_states=all_hidden_states if output_hidden_states else None,
        )
        return output if _default(return_dict, self.config.return_dict) else output.to_tuple()

    def _differentiable(self, features: torch.Tensor) -> torch.Tensor:
        """Make features require a gradient: without it, reentrant checkpointing gives a block's weights none."""
        checkpoints = self.training and self.blocks[0].gradient_checkpointing
        if checkpoints and not features.requires_grad and any(weight.requires_grad for weight in self.parameters()):
            return features.detach().requires_grad_()
        return features


class CitrinetForCTC(CitrinetAdapterMixin, CitrinetPreTrainedModel):  # type: ignore[misc]  # two `load_adapter`
    """
    The encoder with a CTC head and, if the configuration has `tag_labels`, linear tag heads.

    It has `generate`, but `can_generate()` is false, as for every CTC model without a decoder: generic callers then
    take the most likely token of every frame themselves.
    """

    accepts_loss_kwargs = False  # otherwise Trainer multiplies the loss by the gradient accumulation steps

    def __init__(self, config: CitrinetConfig):
        super().__init__(config)
        self.model = CitrinetModel(config)
        self.ctc_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.tag_heads = nn.ModuleDict(
            {category: nn.Linear(config.hidden_size, len(labels)) for category, labels in config.tag_labels.items()}
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        tag_labels: dict[str, torch.Tensor] | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CitrinetCTCOutput | tuple[Any, ...]:
        """
        Compute the logits of the CTC and tag heads, and the loss if labels are given.

        Args:
            input_features: (B, T, num_mel_bins), padded on the right.
            attention_mask: (B, T), nonzero at valid frames; `None` means that all are valid.
            labels: (B, L) token ids; negative ids and the blank are padding.
            tag_labels: category -> (B,) class; negative means unknown and is ignored. Categories may be missing.
            output_hidden_states: whether to return every block's output.
            return_dict: whether to return a [`CitrinetCTCOutput`] rather than a tuple.

        Returns:
            [`CitrinetCTCOutput`]; the loss is CTC + `tag_loss_weight` x mean cross-entropy over categories.

        Raises:
            ValueError: if a label is outside the vocabulary or the model does not have a tag category.
        """
        encoded = self.model(
            input_features, attention_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        logits = self.ctc_head(encoded.last_hidden_state)
        tag_logits = self.classify_tags(encoded.last_hidden_state, encoded.attention_mask)
        loss = None
        if labels is not None:
            loss = self._ctc_loss(logits, encoded.attention_mask, labels)
        if tag_labels:
            tag_loss = self.config.tag_loss_weight * self._tag_loss(tag_logits, tag_labels)
            loss = tag_loss if loss is None else loss + tag_loss
        if not self.training and encoded.attention_mask is not None:
            logits = blank_padding(logits, encoded.attention_mask, self.config.pad_token_id)
        output = CitrinetCTCOutput(
            loss=loss,
            logits=logits,
            tag_logits=tag_logits or None,
            last_hidden_state=encoded.last_hidden_state,
            attention_mask=encoded.attention_mask,
            hidden_states=encoded.hidden_states,
        )
        return output if _default(return_dict, self.config.return_dict) else output.to_tuple()

    def classify_tags(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """
        Apply the tag heads to the mean of the encoder output.

        Args:
            hidden_states: (B, T', C), the encoder output.
            mask: (B, T') bool, the frames to average; `None` means all.

        Returns:
            category -> (B, n) logits.
        """
        pooled = with_spare_rows(masked_mean(hidden_states, mask).to(hidden_states.dtype))
        return {category: head(pooled)[: hidden_states.shape[0]] for category, head in self.tag_heads.items()}

    @torch.no_grad()
    def generate(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict_in_generate: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor | CitrinetGenerateOutput:
        """
        Greedy CTC decoding: the most likely token of every frame, to be collapsed by `processor.batch_decode`.

        Args:
            input_features: (B, T, num_mel_bins).
            attention_mask: (B, T).
            return_dict_in_generate: whether to return a [`CitrinetGenerateOutput`] with the logits.
            **kwargs: other arguments of Transformers' `generate`, which have no effect: CTC decodes in one pass.

        Returns:
            (B, T') token ids, blank at padded frames; a [`CitrinetGenerateOutput`] with `return_dict_in_generate`.

        Raises:
            TypeError: if `generate` does not have an argument.
        """
        refuse_unknown_arguments("generate()", kwargs)
        output = self(input_features, attention_mask, return_dict=True)
        sequences: torch.Tensor = output.logits.argmax(dim=-1)
        if output.attention_mask is not None:
            sequences = sequences.masked_fill(~output.attention_mask, self.config.pad_token_id)
        if return_dict_in_generate:
            return CitrinetGenerateOutput(sequences=sequences, logits=output.logits)
        return sequences

    def _ctc_loss(self, logits: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() and labels.numel() and labels.max() >= self.config.vocab_size:
            raise ValueError(f"label {int(labels.max())} is outside the vocabulary of {self.config.vocab_size}.")
        is_label = (labels >= 0) & (labels != self.config.pad_token_id)
        batch, frames = logits.shape[:2]
        return ctc_loss(
            logits,
            mask.sum(dim=1) if mask is not None else logits.new_full((batch,), frames, dtype=torch.long),
            labels.masked_select(is_label),
            is_label.sum(dim=1),
            self.config.pad_token_id,
            self.config.ctc_loss_reduction,
            self.config.ctc_zero_infinity,
        )

    def _tag_loss(self, tag_logits: dict[str, torch.Tensor], tag_labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy over the categories; a category without any known label counts as zero."""
        unknown = sorted(set(tag_labels) - set(tag_logits))
        if unknown:
            raise ValueError(f"`tag_labels` names {unknown}; this model has the categories {sorted(tag_logits)}.")
        losses = []
        for category, target in tag_labels.items():
            target = target.masked_fill(target < 0, -100)
            total = F.cross_entropy(tag_logits[category].float(), target, reduction="sum")
            losses.append(total / (target >= 0).sum().clamp(min=1))
        return torch.stack(losses).mean()


def _default(value: Any, default: Any) -> Any:
    return default if value is None else value


__all__ = ["CitrinetForCTC", "CitrinetModel", "CitrinetPreTrainedModel"]
