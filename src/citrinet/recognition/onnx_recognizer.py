"""Exported models in onnxruntime, with what the pipeline returns; neither PyTorch nor Transformers is imported."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..audio_citrinet import check_samples, load_audio
from ..batching_citrinet import batches, limits
from ..decoding_citrinet import PieceJoiner, collapse, punctuation_marks
from ..result_citrinet import RecognitionResult, ResultBuilder
from ..transcript_citrinet import entity_types
from ..windows_citrinet import cut_windows
from .onnx_folder import FRONT_END, NETWORK, TAG_HEADS, is_onnx_folder, read_description
from .protocol import Progress, Recognizer, Timestamps

# A window: features (80, T), the first and last frames of logits to keep of it, whether it is the recording's last.
_Window = tuple[np.ndarray, tuple[int, int], bool]


class CitrinetOnnx(Recognizer):
    """
    Recognise speech with a folder that `citrinet export onnx` wrote.

    ```python
    >>> recognizer = CitrinetOnnx("exported")
    >>> recognizer("speech.wav")  # what `pipeline("automatic-speech-recognition")` returns
    ```

    Args:
        folder: the exported model.
        threads: threads of onnxruntime; its own choice if not given.
        providers: where onnxruntime computes.

    Raises:
        ImportError: without onnxruntime.
        OSError: if files of the export are missing.
        ValueError: if one of them is damaged.
    """

    def __init__(
        self, folder: str | Path, threads: int | None = None, providers: Iterable[str] = ("CPUExecutionProvider",)
    ):
        self.model = str(folder)
        self._facts = facts = read_description(Path(folder))
        pieces = facts.pieces
        self._joiner = PieceJoiner(
            lambda token: pieces[token] if token < len(pieces) else None,
            facts.unknown_id,
            facts.leading_boundaries,
            punctuation_marks(pieces),
        )
        self.sampling_rate = facts.sampling_rate
        self.tag_labels = facts.tag_labels
        self._frame_s = facts.hop_length / facts.sampling_rate
        ids = {piece: index for index, piece in enumerate(pieces)}
        self._results = ResultBuilder(ids, self._frame_s * facts.subsampling_factor)
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
    ) -> Iterator[RecognitionResult]:
        """Recognise waveforms as they come, see [`Recognizer.stream`]."""
        windows = (window for samples in waveforms for window in self._windows(samples, chunk_length_s))
        outputs: list[dict[str, np.ndarray]] = []
        for is_last, output in self._hear(windows, *limits(batch_size, batch_seconds)):
            outputs.append(output)
            if is_last:
                yield self._result(outputs, return_timestamps)
                outputs = []

    def follow(
        self, waveform: np.ndarray, *, return_timestamps: Timestamps | None = None, chunk_length_s: float | None = None
    ) -> Iterator[Progress]:
        """Recognise one waveform window by window, see [`Recognizer.follow`]."""
        windows = list(self._windows(waveform, chunk_length_s))
        outputs: list[dict[str, np.ndarray]] = []
        for _, output in self._hear(iter(windows), 1, math.inf):
            outputs.append(output)
            if len(outputs) < len(windows):
                yield Progress(len(outputs) / len(windows))
        tokens, scores = (np.concatenate([output[key] for output in outputs]) for key in ("tokens", "scores"))
        written = scores[tokens != self._facts.blank_id]
        confidence = float(written.mean()) if len(written) else 0.0
        yield Progress(1.0, self._result(outputs, return_timestamps), confidence)

    def describe(self) -> str:
        """Say what the graphs are, see [`Recognizer.describe`]."""
        facts = self._facts
        dtype = self._network.get_modelmeta().custom_metadata_map.get("dtype")
        lines = [
            f"Citrinet in ONNX: {len(facts.pieces) + 1} outputs, one each "
            f"{facts.hop_length * facts.subsampling_factor} samples{f', weights of {dtype}' if dtype else ''}"
        ]
        lines += [f"  {category}: {', '.join(labels)}" for category, labels in sorted(self.tag_labels.items())]
        entities = entity_types(facts.pieces)
        return "\n".join(lines + ([f"  entities: {', '.join(entities)}"] if entities else []))

    def _windows(self, samples: np.ndarray, chunk_length_s: float | None) -> Iterator[_Window]:
        features, ratio = self.features(samples), self._facts.subsampling_factor
        windows = cut_windows(features.shape[1], self._frame_s, ratio, chunk_length_s)
        for index, (start, stop, left, right) in enumerate(windows):
            end = -(-(stop - start) // ratio) - right
            yield features[:, start:stop], (left, end), index == len(windows) - 1

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(n,) samples to (80, T) features."""
        inputs = {"waveform": samples[None], "waveform_length": np.array([len(samples)], np.int64)}
        features, length = self._front_end.run(None, inputs)
        kept: np.ndarray = features[0, :, : length[0]]
        return kept

    def _hear(
        self, windows: Iterator[_Window], count: int, seconds: float
    ) -> Iterator[tuple[bool, dict[str, np.ndarray]]]:
        """Run the network over batches; for each window whether it is the last of its recording, and what to keep."""
        for batch in batches(windows, lambda window: window[0].shape[1] * self._frame_s, count, seconds):
            lengths = np.array([features.shape[1] for features, *_ in batch], np.int64)
            frames = -(-int(lengths.max()) // self._facts.pad_to) * self._facts.pad_to
            signal = np.stack([np.pad(item[0], ((0, 0), (0, frames - item[0].shape[1]))) for item in batch])
            outputs = self._network.run(["logprobs", "encoder_output"], {"audio_signal": signal, "length": lengths})
            for (_, (start, end), is_last), logprobs, encoded in zip(batch, *outputs, strict=True):
                kept = logprobs[start:end]
                tokens = kept.argmax(axis=-1)
                scores = np.exp(np.take_along_axis(kept, tokens[:, None], axis=-1)[:, 0])
                pooled = encoded[:, start:end].sum(axis=-1)
                yield is_last, {"tokens": tokens, "scores": scores, "pooled": pooled}

    def _result(self, parts: list[dict[str, np.ndarray]], return_timestamps: str | None) -> RecognitionResult:
        tokens, scores = (np.concatenate([part[key] for part in parts]) for key in ("tokens", "scores"))
        tag_logits = np.zeros(0)
        if self._tag_heads is not None:
            pooled = np.sum([part["pooled"] for part in parts], axis=0) / max(len(tokens), 1)
            logits = self._tag_heads.run(None, {"pooled_encoder": pooled[None].astype(np.float32)})
            tag_logits = np.concatenate([category[0] for category in logits])
        ctc_tokens = collapse(tokens.tolist(), self._facts.blank_id)
        text, spans = self._joiner.text_with_spans(ctc_tokens)
        return self._results.build(text, spans, ctc_tokens, scores, self.tag_labels, tag_logits, return_timestamps)


class _Graphs:
    """Opens the graphs of a folder, and makes sure that they are the ones that its other files describe."""

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
        """The session of a graph with these inputs, and these sizes of the last axes of its outputs."""
        path = self._folder / name
        try:
            session = self._session(str(path), self._options, providers=self._providers)
        except Exception as error:  # onnxruntime has a class for every way to be damaged
            raise ValueError(f"{path} is no graph that onnxruntime reads: {error}") from error
        if [node.name for node in session.get_inputs()] != inputs:
            raise ValueError(f"{path} was not written by `citrinet export onnx`: its inputs are not {inputs}.")
        found = [node.shape[-1] for node in session.get_outputs()]
        if sizes is not None and not _fit(found, sizes):
            raise ValueError(f"{path} is of another model than the other files of {self._folder}: export it again.")
        return session


def _fit(found: list[Any], sizes: Sequence[int | None]) -> bool:
    """Whether sizes are as they should be; those that a graph leaves open, it names by strings."""
    pairs = zip(found, sizes, strict=False)
    return len(found) == len(sizes) and all(size in (None, end) or isinstance(end, str) for end, size in pairs)


__all__ = ["CitrinetOnnx", "is_onnx_folder"]
