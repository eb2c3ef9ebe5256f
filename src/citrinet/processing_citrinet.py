"""Processor: feature extractor and tokenizer in one object."""

import json
import os
from pathlib import Path
from typing import Any

from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs
from transformers.utils import FEATURE_EXTRACTOR_NAME


class CitrinetProcessorKwargs(ProcessingKwargs, total=False):
    """Default arguments of a call: padded PyTorch tensors, labels without special tokens."""

    _defaults = {  # type: ignore[misc]
        "text_kwargs": {"padding": True, "padding_side": "right", "add_special_tokens": False},
        "audio_kwargs": {"padding": True, "return_attention_mask": True},
        "common_kwargs": {"return_tensors": "pt"},
    }


class CitrinetProcessor(ProcessorMixin):
    """
    Processor that turns audio into `input_features`, text into `labels` and token ids into text.

    Args:
        feature_extractor ([`CitrinetFeatureExtractor`]): computes the features.
        tokenizer ([`CitrinetTokenizer`]): encodes labels and decodes text.
    """

    valid_processor_kwargs = CitrinetProcessorKwargs

    feature_extractor: Any  # the base class sets both
    tokenizer: Any

    # Transformers identifies the parts of a processor by the names of these arguments.
    def __init__(self, feature_extractor: Any, tokenizer: Any):
        super().__init__(feature_extractor, tokenizer)  # type: ignore[no-untyped-call]

    @property
    def model_input_names(self) -> list[str]:
        """Names of the values that a call with audio and text returns."""
        return [*self.feature_extractor.model_input_names, "labels"]

    def __call__(self, audio: Any = None, text: str | list[str] | None = None, **kwargs: Any) -> Any:
        """
        Prepare audio, text or both for [`CitrinetForCTC`].

        Args:
            audio: a waveform or a list of waveforms, as [`CitrinetFeatureExtractor`] accepts them.
            text (`str` or `list[str]`, *optional*): transcripts.
            **kwargs: `audio_kwargs`, `text_kwargs` and `common_kwargs`, or their entries, as for every processor;
                among them `sampling_rate`, the rate of `audio` in Hz, which is checked against the model's.

        Returns:
            `BatchFeature`: `input_features` (B, T, F) and `attention_mask` (B, T) for audio; for text `labels` (B, L),
            padded with the blank, which the loss ignores, or `input_ids` if there is no audio.

        Raises:
            ValueError: if neither audio nor text is given.
        """
        if audio is None and text is None:
            raise ValueError("give the processor `audio`, `text` or both.")
        merged = self._merge_kwargs(
            CitrinetProcessorKwargs,  # type: ignore[arg-type]
            tokenizer_init_kwargs=self.tokenizer.init_kwargs,
            **kwargs,
        )
        if audio is None:
            return self.tokenizer(text, **merged["text_kwargs"])
        inputs: BatchFeature = self.feature_extractor(audio, **merged["audio_kwargs"])
        if text is not None:
            inputs["labels"] = self.tokenizer(text, **merged["text_kwargs"])["input_ids"]
        return inputs

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """
        Write `processor_config.json`, and next to it `preprocessor_config.json` with the feature extractor's settings.

        Transformers puts these settings into `processor_config.json`. They are removed there: with two copies, users
        could edit the one that is not read.
        """
        file = Path(json_file_path)
        self.feature_extractor.to_json_file(file.with_name(FEATURE_EXTRACTOR_NAME))
        settings = json.loads(self.to_json_string())
        settings.pop("feature_extractor")
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = ["CitrinetProcessor"]
