"""Feature extractor and tokenizer in one object."""

import json
import os
from pathlib import Path
from typing import Any

from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import ProcessingKwargs
from transformers.utils import FEATURE_EXTRACTOR_NAME


class CitrinetProcessorKwargs(ProcessingKwargs, total=False):
    """What a call passes on unless told otherwise: padded tensors, labels without special tokens."""

    _defaults = {  # type: ignore[misc]
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

    valid_processor_kwargs = CitrinetProcessorKwargs

    feature_extractor: Any  # the base class sets both
    tokenizer: Any

    # Transformers takes the parts of a processor from the names of these arguments.
    def __init__(self, feature_extractor: Any, tokenizer: Any):
        super().__init__(feature_extractor, tokenizer)  # type: ignore[no-untyped-call]

    @property
    def model_input_names(self) -> list[str]:
        """What a call with audio and text returns."""
        return [*self.feature_extractor.model_input_names, "labels"]

    def __call__(self, audio: Any = None, text: str | list[str] | None = None, **kwargs: Any) -> Any:
        """
        Prepare audio, text or both for [`CitrinetForCTC`].

        Args:
            audio: a waveform or a list of them, each what [`CitrinetFeatureExtractor`] takes.
            text (`str` or `list[str]`, *optional*): transcripts.
            **kwargs: `audio_kwargs`, `text_kwargs` and `common_kwargs`, or their entries, as for every processor;
                among them `sampling_rate`, the rate of `audio` in Hz, which is checked against the model's.

        Returns:
            `BatchFeature`: `input_features` (B, T, F) and `attention_mask` (B, T) if there is audio; `labels` (B, L),
            padded with the blank, which the loss leaves out, if there is text beside it, and `input_ids` if not.

        Raises:
            ValueError: if there is neither audio nor text.
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
        Write `processor_config.json`, and beside it `preprocessor_config.json` with the feature extractor's settings.

        Transformers keeps them in the first; of two copies, one would be edited and the other read.
        """
        file = Path(json_file_path)
        self.feature_extractor.to_json_file(file.with_name(FEATURE_EXTRACTOR_NAME))
        settings = json.loads(self.to_json_string())
        settings.pop("feature_extractor")
        file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


__all__ = ["CitrinetProcessor"]
