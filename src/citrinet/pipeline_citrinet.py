"""`pipeline("automatic-speech-recognition")` for Citrinet: text, transcript, entities, tags and times in one call."""

from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import AutomaticSpeechRecognitionPipeline, BatchFeature

from .audio_citrinet import load_audio
from .transcript_citrinet import (
    END,
    ENTITY_PREFIX,
    MARKER_PIECE,
    NONE,
    Marker,
    Transcript,
    find_markers,
    parse_transcript,
    split_words,
)

# Longer audio is read in overlapping windows unless the caller says otherwise: the memory for one pass grows with it.
LONG_AUDIO_S = 120.0
DEFAULT_CHUNK_S = 30.0


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

    def preprocess(self, inputs, chunk_length_s=None, stride_length_s=None):
        """Yield the features of one audio, whole or in windows of `chunk_length_s` with overlap on both sides."""
        samples, stride, extra = self._read(inputs)
        features = self.feature_extractor.extract(samples)
        if chunk_length_s is None:
            chunk_length_s = DEFAULT_CHUNK_S if self._seconds(len(features)) > LONG_AUDIO_S else 0
        windows = self._windows(len(features), chunk_length_s, stride_length_s)
        ratio = self._frame_ratio
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
            result["tag_logits"] = torch.cat([tag_logits[category] for category in self._categories], dim=1).float()
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
        parsed = parse_transcript(text, self._markers(text, spans, ctc_tokens), self._categories)
        times = [(self._time(spans[i].start), self._time(spans[i].end)) for i in parsed.sources]

        result = {"text": text, "transcript": parsed.transcript}
        result["entities"] = [
            {**vars(entity), "timestamp": (times[entity.start][0], times[entity.end - 1][1])}
            for entity in parsed.entities
        ]
        written = {}
        for category, index in parsed.tag_sources.items():
            token = ctc_tokens[spans[index].token]
            written[category] = (parsed.tags[category], float(scores[token.start : token.end].max()))
        result["tags"] = self._merge_tags(self._head_tags(model_outputs, bounds), written)
        if return_timestamps:
            result["chunks"] = _chunks(parsed, times, return_timestamps)
        extra = defaultdict(list)
        for output in model_outputs:
            output.pop("tag_logits", None)
            for key, value in output.items():
                extra[key].append(value)
        return {**result, **extra}

    @property
    def _categories(self) -> list[str]:
        return sorted(self.model.config.tag_labels)

    @property
    def _frame_ratio(self) -> int:
        """Feature frames for each frame of logits."""
        return self.model.config.inputs_to_logits_ratio // self.model.config.hop_length

    def _seconds(self, frames: float) -> float:
        return frames * self.feature_extractor.hop_length / self.feature_extractor.sampling_rate

    def _time(self, logit_frames: float) -> float:
        return round(self._seconds(logit_frames * self._frame_ratio), 3)

    def _read(self, inputs) -> tuple[np.ndarray, tuple[int, int], dict]:
        """Samples, the frames of features to drop at both ends, and what else a dictionary held, to be handed back."""
        rate = self.feature_extractor.sampling_rate
        if not isinstance(inputs, dict):
            return load_audio(inputs, rate), (0, 0), {}
        samples = load_audio(inputs, rate)
        scale = 1 / (inputs["sampling_rate"] * self._seconds(1))
        left, right = (round(count * scale) for count in inputs.get("stride") or (0, 0))
        known = ("raw", "array", "sampling_rate", "stride", "path")
        return samples, (left, right), {key: value for key, value in inputs.items() if key not in known}

    def _windows(self, frames: int, chunk_length_s: float, stride_length_s) -> list[tuple[int, int, int, int]]:
        """Windows over the feature frames: (start, stop, logit frames to drop on the left, on the right)."""
        ratio = self._frame_ratio
        chunk = self._whole_ratios(chunk_length_s)
        if not chunk or frames <= chunk:
            return [(0, frames, 0, 0)]
        if stride_length_s is None:
            stride_length_s = chunk_length_s / 6
        strides = stride_length_s if isinstance(stride_length_s, (list, tuple)) else (stride_length_s, stride_length_s)
        left, right = (self._whole_ratios(stride) for stride in strides)
        if left + right >= chunk:
            raise ValueError(
                f"`chunk_length_s` ({chunk_length_s}) must be longer than the strides on both sides ({strides})."
            )
        windows = []
        for start in range(0, frames, chunk - left - right):
            stop = min(start + chunk, frames)
            windows.append((start, stop, left // ratio if start else 0, right // ratio if stop < frames else 0))
            if stop == frames:
                return windows
        return windows

    def _whole_ratios(self, seconds: float) -> int:
        """Feature frames nearest to a duration that make whole frames of logits."""
        return round(seconds / self._seconds(self._frame_ratio)) * self._frame_ratio

    def _markers(self, text: str, spans, ctc_tokens) -> list[Marker]:
        """
        Markers by token identity, the sure way; those that are spelled out in several tokens by their form.

        With identity `END` in the text is a marker only where its token was emitted, never part of a Latin word.
        """
        names = self._marker_tokens
        markers: dict[int, Marker] = {}
        for index, span in enumerate(spans):
            name = names.get(ctc_tokens[span.token].id)
            if name and not text[index].isspace():
                markers.setdefault(span.token, Marker(index, index + len(name), name))
        rest = list(text)
        for marker in markers.values():
            rest[marker.start : marker.end] = "\n" * len(marker.name)
        labels = [label for labels in self.model.config.tag_labels.values() for label in labels]
        spelled = find_markers("".join(rest), labels)
        return sorted([*markers.values(), *(m for m in spelled if m.name != END or END not in names.values())])

    @cached_property
    def _marker_tokens(self) -> dict[int, str]:
        """Token id -> name, for the pieces of the vocabulary that are a marker as a whole."""
        pieces = {token_id: token.lstrip("▁") for token, token_id in self.tokenizer.get_vocab().items()}
        names = {token_id: piece for token_id, piece in pieces.items() if MARKER_PIECE.fullmatch(piece)}
        has_entities = any(name.startswith(ENTITY_PREFIX) for name in names.values())
        return {token_id: name for token_id, name in names.items() if name != END or has_entities}

    def _head_tags(self, model_outputs, bounds) -> dict[str, tuple[str, float]]:
        """Category -> (label, probability); the heads are linear, so windows add up weighted by their frames."""
        if not self._categories:
            return {}
        logits = sum(output["tag_logits"][0] * (b - a) for output, (a, b) in zip(model_outputs, bounds, strict=True))
        logits = logits / max(sum(b - a for a, b in bounds), 1)
        labels = [self.model.config.tag_labels[category] for category in self._categories]
        head_tags = {}
        for category, names, part in zip(self._categories, labels, logits.split([len(n) for n in labels]), strict=True):
            score, best = part.softmax(dim=0).max(dim=0)
            head_tags[category] = (names[int(best)], float(score))
        return head_tags

    @staticmethod
    def _merge_tags(head: dict[str, tuple[str, float]], written: dict[str, tuple[str, float]]) -> dict[str, dict]:
        """The head's label unless it says NONE, else the one written in the text."""
        tags = {}
        for category in sorted(head.keys() | written.keys()):
            from_head, from_text = head.get(category), written.get(category)
            use_text = from_text is not None and (from_head is None or from_head[0] == NONE)
            label, score = from_text if use_text else from_head  # type: ignore[misc]  # one of them is there
            tags[category] = {
                "label": label,
                "score": round(score, 4),
                "source": "text" if use_text else "head",
                "head": from_head and from_head[0],
                "text": from_text and from_text[0],
            }
        return tags


def _chunks(parsed: Transcript, times: list[tuple[float, float]], unit: str) -> list[dict]:
    characters = [(i, i + 1) for i in range(len(times)) if not parsed.transcript[i].isspace()]
    spans = split_words(parsed.transcript) if unit == "word" else characters
    return [
        {"text": parsed.transcript[start:end], "timestamp": (times[start][0], times[end - 1][1])}
        for start, end in spans
    ]


__all__ = ["CitrinetPipeline"]
