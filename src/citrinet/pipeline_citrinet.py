"""`pipeline("automatic-speech-recognition")` for Citrinet: text, transcript, entities, tags and times in one call."""

from collections import defaultdict
from functools import cached_property
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import AutomaticSpeechRecognitionPipeline, BatchFeature

from .audio_citrinet import load_audio
from .result_citrinet import ResultBuilder
from .windows_citrinet import cut_windows


class _Stream(IterableDataset):
    """What a generator gives, once."""

    def __init__(self, generator: GeneratorType):
        self.generator = generator

    def __iter__(self) -> GeneratorType:
        return self.generator


class CitrinetPipeline(AutomaticSpeechRecognitionPipeline):
    r"""
    Transcribe audio with a [`CitrinetForCTC`].

    ```python
    >>> recognizer = pipeline("automatic-speech-recognition", "path/to/converted")
    >>> recognizer("speech.wav")
    {"text": "来首歌 ENTITY_SONG_NAME 吻别 END。 AGE_14_25",
     "transcript": "来首歌吻别。",
     "entities": [{"type": "SONG_NAME", "text": "吻别", "start": 3, "end": 5, "timestamp": (0.64, 1.12)}],
     "tags": {"AGE": {"label": "AGE_14_25", "score": 0.93, "source": "head", "head": "AGE_14_25", "text": "AGE_14_25"}}}
    ```

    `text` is what the CTC head wrote, as the stock pipeline gives it. A tag's `label` is the tag head's unless that
    says NONE, else the one read from the text; `score` is the probability that its source gave it, and `head` and
    `text` say what each of the two said. Times are seconds.

    Besides the arguments of the stock pipeline:

    * `return_timestamps="char" | "word"` adds `chunks`, the characters or words of `transcript` with their times.
      A character of Chinese or Japanese is a word of its own, elsewhere words are what stands between spaces.
    * `chunk_length_s`: 0 reads audio of any length in one pass; not given, audio of more than 120 s is read in windows
      of 30 s. Features are always computed over the whole audio, so a window sees what one pass would.
    * any audio that [`load_audio`] takes, without ffmpeg where soundfile can read it.
    """

    modelcard = None  # Transformers 5.0 looks for it when saving and never sets it

    feature_extractor: Any  # the base class allows for none
    tokenizer: Any

    def __call__(self, inputs, **kwargs):
        """As the stock pipeline, one audio or many; but of a generator's, which it may hold to the end, keep none."""
        return super().__call__(_Stream(inputs) if isinstance(inputs, GeneratorType) else inputs, **kwargs)

    def preprocess(self, inputs, chunk_length_s=None, stride_length_s=None):
        """Yield the features of one audio, whole or in windows of `chunk_length_s` with overlap on both sides."""
        samples, stride, extra = self._read(inputs)
        log_mel = self.feature_extractor.log_mel(samples)
        del samples, inputs  # hours of them
        features = self.feature_extractor.normalize(log_mel)
        del log_mel
        ratio = self._frame_ratio
        windows = cut_windows(len(features), self._seconds(1), ratio, chunk_length_s, stride_length_s)
        for index, (start, stop, left, right) in enumerate(windows):
            is_first, is_last = index == 0, index == len(windows) - 1
            if is_first:
                left = stride[0] // ratio
            if is_last:
                right = stride[1] // ratio
            window = self.feature_extractor.pad(
                BatchFeature({"input_features": [features[start:stop]]}),
                pad_to_multiple_of=self.feature_extractor.pad_to_multiple_of,
                return_tensors="pt",
            )
            kept = torch.tensor([[left, -(-(stop - start) // ratio) - right]])
            yield {"is_last": is_last, **window, "kept": kept, **extra}

    def _forward(self, model_inputs, return_timestamps=False, **kwargs):
        is_last, kept = model_inputs.pop("is_last"), model_inputs.pop("kept")
        features, mask = model_inputs.pop("input_features"), model_inputs.pop("attention_mask")
        outputs = self.model(input_features=features, attention_mask=mask)
        frames = torch.arange(outputs.logits.shape[1], device=outputs.logits.device)
        inside = (frames >= kept[:, :1]) & (frames < kept[:, 1:])
        tag_logits = self.model.classify_tags(outputs.last_hidden_state, inside)
        scores, tokens = outputs.logits.float().softmax(dim=-1).max(dim=-1)
        result = {"is_last": is_last, "tokens": tokens, "scores": scores, "kept": kept}
        if tag_logits:
            # One tensor, since the pipeline takes batches of tensors apart but not of dictionaries.
            result["tag_logits"] = torch.cat([tag_logits[name] for name in sorted(tag_logits)], dim=1).float()
        return {**result, **model_inputs}

    def postprocess(self, model_outputs, decoder_kwargs=None, return_timestamps=None, return_language=None):
        """Join the windows of one audio and read text, entities, tags and times from them."""
        bounds = [output.pop("kept")[0].tolist() for output in model_outputs]
        tokens, scores = (
            torch.cat(
                [output.pop(key)[0, start:stop] for output, (start, stop) in zip(model_outputs, bounds, strict=True)]
            )
            for key in ("tokens", "scores")
        )
        ctc_tokens = self.tokenizer.ctc_tokens(tokens)
        text, spans = self.tokenizer.text_with_spans(ctc_tokens)
        head = self.model.config.tag_labels, self._head_logits(model_outputs, bounds)
        result = self._results.build(text, spans, ctc_tokens, scores.numpy(), *head, return_timestamps)
        extra = defaultdict(list)
        for output in model_outputs:
            output.pop("tag_logits", None)
            for key, value in output.items():
                extra[key].append(value)
        return {**result, **extra}

    @cached_property
    def _results(self) -> ResultBuilder:
        return ResultBuilder(self.tokenizer.get_vocab(), self._seconds(self._frame_ratio))

    @property
    def _frame_ratio(self) -> int:
        """Feature frames for each frame of logits."""
        return self.model.config.inputs_to_logits_ratio // self.model.config.hop_length

    def _seconds(self, frames: float) -> float:
        return frames * self.feature_extractor.hop_length / self.feature_extractor.sampling_rate

    def _read(self, inputs) -> tuple[np.ndarray, tuple[int, int], dict]:
        """Samples, the frames of features to drop at both ends, and what else a dictionary held, to be handed back."""
        rate = self.feature_extractor.sampling_rate
        if not isinstance(inputs, dict):
            return load_audio(inputs, rate), (0, 0), {}
        samples = load_audio(inputs, rate)
        scale = 1 / (inputs.get("sampling_rate", rate) * self._seconds(1))
        left, right = (round(count * scale) for count in inputs.get("stride") or (0, 0))
        known = ("raw", "array", "sampling_rate", "stride", "path", "bytes")
        return samples, (left, right), {key: value for key, value in inputs.items() if key not in known}

    def _head_logits(self, model_outputs, bounds) -> np.ndarray:
        """Logits of all categories; the heads are linear, so windows add up weighted by their frames."""
        if "tag_logits" not in model_outputs[0]:
            return np.zeros(0)
        logits = sum(output["tag_logits"][0] * (b - a) for output, (a, b) in zip(model_outputs, bounds, strict=True))
        return (logits / max(sum(b - a for a, b in bounds), 1)).numpy()


__all__ = ["CitrinetPipeline"]
