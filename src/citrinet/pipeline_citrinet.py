"""`pipeline("automatic-speech-recognition")` for Citrinet: text, transcript, entities, tags and times in one call."""

import inspect
import math
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from itertools import chain, groupby
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset
from transformers import AutomaticSpeechRecognitionPipeline

from .audio_citrinet import load_audio
from .batching_citrinet import batches, limits
from .decoding_citrinet import DECODER_TOKENS, Decoder, Emissions
from .modeling_citrinet import refuse_unknown_arguments
from .result_citrinet import Heard, RecognitionResult, ResultBuilder
from .windows_citrinet import cut_at_pauses, cut_windows

# Waveforms of so much audio are held for features that a GPU computes together; a longer one is alone.
FEATURES_AT_ONCE_S = 600.0
_AUDIO_KEYS = ("raw", "array", "bytes", "path", "sampling_rate", "stride")


class _Stream(IterableDataset[Any]):
    """What an iterator gives, once."""

    def __init__(self, iterator: Iterator[Any]):
        self.iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        return self.iterator


class _Part(NamedTuple):
    """
    A part of a recording that is read on its own.

    Args:
        samples: (n,) of it.
        place: its [start, stop) in the recording, in samples.
        stride: frames of features at both ends that are context.
        is_last: whether the recording ends with it.
        extra: what else the input held, to be handed back.
    """

    samples: np.ndarray
    place: tuple[int, int]
    stride: tuple[int, int]
    is_last: bool
    extra: dict[str, Any]

    def without_samples(self) -> "_Part":
        """The part once its features are there: samples are not held while the network works."""
        return self._replace(samples=self.samples[:0].copy())


class CitrinetPipeline(AutomaticSpeechRecognitionPipeline):
    r"""
    Transcribe audio with a [`CitrinetForCTC`].

    ```python
    >>> recognizer = pipeline("automatic-speech-recognition", "path/to/converted")
    >>> recognizer("speech.wav")
    {"text": "来首歌 ENTITY_SONG_NAME 吻别 END。 AGE_14_25",
     "transcript": "来首歌吻别。", "confidence": 0.91,
     "entities": [
        {"type": "SONG_NAME", "text": "吻别", "start": 3, "end": 5, "timestamp": (0.64, 1.12), "confidence": 0.9}
     ],
     "tags": {"AGE": {"label": "AGE_14_25", "score": 0.93, "source": "head", "head": "AGE_14_25", "text": "AGE_14_25"}},
     "segments": [{"text": ..., "transcript": ..., "start": 0.0, "end": 1.9, "tags": ..., "confidence": 0.91}]}
    ```

    `text` is what the CTC head wrote, as the stock pipeline gives it. A tag's `label` is the tag head's unless that
    says NONE, else the one read from the text; `score` is the probability that its source gave it, and `head` and
    `text` say what each of the two said. Times are seconds.

    Besides the arguments of the stock pipeline:

    * `return_timestamps="char" | "word"` adds `chunks`, the characters or words of `transcript` with their times.
      A character of Chinese or Japanese is a word of its own, elsewhere words are what stands between spaces.
    * `vad`: whether audio is cut at pauses, and each stretch of speech read on its own; not given, audio of more than
      30 s is, unless `chunk_length_s` says how to cut. Pauses are found by voice activity detection.
    * `chunk_length_s`: 0 reads audio of any length in one pass; not given, what is longer than 120 s without a pause is
      read in windows of 30 s. Features are computed before, so a window sees what one pass would.
    * `decoder`, where the pipeline is made: a [`Decoder`], such as a beam search with a language model; or none for
      greedy decoding. Not given, it is a beam search with the language model that comes with the model, if there is one
      and the package citrinet is installed.
    * `batch_seconds`: seconds of audio that go through the network at a time, padding counted, beside the stock
      pipeline's `batch_size`, which then is no limit unless it is given.
    * any audio that [`load_audio`] takes, without ffmpeg where soundfile can read it.
    """

    modelcard: Any = None  # Transformers 5.0 looks for it when saving and never sets it

    feature_extractor: Any  # the base class allows for none
    tokenizer: Any
    model: Any
    decoder: Decoder | None

    def __init__(self, *args: Any, decoder: Decoder | str | None = "own", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.decoder = self._own_decoder() if isinstance(decoder, str) else decoder

    def _own_decoder(self) -> Decoder | None:
        try:
            from citrinet.language_model import DecodingOptions
        except ImportError:  # this file came from the Hub alone
            return None
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(self.model.config.vocab_size - 1)))
        decoder: Decoder | None = DecodingOptions().decoder(self.model.name_or_path, pieces)
        return decoder

    @overload  # type: ignore[override]  # the base class promises a list of dictionaries, whatever it is given
    def __call__(self, inputs: list[Any], **kwargs: Any) -> list[RecognitionResult]: ...

    @overload
    def __call__(self, inputs: Iterator[Any], **kwargs: Any) -> Iterator[RecognitionResult]: ...

    @overload
    def __call__(self, inputs: Any, **kwargs: Any) -> RecognitionResult: ...

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """
        Transcribe one audio, or each of a list, an iterator or a dataset.

        Args:
            inputs: what [`load_audio`] takes; or a dictionary of that kind with `"stride"`, the samples at its start
                and end that are context and not transcribed, and with whatever else is to come back, in lists.
            **kwargs: those of the stock pipeline; arguments of `generate` are accepted and change nothing.

        Returns:
            [`RecognitionResult`]; a list for a list, an iterator for an iterator, of whose audio none is kept.

        Raises:
            OSError: if a file cannot be read.
            TypeError: for an unknown argument.
            ValueError: if it is not audio, too short, or holds NaN.
        """
        audio: Any = _Stream(inputs) if isinstance(inputs, Iterator) else inputs
        if kwargs.get("batch_size") is None and self._batch_size is None:
            seconds = kwargs.get("batch_seconds", self._preprocess_params.get("batch_seconds"))
            kwargs["batch_size"], _ = limits(None, seconds)
        return super().__call__(audio, **kwargs)

    def _sanitize_parameters(  # type: ignore[override]  # the base class takes any argument
        self,
        generate_kwargs: dict[str, Any] | None = None,
        batch_seconds: float | None = None,
        vad: bool | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        stock = super()._sanitize_parameters
        own = {name: value for name, value in kwargs.items() if name in inspect.signature(stock).parameters}
        refuse_unknown_arguments("the pipeline", [*(kwargs.keys() - own.keys()), *(generate_kwargs or {})])
        preprocess, forward, postprocess = stock(**own)  # type: ignore[no-untyped-call]
        if batch_seconds is not None:
            preprocess["batch_seconds"] = batch_seconds
        if vad is not None:
            preprocess["vad"] = vad
        return preprocess, forward, postprocess

    def preprocess(  # type: ignore[override]  # as in all of Transformers' pipelines that cut windows
        self,
        inputs: Any,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | list[float] | None = None,
        vad: bool | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the features of one audio: of each stretch of speech, whole or in windows that overlap."""
        parts = self._parts(inputs, chunk_length_s, vad)
        del inputs  # hours of samples
        for part in parts:
            waveforms, part = [part.samples], part.without_samples()
            (features,) = self._features(waveforms)
            yield from self._cut(features, part, chunk_length_s, stride_length_s)

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterable[RecognitionResult]:
        """
        Results of many inputs.

        The stock pipeline counts windows, and prepares one input at a time: batches by seconds, and features of many
        inputs at a time on a GPU, are made here.
        """
        cutting = dict(preprocess_params)
        seconds = limits(batch_size, cutting.pop("batch_seconds", None))[1]
        if seconds == math.inf and self._feature_device is None:
            stock: Any = super().get_iterator
            results: Iterable[RecognitionResult] = stock(
                inputs, num_workers, batch_size, cutting, forward_params, postprocess_params
            )
            return results
        windows = self._windows(inputs, batch_size, seconds, cutting)
        in_batches = batches(windows, lambda window: self._seconds(window["frames"]), batch_size, seconds)
        outputs = self._outputs(in_batches, forward_params)
        return (self.postprocess(parts, **postprocess_params) for parts in outputs)

    def _windows(
        self, inputs: Iterable[Any], count: int, seconds: float, cutting: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """What [`preprocess`] yields, of all inputs; on a GPU it prepares several inputs at a time."""
        if self._feature_device is None:
            for windows in map(partial(self.preprocess, **cutting), inputs):  # `for audio` would hold the last one
                yield from windows
            return
        rate = self.feature_extractor.sampling_rate
        vad, chunk_length_s = cutting.pop("vad", None), cutting.get("chunk_length_s")
        parts = chain.from_iterable(map(partial(self._parts, chunk_length_s=chunk_length_s, vad=vad), inputs))
        limit = min(seconds, FEATURES_AT_ONCE_S)
        for batch in batches(parts, lambda part: len(part.samples) / rate, count, limit):
            waveforms = [part.samples for part in batch]
            batch[:] = [part.without_samples() for part in batch]
            for features, part in zip(self._features(waveforms), batch, strict=True):
                yield from self._cut(features, part, **cutting)

    def _outputs(
        self, batched_windows: Iterable[list[dict[str, Any]]], forward_params: dict[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """Run the network; for each input the outputs of its windows."""
        parts: list[dict[str, Any]] = []
        run: Any = partial(self._begin if self._runs_ahead else self.forward, **forward_params)
        begun = (run(_collate(windows)) for windows in batched_windows)
        for outputs in map(_finish, _one_ahead(begun)) if self._runs_ahead else begun:
            for index in range(len(outputs["is_last"])):
                part = {
                    name: value[index : index + 1] if isinstance(value, torch.Tensor) else value[index]
                    for name, value in outputs.items()
                }
                is_last = part.pop("is_last")
                parts.append(part)
                if is_last:
                    yield parts
                    parts = []

    def _begin(self, inputs: dict[str, Any], **forward_params: Any) -> dict[str, Any]:
        """The stock `forward` without waiting for the GPU: what it gives is there once [`_finish`] is done."""
        with self.device_placement(), torch.inference_mode():
            move: Any = self._ensure_tensor_on_device
            on_device = move(inputs, device=self.device)
            outputs = self._forward(on_device, **forward_params)
            for name, value in outputs.items():
                if isinstance(value, torch.Tensor):
                    outputs[name] = value.to("cpu", non_blocking=True)  # into memory that is pinned, behind the work
            if self.device.type == "cuda":
                outputs["done"] = torch.cuda.current_stream(self.device).record_event()
        return outputs

    @property
    def _runs_ahead(self) -> bool:
        """Whether a batch is sent to the GPU before the one before it is decoded."""
        return self._feature_device is not None

    @property
    def _feature_device(self) -> torch.device | None:
        """Where features are computed in batches: beside the network, if that is on a GPU."""
        return self.device if self.device.type == "cuda" else None

    def _features(self, waveforms: list[np.ndarray]) -> list[torch.Tensor]:
        """(T, feature_size) of each; empties the list."""
        extractor = self.feature_extractor
        if self._feature_device is None:
            features = []
            while waveforms:
                log_mel = extractor.log_mel(waveforms.pop(0))
                features.append(torch.from_numpy(extractor.normalize(log_mel)))
            return features
        frames = list(map(extractor.count_frames, waveforms))  # not those that the GPU would have to be asked for
        padded = extractor(waveforms, return_tensors="pt", device=self._feature_device)
        waveforms.clear()
        return [row[:count] for row, count in zip(padded["input_features"], frames, strict=True)]

    def _cut(
        self,
        features: torch.Tensor,
        part: _Part,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | list[float] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Windows of the features (T, feature_size) of a part, as the network takes them."""
        ratio = self._frame_ratio
        windows = cut_windows(len(features), self._seconds(1), ratio, chunk_length_s, stride_length_s)
        for index, (start, stop, left, right) in enumerate(windows):
            ends = index == len(windows) - 1
            if index == 0:
                left = part.stride[0] // ratio
            if ends:
                right = part.stride[1] // ratio
            padding = -(stop - start) % self.feature_extractor.pad_to_multiple_of
            mask = torch.ones(1, stop - start, dtype=torch.int32)  # on the CPU: it moves with those of a whole batch
            kept = torch.tensor([[left, -(-(stop - start) // ratio) - right]])
            yield {
                "is_last": ends and part.is_last,
                "input_features": F.pad(features[None, start:stop], (0, 0, 0, padding)),
                "attention_mask": F.pad(mask, (0, padding)),
                "frames": stop - start,
                "kept": kept,
                "place": torch.tensor([part.place]),
                "extra": part.extra,
            }

    def _forward(  # type: ignore[override]
        self, model_inputs: dict[str, Any], return_timestamps: str | bool = False
    ) -> dict[str, Any]:
        is_last, kept = model_inputs.pop("is_last"), model_inputs.pop("kept")
        model_inputs.pop("frames", None)
        features, mask = model_inputs.pop("input_features"), model_inputs.pop("attention_mask")
        outputs = self.model(input_features=features, attention_mask=mask)
        frames = torch.arange(outputs.logits.shape[1], device=outputs.logits.device)
        inside = (frames >= kept[:, :1]) & (frames < kept[:, 1:])
        tag_logits = self.model.classify_tags(outputs.last_hidden_state, inside)
        result = {"is_last": is_last, "kept": kept, **self._emissions(outputs.logits.float()), **model_inputs}
        if tag_logits:
            # One tensor, since the pipeline takes batches of tensors apart but not of dictionaries.
            result["tag_logits"] = torch.cat([tag_logits[name] for name in sorted(tag_logits)], dim=1).float()
        return result

    def _emissions(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is kept of logits (B, T', V), see [`Emissions`]: the likeliest tokens of each frame."""
        log_probs = logits.log_softmax(dim=-1)
        count = 1 if self.decoder is None else min(DECODER_TOKENS, logits.shape[-1])
        kept, tokens = log_probs.topk(count, dim=-1) if count > 1 else log_probs.max(dim=-1, keepdim=True)
        return {"tokens": tokens, "log_probs": kept}

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: list[dict[str, Any]],
        decoder_kwargs: dict[str, Any] | None = None,
        return_timestamps: str | bool | None = None,
        return_language: bool | None = None,
    ) -> RecognitionResult:
        """Join the windows of one audio and read text, entities, tags and times from them."""
        by_place = groupby(model_outputs, key=lambda output: tuple(output["place"][0].tolist()))
        segments = [self._heard(place, list(windows)) for place, windows in by_place]
        result = self._results.build(segments, return_timestamps)
        extra: Any = {key: [output["extra"][key] for output in model_outputs] for key in model_outputs[0]["extra"]}
        return {**extra, **result}

    def _heard(self, place: tuple[int, int], windows: list[dict[str, Any]]) -> Heard:
        """What was heard in the windows of one part."""
        bounds = [window["kept"][0].tolist() for window in windows]
        kept = [
            Emissions(*(window[name][0, start:stop].numpy() for name in ("tokens", "log_probs")))
            for window, (start, stop) in zip(windows, bounds, strict=True)
        ]
        emissions = Emissions.joined(kept)
        config, rate = self.model.config, self.feature_extractor.sampling_rate
        decoded = emissions.decode(self.decoder, self.tokenizer.pad_token_id, config.vocab_size)
        frames = sum(stop - start for start, stop in bounds)
        tag_logits = self._head_logits(windows, bounds)
        return Heard(decoded, frames, tag_logits, place[0] / rate, place[1] / rate)

    @cached_property
    def _results(self) -> ResultBuilder:
        return ResultBuilder(
            self.tokenizer.get_vocab(),
            self._seconds(self._frame_ratio),
            self.model.config.tag_labels,
            self.tokenizer.text_with_spans,
            self.model.config.confidence_temperature,
        )

    @property
    def _frame_ratio(self) -> int:
        """Feature frames for each frame of logits."""
        ratio: int = self.model.config.inputs_to_logits_ratio // self.model.config.hop_length
        return ratio

    def _seconds(self, frames: float) -> float:
        seconds: float = frames * self.feature_extractor.hop_length / self.feature_extractor.sampling_rate
        return seconds

    def _parts(self, inputs: Any, chunk_length_s: float | None, vad: bool | None) -> Iterator[_Part]:
        """Read one audio, and cut it at its pauses."""
        rate = self.feature_extractor.sampling_rate
        samples = load_audio(inputs, rate)
        stride, extra = self._context(inputs) if isinstance(inputs, dict) else ((0, 0), {})
        del inputs  # hours, perhaps
        places = [(0, len(samples))] if any(stride) else cut_at_pauses(samples, rate, vad, chunk_length_s)
        held = [samples]
        del samples
        for place in places:
            is_last = place == places[-1]
            recording = held.pop if is_last else partial(held.__getitem__, 0)  # nothing here holds the last part
            yield _Part(recording()[slice(*place)], place, stride, is_last, extra)

    def _context(self, inputs: dict[str, Any]) -> tuple[tuple[int, int], dict[str, Any]]:
        """The frames of features to drop at both ends, and what else a dictionary held, to be handed back."""
        extra = {key: value for key, value in inputs.items() if key not in _AUDIO_KEYS}
        stride = inputs.get("stride") or (0, 0)
        if any(stride) and "sampling_rate" not in inputs:
            raise ValueError("`stride` counts samples: give their `sampling_rate`, in Hz, beside it.")
        left, right = (round(count / (inputs["sampling_rate"] * self._seconds(1))) if count else 0 for count in stride)
        return (left, right), extra

    def _head_logits(self, model_outputs: list[dict[str, Any]], bounds: list[list[int]]) -> np.ndarray:
        """Logits of all categories; the heads are linear, so windows add up weighted by their frames."""
        if "tag_logits" not in model_outputs[0]:
            return np.zeros(0)
        total = sum(output["tag_logits"][0] * (b - a) for output, (a, b) in zip(model_outputs, bounds, strict=True))
        mean: np.ndarray = (total / max(sum(b - a for a, b in bounds), 1)).numpy()
        return mean


def _collate(windows: list[dict[str, Any]]) -> dict[str, Any]:
    """Windows as one batch."""
    inputs: dict[str, Any] = {name: [window[name] for window in windows] for name in windows[0]}
    for name in ("input_features", "attention_mask"):
        inputs[name] = pad_sequence([tensor[0] for tensor in inputs[name]], batch_first=True)
    for name in ("kept", "place"):
        inputs[name] = torch.cat(inputs[name])
    return inputs


def _finish(outputs: dict[str, Any]) -> dict[str, Any]:
    """Wait until what a GPU was asked for is there."""
    if "done" in outputs:
        outputs.pop("done").synchronize()
    return outputs


def _one_ahead(items: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give each item once the next one is begun."""
    waiting: dict[str, Any] | None = None
    for item in items:
        if waiting is not None:
            yield waiting
        waiting = item
    if waiting is not None:
        yield waiting


__all__ = ["CitrinetPipeline"]
