"""`pipeline("automatic-speech-recognition")` for Citrinet: text, transcript, entities, tags and timestamps."""

import inspect
import math
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from itertools import chain, groupby
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import AutomaticSpeechRecognitionPipeline

from .audio_citrinet import load_audio
from .batching_citrinet import batches, limits
from .decoding_citrinet import DECODER_TOKENS, Decoder, Emissions
from .feature_extraction_citrinet import send
from .modeling_citrinet import refuse_unknown_arguments
from .result_citrinet import Heard, RecognitionResult, ResultBuilder
from .windows_citrinet import cut_at_pauses, cut_windows

# Most audio whose features a GPU computes together; a longer waveform is computed by itself. It is what fits a CUDA
# graph, so that the CPU prepares the next features while the GPU works on the ones before.
FEATURES_AT_ONCE_S = 160.0
_STOCK_PARAMETERS = inspect.signature(AutomaticSpeechRecognitionPipeline._sanitize_parameters).parameters.keys()
_AUDIO_KEYS = ("raw", "array", "bytes", "path", "sampling_rate", "stride")

Item = TypeVar("Item")


class _Stream(IterableDataset[Any]):
    """Dataset over an iterator; it can be read once."""

    def __init__(self, iterator: Iterator[Any]):
        self.iterator = iterator

    def __iter__(self) -> Iterator[Any]:
        return self.iterator


class _Part(NamedTuple):
    """
    A part of a recording that is recognised separately.

    Args:
        samples: (n,) samples of the part.
        place: [start, stop) of the part in the recording, in samples.
        stride: numbers of feature frames at the start and end that are only context.
        is_last: whether this is the last part of the recording.
        extra: other values of the input, which are returned with the result.
    """

    samples: np.ndarray
    place: tuple[int, int]
    stride: tuple[int, int]
    is_last: bool
    extra: dict[str, Any]

    def without_samples(self) -> "_Part":
        """Return the part without samples, to free their memory once the features are computed."""
        return self._replace(samples=self.samples[:0].copy())


class _Window(NamedTuple):
    """
    A part of a recording, or a window of it, as input of the network.

    Args:
        features: (T, feature_size), on the device that computed them.
        kept: [start, stop) of the frames of logits that are not only context.
        place, extra: those of the [`_Part`].
        is_last: whether this is the last window of the recording.
    """

    features: torch.Tensor
    kept: tuple[int, int]
    place: tuple[int, int]
    extra: dict[str, Any]
    is_last: bool

    def without_features(self) -> dict[str, Any]:
        """What the network does not need."""
        return {"place": [self.place], "extra": self.extra, "is_last": self.is_last}


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

    `text` is the output of the CTC head, as in the stock pipeline. A tag's `label` comes from the tag head, or from the
    text if the head says NONE; `score` is the probability that this source gave it, and `head` and `text` are the
    labels of the two sources. Times are in seconds.

    In addition to the arguments of the stock pipeline:

    * `return_timestamps="char" | "word"` adds `chunks`, the characters or words of `transcript` with their times.
      Each Chinese or Japanese character is a word; other words are separated by spaces.
    * `vad`: whether to cut audio at pauses, found by voice activity detection, and recognise each segment of speech
      separately. By default this is done above 30 s, unless `chunk_length_s` is given.
    * `chunk_length_s`: window length in seconds; 0 processes audio of any length in one pass. By default, audio of more
      than 120 s without a pause is cut into windows of 30 s. Features are computed before the audio is cut into
      windows, so they are the same as in one pass.
    * `decoder`, an argument of `pipeline()`: a [`Decoder`], such as a beam search with a language model, or `None` for
      greedy decoding. The default is a beam search with the model's own language model, if it has one and the package
      citrinet is installed.
    * `batch_seconds`: seconds of audio in a batch, including padding. `batch_size` then limits the batch only if it is
      given.
    * any audio that [`load_audio`] accepts, without ffmpeg if soundfile can read it.
    """

    modelcard: Any = None  # Transformers 5.0 reads it when saving but never sets it

    feature_extractor: Any  # may be None in the base class
    tokenizer: Any
    model: Any
    decoder: Decoder | None

    def __init__(self, *args: Any, decoder: Decoder | str | None = "own", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.decoder = self._own_decoder() if isinstance(decoder, str) else decoder

    def _own_decoder(self) -> Decoder | None:
        try:
            from citrinet.language_model import DecodingOptions
        except ImportError:  # this file was loaded from the Hub, without the package
            return None
        pieces = self.tokenizer.convert_ids_to_tokens(list(range(self.model.config.vocab_size - 1)))
        decoder: Decoder | None = DecodingOptions().decoder(self.model.name_or_path, pieces)
        return decoder

    @overload  # type: ignore[override]  # the base class declares a list of dictionaries for any input
    def __call__(self, inputs: list[Any], **kwargs: Any) -> list[RecognitionResult]: ...

    @overload
    def __call__(self, inputs: Iterator[Any], **kwargs: Any) -> Iterator[RecognitionResult]: ...

    @overload
    def __call__(self, inputs: Any, **kwargs: Any) -> RecognitionResult: ...

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """
        Transcribe one recording, or each item of a list, an iterator or a dataset.

        Args:
            inputs: anything that [`load_audio`] accepts. A dictionary may also have `"stride"`, the numbers of samples
                at its start and end that are context and not transcribed, and further entries, which are returned in
                lists.
            **kwargs: arguments of the stock pipeline; arguments of `generate` are accepted but have no effect.

        Returns:
            [`RecognitionResult`]; a list for a list, an iterator for an iterator, which keeps no audio in memory.

        Raises:
            OSError: if a file cannot be read.
            TypeError: if an argument is unknown.
            ValueError: if the input is not audio, is too short, or holds NaN.
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
        own = {name: value for name, value in kwargs.items() if name in _STOCK_PARAMETERS}
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
        """Yield the features of each part of one recording, whole or in overlapping windows."""
        parts = self._parts(inputs, chunk_length_s, vad)
        del inputs  # may be hours of samples
        for part in parts:
            waveforms, part = [part.samples], part.without_samples()
            (features,) = self._features(waveforms)
            for window in self._cut(features, part, chunk_length_s, stride_length_s):
                yield self._inputs([window]) | window.without_features()

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
        Return the results of many inputs.

        The stock pipeline batches by number of windows and prepares one input at a time. Batches by seconds, and
        features of several inputs at a time on a GPU, are handled here.
        """
        if not hasattr(inputs, "__iter__"):  # a dataset with only `__getitem__`, perhaps for any index, and `__len__`
            items: Any = inputs
            inputs = map(items.__getitem__, range(len(items)))
        cutting = dict(preprocess_params)
        seconds = limits(batch_size, cutting.pop("batch_seconds", None))[1]
        if seconds == math.inf and self._feature_device is None:
            stock: Any = super().get_iterator
            results: Iterable[RecognitionResult] = stock(
                inputs, num_workers, batch_size, cutting, forward_params, postprocess_params
            )
            return results
        windows = self._windows(inputs, batch_size, seconds, cutting)
        outputs = self._outputs(self._batches(windows, batch_size, seconds), forward_params)
        return (self.postprocess(parts, **postprocess_params) for parts in outputs)

    def _batches(self, windows: Iterable[_Window], count: int, seconds: float) -> Iterator[list[_Window]]:
        """
        Group windows into batches.

        For a network that uses CUDA graphs they are no larger than a graph: enough to keep a GPU busy, while the CPU
        decodes the batch before and prepares the next one.
        """
        graphs: Any = self.model.get_submodule(self.model.base_model_prefix).run_blocks if self._runs_ahead else None
        if graphs is None:
            return batches(windows, lambda window: self._seconds(len(window.features)), count, seconds)
        limit = min(seconds, self._seconds(graphs.max_frames))
        return batches(windows, lambda window: self._seconds(graphs.padded_length(len(window.features))), count, limit)

    def _windows(self, inputs: Iterable[Any], count: int, seconds: float, cutting: dict[str, Any]) -> Iterator[_Window]:
        """Yield the windows of all inputs; on a GPU several inputs are prepared at a time."""
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
        self, batched_windows: Iterable[list[_Window]], forward_params: dict[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """Run the network and yield, for each input, the outputs of its windows."""
        parts: list[dict[str, Any]] = []
        for outputs, windows in self._batch_outputs(batched_windows, forward_params):
            arrays = {name: value.numpy() for name, value in outputs.items()}
            for index, window in enumerate(windows):
                is_last = window.pop("is_last")
                parts.append(window | {name: array[index : index + 1] for name, array in arrays.items()})
                if is_last:
                    yield parts
                    parts = []

    def _batch_outputs(
        self, batched_windows: Iterable[list[_Window]], forward_params: dict[str, Any]
    ) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Run the network; yield the outputs of each batch, and what else is known about each of its windows."""
        run: Any = partial(self._begin if self._runs_ahead else self.forward, **forward_params)

        def begun() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
            for windows in batched_windows:
                known = [window.without_features() for window in windows]
                inputs = self._inputs(windows)
                windows.clear()
                yield run(inputs), known

        for outputs, known in _one_ahead(begun()) if self._runs_ahead else begun():
            yield _finish(outputs), known

    def _begin(self, inputs: dict[str, Any], **forward_params: Any) -> dict[str, Any]:
        """Run the stock `forward` without waiting for the GPU; [`_finish`] waits for the outputs."""
        with self.device_placement(), torch.inference_mode():
            on_device = {name: send(values, self.device) for name, values in inputs.items()}
            outputs = self._forward(on_device, **forward_params)
            for name, value in outputs.items():
                if isinstance(value, torch.Tensor):
                    outputs[name] = value.to("cpu", non_blocking=True)  # into pinned memory, after the computation
            if self.device.type == "cuda":
                outputs["done"] = torch.cuda.current_stream(self.device).record_event()
        return outputs

    @property
    def _runs_ahead(self) -> bool:
        """Whether a batch is sent to the GPU before the previous one is decoded."""
        return self._feature_device is not None

    @property
    def _feature_device(self) -> torch.device | None:
        """The network's device if that is a GPU, where features are then computed in batches; otherwise `None`."""
        return self.device if self.device.type == "cuda" else None

    def _features(self, waveforms: list[np.ndarray]) -> list[torch.Tensor]:
        """Compute the features (T, feature_size) of each waveform; empties the list."""
        extractor = self.feature_extractor
        if self._feature_device is None:
            features = []
            while waveforms:
                log_mel = extractor.log_mel(waveforms.pop(0))
                features.append(torch.from_numpy(extractor.normalize(log_mel)))
            return features
        frames = list(map(extractor.count_frames, waveforms))  # counted here to avoid waiting for the GPU
        padded = extractor(waveforms, return_tensors="pt", device=self._feature_device)
        waveforms.clear()
        return [row[:count] for row, count in zip(padded["input_features"], frames, strict=True)]

    def _cut(
        self,
        features: torch.Tensor,
        part: _Part,
        chunk_length_s: float | None = None,
        stride_length_s: float | tuple[float, float] | list[float] | None = None,
    ) -> Iterator[_Window]:
        """Cut the features (T, feature_size) of a part into windows."""
        ratio = self._frame_ratio
        windows = cut_windows(len(features), self._seconds(1), ratio, chunk_length_s, stride_length_s)
        for index, (start, stop, left, right) in enumerate(windows):
            ends = index == len(windows) - 1
            if index == 0:
                left = part.stride[0] // ratio
            if ends:
                right = part.stride[1] // ratio
            kept = left, -(-(stop - start) // ratio) - right
            yield _Window(features[start:stop], kept, part.place, part.extra, ends and part.is_last)

    def _inputs(self, windows: list[_Window]) -> dict[str, Any]:
        """Collate windows into inputs: features (B, T, feature_size), mask (B, T) and kept frames (B, 2)."""
        lengths = [len(window.features) for window in windows]
        frames = max(lengths) + -max(lengths) % self.feature_extractor.pad_to_multiple_of
        features = windows[0].features.new_zeros(len(windows), frames, windows[0].features.shape[1])
        for row, window in zip(features, windows, strict=True):
            row[: len(window.features)] = window.features
        return {
            "input_features": features,
            # On the CPU: all that is not there is moved at once.
            "attention_mask": (torch.arange(frames) < torch.tensor(lengths)[:, None]).int(),
            "kept": torch.tensor([window.kept for window in windows]),
        }

    def _forward(  # type: ignore[override]
        self, model_inputs: dict[str, Any], return_timestamps: str | bool = False
    ) -> dict[str, Any]:
        features, mask = model_inputs.pop("input_features"), model_inputs.pop("attention_mask")
        kept = model_inputs["kept"]
        outputs = self.model(input_features=features, attention_mask=mask)
        frames = torch.arange(outputs.logits.shape[1], device=outputs.logits.device)
        inside = (frames >= kept[:, :1]) & (frames < kept[:, 1:])
        tag_logits = self.model.classify_tags(outputs.last_hidden_state, inside)
        result = model_inputs | self._emissions(outputs.logits.float())
        if tag_logits:
            # One tensor, because the pipeline splits batches of tensors but not of dictionaries.
            result["tag_logits"] = torch.cat([tag_logits[name] for name in sorted(tag_logits)], dim=1).float()
        return result

    def _emissions(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Keep the most likely tokens of each frame of logits (B, T', V), see [`Emissions`]."""
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
        """Join the windows of one recording and build its text, entities, tags and times."""
        by_place = groupby(model_outputs, key=lambda output: output["place"][0])
        segments = [self._heard(place, list(windows)) for place, windows in by_place]
        result = self._results.build(segments, return_timestamps)
        extra: Any = {key: [output["extra"][key] for output in model_outputs] for key in model_outputs[0]["extra"]}
        return {**extra, **result}

    def _heard(self, place: tuple[int, int], windows: list[dict[str, Any]]) -> Heard:
        """Join and decode the windows of one part."""
        bounds = [window["kept"][0].tolist() for window in windows]
        kept = [
            Emissions(*(np.asarray(window[name])[0, start:stop] for name in ("tokens", "log_probs")))
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

    @cached_property
    def _frame_ratio(self) -> int:
        """Number of feature frames per frame of logits."""
        ratio: int = self.model.config.inputs_to_logits_ratio // self.model.config.hop_length
        return ratio

    def _seconds(self, frames: float) -> float:
        seconds: float = frames * self.feature_extractor.hop_length / self.feature_extractor.sampling_rate
        return seconds

    def _parts(self, inputs: Any, chunk_length_s: float | None, vad: bool | None) -> Iterator[_Part]:
        """Read one recording and cut it at its pauses."""
        rate = self.feature_extractor.sampling_rate
        samples = load_audio(inputs, rate)
        stride, extra = self._context(inputs) if isinstance(inputs, dict) else ((0, 0), {})
        del inputs  # may be hours of audio
        places = [(0, len(samples))] if any(stride) else cut_at_pauses(samples, rate, vad, chunk_length_s)
        held = [samples]
        del samples
        for place in places:
            is_last = place == places[-1]
            recording = held.pop if is_last else partial(held.__getitem__, 0)  # the last part is not kept here
            yield _Part(recording()[slice(*place)], place, stride, is_last, extra)

    def _context(self, inputs: dict[str, Any]) -> tuple[tuple[int, int], dict[str, Any]]:
        """Return the numbers of feature frames to drop at both ends, and the other entries of the dictionary."""
        extra = {key: value for key, value in inputs.items() if key not in _AUDIO_KEYS}
        stride = inputs.get("stride") or (0, 0)
        if any(stride) and "sampling_rate" not in inputs:
            raise ValueError("`stride` counts samples: give their `sampling_rate`, in Hz, beside it.")
        left, right = (round(count / (inputs["sampling_rate"] * self._seconds(1))) if count else 0 for count in stride)
        return (left, right), extra

    def _head_logits(self, model_outputs: list[dict[str, Any]], bounds: list[list[int]]) -> np.ndarray:
        """Average the tag logits over windows, weighted by their frames; this is exact because the heads are linear."""
        if "tag_logits" not in model_outputs[0]:
            return np.zeros(0)
        pairs = zip(model_outputs, bounds, strict=True)
        total = sum(np.asarray(output["tag_logits"])[0] * (stop - start) for output, (start, stop) in pairs)
        mean: np.ndarray = total / max(sum(stop - start for start, stop in bounds), 1)
        return mean


def _finish(outputs: dict[str, Any]) -> dict[str, Any]:
    """Wait until the GPU has finished these outputs."""
    if "done" in outputs:
        outputs.pop("done").synchronize()
    return outputs


def _one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item after the next one has been started."""
    waiting: list[Item] = []
    for item in items:
        yield from waiting
        waiting = [item]
    yield from waiting


__all__ = ["CitrinetPipeline"]
