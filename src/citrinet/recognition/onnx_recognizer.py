"""Exported models in onnxruntime, with what the pipeline returns; neither PyTorch nor Transformers is imported."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..audio_citrinet import check_samples, load_audio
from ..decoding_citrinet import PieceJoiner, collapse, punctuation_marks
from ..result_citrinet import RecognitionResult, ResultBuilder
from ..transcript_citrinet import entity_types
from ..windows_citrinet import cut_windows
from .protocol import Progress, Recognizer, Timestamps

FRONT_END, NETWORK, TAG_HEADS = "frontend.onnx", "model.onnx", "tag_classifier.onnx"


def is_onnx_folder(path: str | Path) -> bool:
    """Whether a path is a folder that `citrinet export onnx` wrote."""
    return all((Path(path) / name).is_file() for name in (FRONT_END, NETWORK, "vocabulary.json"))


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
        self._folder, self.model = Path(folder), str(folder)
        vocabulary = self._json("vocabulary.json")
        config = self._json("config.json")
        self._blank = vocabulary["blank_id"]
        self._pieces: list[str] = vocabulary["vocabulary"]
        pieces = self._pieces
        self._joiner = PieceJoiner(
            lambda token: pieces[token] if token < len(pieces) else None,
            vocabulary["unknown_id"],
            vocabulary["leading_boundaries"],
            punctuation_marks(pieces),
        )
        preprocessor = config["preprocessor"]
        self.sampling_rate: int = preprocessor["sample_rate"]
        self._hop = preprocessor["hop_length"]
        self._multiple = preprocessor["pad_to"]
        self._ratio = config["subsampling_factor"]
        self._frame_s = self._hop / self.sampling_rate
        frame_s = self._frame_s * self._ratio
        self._results = ResultBuilder({piece: index for index, piece in enumerate(pieces)}, frame_s)
        self._start_sessions(threads, list(providers))

    def _start_sessions(self, threads: int | None, providers: list[str]) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ImportError('ONNX graphs need onnxruntime: pip install "citrinet[onnx]"') from error
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        sessions = {}
        for name in (FRONT_END, NETWORK, TAG_HEADS):
            path = self._folder / name
            if path.is_file():
                try:
                    sessions[name] = onnxruntime.InferenceSession(str(path), options, providers=providers)
                except Exception as error:  # onnxruntime has a class for every way to be damaged
                    raise ValueError(f"{path} is no graph that onnxruntime reads: {error}") from error
        self._front_end, self._network = sessions[FRONT_END], sessions[NETWORK]
        self._tag_heads = sessions.get(TAG_HEADS)
        categories = self._json("tag_classifier.json")["categories"] if self._tag_heads else {}
        self.tag_labels = {category: facts["labels"] for category, facts in categories.items()}

    def _json(self, name: str) -> dict[str, Any]:
        path = self._folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: export the model again ({error}).") from error

    def load(self, source: Any) -> np.ndarray:
        """Read audio and check it, see [`Recognizer.load`]."""
        return check_samples(load_audio(source, self.sampling_rate), self._hop, self.sampling_rate)

    def stream(
        self,
        waveforms: Iterable[np.ndarray],
        *,
        batch_size: int = 1,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
    ) -> Iterator[RecognitionResult]:
        """Recognise waveforms as they come, see [`Recognizer.stream`]."""
        windows = (window for samples in waveforms for window in self._windows(samples, chunk_length_s))
        outputs: list[dict[str, np.ndarray]] = []
        for is_last, output in self._hear(windows, batch_size):
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
        for _, output in self._hear(iter(windows), batch_size=1):
            outputs.append(output)
            if len(outputs) < len(windows):
                yield Progress(len(outputs) / len(windows))
        tokens, scores = (np.concatenate([output[key] for output in outputs]) for key in ("tokens", "scores"))
        written = scores[tokens != self._blank]
        confidence = float(written.mean()) if len(written) else 0.0
        yield Progress(1.0, self._result(outputs, return_timestamps), confidence)

    def describe(self) -> str:
        """Say what the graphs are, see [`Recognizer.describe`]."""
        lines = [f"Citrinet in ONNX: {len(self._pieces) + 1} outputs, one each {self._hop * self._ratio} samples"]
        lines += [f"  {category}: {', '.join(labels)}" for category, labels in sorted(self.tag_labels.items())]
        entities = entity_types(self._pieces)
        return "\n".join(lines + ([f"  entities: {', '.join(entities)}"] if entities else []))

    def _windows(self, samples: np.ndarray, chunk_length_s: float | None) -> Iterator[tuple]:
        """Features (80, T) of each window, the frames of logits to keep of it, and whether it is the last."""
        features = self.features(samples)
        windows = cut_windows(features.shape[1], self._frame_s, self._ratio, chunk_length_s)
        for index, (start, stop, left, right) in enumerate(windows):
            end = -(-(stop - start) // self._ratio) - right
            yield features[:, start:stop], (left, end), index == len(windows) - 1

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(n,) samples to (80, T) features."""
        inputs = {"waveform": samples[None], "waveform_length": np.array([len(samples)], np.int64)}
        features, length = self._front_end.run(None, inputs)
        return features[0, :, : length[0]]

    def _hear(self, windows: Iterator[tuple], batch_size: int) -> Iterator[tuple[bool, dict[str, np.ndarray]]]:
        """Run the network over batches; for each window whether it is the last of its recording, and what to keep."""
        while batch := list(islice(windows, batch_size)):
            lengths = np.array([features.shape[1] for features, *_ in batch], np.int64)
            frames = -(-int(lengths.max()) // self._multiple) * self._multiple
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
        ctc_tokens = collapse(tokens.tolist(), self._blank)
        text, spans = self._joiner.text_with_spans(ctc_tokens)
        return self._results.build(text, spans, ctc_tokens, scores, self.tag_labels, tag_logits, return_timestamps)


__all__ = ["CitrinetOnnx", "is_onnx_folder"]
