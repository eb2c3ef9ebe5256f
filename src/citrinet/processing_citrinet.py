"""Feature extractor and tokenizer in one object."""

from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs


class CitrinetProcessorKwargs(ProcessingKwargs, total=False):
    """What a call passes on unless told otherwise: padded tensors, labels without special tokens."""

    _defaults = {
        "text_kwargs": {"padding": True, "padding_side": "right", "add_special_tokens": False},
        "audio_kwargs": {"padding": True, "return_attention_mask": True},
        "common_kwargs": {"return_tensors": "pt"},
    }


class CitrinetProcessor(ProcessorMixin):
    """
    Audio to `input_features`, text to `labels`, token ids to text.

    Args:
        feature_extractor ([`CitrinetFeatureExtractor`]): makes the features.
        tokenizer ([`CitrinetTokenizer`]): makes labels and text.
    """

    def __init__(self, feature_extractor, tokenizer):
        super().__init__(feature_extractor, tokenizer)

    def __call__(self, audio=None, text=None, sampling_rate=None, **kwargs) -> BatchFeature:
        """
        Prepare audio, text or both for [`CitrinetForCTC`].

        Args:
            audio: a waveform or a list of them, each what [`CitrinetFeatureExtractor`] takes.
            text (`str` or `list[str]`, *optional*): transcripts.
            sampling_rate (`int`, *optional*): rate of `audio` in Hz, checked against the model's.
            **kwargs: `audio_kwargs`, `text_kwargs` and `common_kwargs`, or their entries, as for every processor.

        Returns:
            `BatchFeature`: `input_features` (B, T, F) and `attention_mask` (B, T) if there is audio; `labels` (B, L),
            padded with the blank, which the loss leaves out, if there is text beside it, and `input_ids` if not.

        Raises:
            ValueError: if there is neither audio nor text.
        """
        if audio is None and text is None:
            raise ValueError("give the processor `audio`, `text` or both.")
        merged = self._merge_kwargs(
            CitrinetProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs
        )
        if audio is None:
            return self.tokenizer(text, **merged["text_kwargs"])
        audio_kwargs = merged["audio_kwargs"] | ({"sampling_rate": sampling_rate} if sampling_rate else {})
        inputs = self.feature_extractor(audio, **audio_kwargs)
        if text is not None:
            inputs["labels"] = self.tokenizer(text, **merged["text_kwargs"])["input_ids"]
        return inputs


__all__ = ["CitrinetProcessor"]
