"""Recogniser for exported models in onnxruntime; it imports neither PyTorch nor Transformers."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..audio_citrinet import check_samples, load_audio
from ..batching_citrinet import batches, limits
from ..decoding_citrinet import DECODER_TOKENS, Decoder, Emissions, PieceJoiner, punctuation_marks
from ..language_model import DecodingOptions
from ..result_citrinet import Heard, RecognitionResult, ResultBuilder
from ..transcript_citrinet import entity_types
from ..windows_citrinet import cut_at_pauses, cut_windows
from .onnx_folder import FRONT_END, NETWORK, TAG_HEADS, is_onnx_folder, read_description
from .protocol import Progress, Recognizer, Timestamps


class _Window(NamedTuple):
    """
    A window of features, the input of the network.

    Args:
        features: (80, T).
        kept: [start, end) of the frames of logits to keep.
        place: [start, stop), in samples, of the part of the recording to which the window belongs.
        is_last: whether this is the last window of the recording.
    """

    features: np.ndarray
    kept: tuple[int, int]
    place: tuple[int, int]
    is_last: bool


class _Output(NamedTuple):
    """Outputs kept for a window; `pooled` is the sum of its encoder outputs."""

    place: tuple[int, int]
    emissions: Emissions
    pooled: np.ndarray


class CitrinetOnnx(Recognizer):
    """
    Recogniser for a folder written by `citrinet export onnx`.

    ```python
    >>> recognizer = CitrinetOnnx("exported")
    >>> recognizer("speech.wav")  # the result of `pipeline("automatic-speech-recognition")`
    ```

    Args:
        folder: folder of the exported model.
        decoder: decoder for the outputs, or `None` for greedy decoding. The default is a beam search with the language
            model in the folder, if there is one, otherwise greedy decoding.
        threads: number of threads; onnxruntime chooses by default.
        providers: execution providers of onnxruntime.

    Raises:
        ImportError: if onnxruntime is not installed.
        OSError: if files of the export are missing.
        ValueError: if one of them is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        threads: int | None = None,
        providers: Iterable[str] = ("CPUExecutionProvider",),
        decoder: Decoder | str | None = "own",
    ):
        self.model = str(folder)
        self._facts = facts = read_description(Path(folder))
        self.pieces = pieces = facts.pieces
        joiner = PieceJoiner(
            lambda token: pieces[token] if token < len(pieces) else None,
            facts.unknown_id,
            facts.leading_boundaries,
            punctuation_marks(pieces),
        )
        self.decoder = DecodingOptions().decoder(self.model, pieces) if isinstance(decoder, str) else decoder
        self.sampling_rate = facts.sampling_rate
        self.tag_labels = facts.tag_labels
        self._feature_s = facts.hop_length / facts.sampling_rate
        self.frame_s = self._feature_s * facts.subsampling_factor
        ids = {piece: index for index, piece in enumerate(pieces)}
        self._results = ResultBuilder(
            ids, self.frame_s, facts.tag_labels, joiner.text_with_spans, facts.confidence_temperature
        )
        graphs = _Graphs(Path(folder), threads, list(providers))
        self._front_end = graphs.open(FRONT_END, ["waveform", "waveform_length"])
        self._network = graphs.open(NETWORK, ["audio_signal", "length"], [len(pieces) + 1, None])
        labels = [len(facts.tag_labels[category]) for category in sorted(facts.tag_labels)]
        self._tag_heads = graphs.open(TAG_HEADS, ["pooled_encoder"], labels) if labels else None

    def load(self, source: Any) -> np.ndarray:
        """Read audio and check it, see [`Recognizer.load`]."""
        return check_samples(load_audio(source, self.sampling_rate), self._facts.hop_length, self.sampling_rate)

    def stream(
        self,
        waveforms: Iterable[np.ndarray],
        *,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        vad: bool | None = None,
    ) -> Iterator[RecognitionResult]:
        """Recognise waveforms as they come, see [`Recognizer.stream`]."""
        windows = (window for samples in waveforms for window in self._windows(samples, chunk_length_s, vad))
        outputs: list[_Output] = []
        for is_last, output in self._hear(windows, *limits(batch_size, batch_seconds)):
            outputs.append(output)
            if is_last:
                yield self._result(outputs, return_timestamps)
                outputs = []

    def follow(
        self,
        waveform: np.ndarray,
        *,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        vad: bool | None = None,
    ) -> Iterator[Progress]:
        """Recognise one waveform window by window, see [`Recognizer.follow`]."""
        outputs: list[_Output] = []
        for is_last, output in self._hear(self._windows(waveform, chunk_length_s, vad), 1, math.inf):
            outputs.append(output)
            if not is_last:
                yield Progress(self._heard_until(outputs) / len(waveform))
        yield Progress(1.0, self._result(outputs, return_timestamps))

    def log_probs(self, waveform: np.ndarray, chunk_length_s: float | None = None) -> np.ndarray:
        """Log-probabilities of all tokens, see [`Recognizer.log_probs`]."""
        windows = self._windows(waveform, chunk_length_s, vad=False)
        kept = [logprobs[slice(*window.kept)] for window, logprobs, _ in self._run(windows, 1, math.inf)]
        return np.concatenate(kept)

    def describe(self) -> str:
        """Describe the graphs, see [`Recognizer.describe`]."""
        facts = self._facts
        dtype = self._network.get_modelmeta().custom_metadata_map.get("dtype")
        lines = [
            f"Citrinet in ONNX: {len(facts.pieces) + 1} outputs, one each "
            f"{facts.hop_length * facts.subsampling_factor} samples{f', weights of {dtype}' if dtype else ''}"
        ]
        lines += [f"  {category}: {', '.join(labels)}" for category, labels in sorted(self.tag_labels.items())]
        entities = entity_types(facts.pieces)
        return "\n".join(lines + ([f"  entities: {', '.join(entities)}"] if entities else []))

    def _windows(self, samples: np.ndarray, chunk_length_s: float | None, vad: bool | None) -> Iterator[_Window]:
        ratio = self._facts.subsampling_factor
        places = cut_at_pauses(samples, self.sampling_rate, vad, chunk_length_s)
        for place in places:
            features = self.features(samples[slice(*place)])
            windows = cut_windows(features.shape[1], self._feature_s, ratio, chunk_length_s)
            for index, (start, stop, left, right) in enumerate(windows):
                kept = left, -(-(stop - start) // ratio) - right
                is_last = place == places[-1] and index == len(windows) - 1
                yield _Window(features[:, start:stop], kept, place, is_last)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Compute the features (80, T) of samples (n,)."""
        inputs = {"waveform": samples[None], "waveform_length": np.array([len(samples)], np.int64)}
        features, length = self._front_end.run(None, inputs)
        kept: np.ndarray = features[0, :, : length[0]]
        return kept

    def _run(
        self, windows: Iterable[_Window], count: int, seconds: float
    ) -> Iterator[tuple[_Window, np.ndarray, np.ndarray]]:
        """Run the network on batches; yield windows with log-probabilities (T', V) and encoder outputs (C, T')."""
        for batch in batches(windows, lambda window: window.features.shape[1] * self._feature_s, count, seconds):
            lengths = np.array([window.features.shape[1] for window in batch], np.int64)
            frames = -(-int(lengths.max()) // self._facts.pad_to) * self._facts.pad_to
            signal = np.stack(
                [np.pad(window.features, ((0, 0), (0, frames - window.features.shape[1]))) for window in batch]
            )
            outputs = self._network.run(["logprobs", "encoder_output"], {"audio_signal": signal, "length": lengths})
            yield from zip(batch, *outputs, strict=True)

    def _hear(self, windows: Iterable[_Window], count: int, seconds: float) -> Iterator[tuple[bool, _Output]]:
        """Run the network; yield for each window whether it is the last of its recording, and the outputs to keep."""
        tokens = 1 if self.decoder is None else DECODER_TOKENS
        for window, logprobs, encoded in self._run(windows, count, seconds):
            kept = slice(*window.kept)
            emissions = Emissions.of(logprobs[kept], tokens)
            yield window.is_last, _Output(window.place, emissions, encoded[:, kept].sum(axis=-1))

    def _heard_until(self, outputs: list[_Output]) -> float:
        """Position in the recording, in samples, up to which the network has processed it."""
        start = outputs[-1].place[0]
        frames = sum(len(output.emissions.tokens) for output in outputs if output.place[0] == start)
        return start + frames * self.frame_s * self.sampling_rate

    def _result(self, outputs: list[_Output], return_timestamps: str | None) -> RecognitionResult:
        by_place = groupby(outputs, key=lambda output: output.place)
        return self._results.build([self._heard(place, list(parts)) for place, parts in by_place], return_timestamps)

    def _heard(self, place: tuple[int, int], outputs: list[_Output]) -> Heard:
        """Join and decode the windows of one part."""
        emissions = Emissions.joined([output.emissions for output in outputs])
        frames = len(emissions.tokens)
        tag_logits = np.zeros(0)
        if self._tag_heads is not None:
            pooled = np.sum([output.pooled for output in outputs], axis=0) / max(frames, 1)
            logits = self._tag_heads.run(None, {"pooled_encoder": pooled[None].astype(np.float32)})
            tag_logits = np.concatenate([category[0] for category in logits])
        decoded = emissions.decode(self.decoder, self._facts.blank_id, len(self.pieces) + 1)
        start, end = (sample / self.sampling_rate for sample in place)
        return Heard(decoded, frames, tag_logits, start, end)


class _Graphs:
    """Opens the graphs of a folder, and checks that they match the description in its other files."""

    def __init__(self, folder: Path, threads: int | None, providers: list[str]):
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ImportError('ONNX graphs need onnxruntime: pip install "citrinet[onnx]"') from error
        self._folder, self._providers, self._session = folder, providers, onnxruntime.InferenceSession
        self._options = onnxruntime.SessionOptions()
        if threads is not None:
            self._options.intra_op_num_threads = threads

    def open(self, name: str, inputs: list[str], sizes: Sequence[int | None] | None = None) -> Any:
        """Open a graph, and check the names of its inputs and the sizes of its outputs' last axes."""
        path = self._folder / name
        try:
            session = self._session(str(path), self._options, providers=self._providers)
        except Exception as error:  # onnxruntime has an exception class for every kind of damage
            raise ValueError(f"{path} is no graph that onnxruntime reads: {error}") from error
        if [node.name for node in session.get_inputs()] != inputs:
            raise ValueError(f"{path} was not written by `citrinet export onnx`: its inputs are not {inputs}.")
        found = [node.shape[-1] for node in session.get_outputs()]
        if sizes is not None and not _fit(found, sizes):
            raise ValueError(f"{path} is of another model than the other files of {self._folder}: export it again.")
        return session


def _fit(found: list[Any], sizes: Sequence[int | None]) -> bool:
    """Whether the sizes of a graph are the expected ones; dynamic sizes are strings in the graph."""
    pairs = zip(found, sizes, strict=False)
    return len(found) == len(sizes) and all(size in (None, end) or isinstance(end, str) for end, size in pairs)


__all__ = ["CitrinetOnnx", "is_onnx_folder"]
