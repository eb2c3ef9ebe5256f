"""Recognisers in PyTorch, using Transformers' pipeline."""

import math
from collections.abc import Iterable, Iterator
from copy import copy
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import pipeline

from ..audio_citrinet import check_samples, load_audio
from ..batching_citrinet import batches, limits
from ..checkpoint import load_network, load_processor
from ..decoding_citrinet import Decoder
from ..information import describe_network
from ..optimized import CitrinetInferenceConfig
from ..optimized.folding import optimize
from ..pipeline_citrinet import CitrinetPipeline
from ..result_citrinet import RecognitionResult
from ..transcript_citrinet import entity_types
from .protocol import Progress, Recognizer, Timestamps

TASK = "automatic-speech-recognition"
# The first layers of Wav2Vec2 have a receptive field of 25 ms and raise on less.
OTHERS_MIN_S = 0.025
# The input of Whisper's encoder is 30 s; the pipeline cuts longer audio only on request.
WHISPER_WINDOW_S = 30.0


class _Inputs(IterableDataset[Any]):
    """Dataset over inputs, consumed lazily: of a generator, Transformers would keep all inputs until the end."""

    def __init__(self, inputs: Iterable[Any]):
        self._inputs = inputs

    def __iter__(self) -> Iterator[Any]:
        return iter(self._inputs)


class CitrinetRecognizer(Recognizer):
    """
    Recogniser for a Citrinet in PyTorch; [`load_recognizer`] returns it.

    Args:
        model: folder or Hub repository.
        precision: see [`CitrinetInferenceConfig`].
        device: PyTorch device.
        optimized: whether to fold normalisation and use faster layers for the device.
        decoder: decoder for the outputs; defaults to greedy decoding.
    """

    def __init__(self, model: str, precision: str, device: str, optimized: bool, decoder: Decoder | None = None):
        place = torch.device(device)
        if optimized and place.type == "cpu":
            arguments: dict[str, Any] = {"quantization_config": CitrinetInferenceConfig(precision)}
        elif optimized:
            arguments = {"dtype": torch.float32}
        elif precision == "int8":
            raise ValueError("int8 is for optimised networks: choose float32 or bfloat16.")
        else:
            arguments = {"dtype": getattr(torch, precision)}
        network: Any = load_network(model, **arguments)
        if optimized and place.type != "cpu":
            optimize(network, precision, place)  # directly for the device, not for this CPU first
        processor: Any = load_processor(model)
        self.model = model
        self.pipeline = CitrinetPipeline(
            model=network.to(place),
            tokenizer=processor.tokenizer,
            feature_extractor=processor.feature_extractor,
            decoder=decoder,
            device=place,
            task=TASK,
        )
        self.sampling_rate: int = processor.feature_extractor.sampling_rate
        self.tag_labels = dict(network.config.tag_labels)
        self.pieces: list[str] = processor.tokenizer.convert_ids_to_tokens(list(range(network.config.vocab_size - 1)))
        self.frame_s = network.config.inputs_to_logits_ratio / self.sampling_rate

    @property
    def decoder(self) -> Decoder | None:
        """Decoder for the outputs; `None` is greedy decoding."""
        found: Decoder | None = self.pipeline.decoder
        return found

    @decoder.setter
    def decoder(self, decoder: Decoder | None) -> None:
        self.pipeline = copy(self.pipeline)  # another recogniser may share it
        self.pipeline.decoder = decoder

    def load(self, source: Any) -> np.ndarray:
        """Read audio and check it, see [`Recognizer.load`]."""
        samples: np.ndarray = self.pipeline.feature_extractor.check(load_audio(source, self.sampling_rate))
        return samples

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
        options = {
            "batch_size": batch_size,
            "batch_seconds": batch_seconds,
            "return_timestamps": return_timestamps,
            "chunk_length_s": chunk_length_s,
            "vad": vad,
        }
        given = {name: value for name, value in options.items() if value is not None}
        recognize: Any = self.pipeline
        yield from recognize(_Inputs(waveforms), **given)

    def follow(
        self,
        waveform: np.ndarray,
        *,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        vad: bool | None = None,
    ) -> Iterator[Progress]:
        """Recognise one waveform window by window, see [`Recognizer.follow`]."""
        pipe: Any = self.pipeline
        outputs: list[dict[str, Any]] = []
        place, heard = None, 0  # the current part of the recording, and the samples of it that are done
        for window in pipe.preprocess(waveform, chunk_length_s=chunk_length_s, vad=vad):
            output = pipe.forward(window)
            outputs.append(output)
            if place != (place := output["place"][0]):
                heard = 0
            start, stop = output["kept"][0].tolist()
            heard += (stop - start) * pipe.model.config.inputs_to_logits_ratio
            if not output.pop("is_last"):
                yield Progress((place[0] + heard) / len(waveform))
        yield Progress(1.0, pipe.postprocess(outputs, return_timestamps=return_timestamps))

    def log_probs(self, waveform: np.ndarray, chunk_length_s: float | None = None) -> np.ndarray:
        """Log-probabilities of all tokens, see [`Recognizer.log_probs`]."""
        pipe: Any = self.pipeline
        parts = []
        for window in pipe.preprocess(waveform, chunk_length_s=chunk_length_s, vad=False):
            inputs = {name: window[name].to(pipe.device) for name in ("input_features", "attention_mask")}
            with torch.inference_mode():
                logits = pipe.model(**inputs).logits[0, slice(*window["kept"][0].tolist())]
            parts.append(logits.float().log_softmax(dim=-1).cpu().numpy())
        return np.concatenate(parts)

    def describe(self) -> str:
        """Describe the network, see [`Recognizer.describe`]."""
        config: Any = self.pipeline.model.config
        lines = describe_network(config, entity_types(self.pipeline.tokenizer.get_vocab()))
        dtype = str(config.dtype or "float32").removeprefix("torch.")
        rate = f"one output each {config.inputs_to_logits_ratio} samples, weights of {dtype}"
        return "\n".join([lines[0], f"  {rate}", *lines[1:]])


class OtherRecognizer(Recognizer):
    """
    Recogniser for other Transformers models, such as Wav2Vec2 or Whisper, for comparison.

    [`load_recognizer`] returns it if `citrinet_only` is false. Its results hold the output of the model as `text` and
    as `transcript`, without entities, tags, segments or times. Their confidence is always 1.0 and carries no
    information.

    Args:
        model: folder or Hub repository.
        precision: type of the weights.
        device: PyTorch device.
    """

    def __init__(self, model: str, precision: str, device: str):
        if precision == "int8":
            raise ValueError(f"int8 is for Citrinets, not for {model}: choose float32 or bfloat16.")
        self.model = model
        make: Any = pipeline  # its overloads do not accept a device name
        self.pipeline: Any = make(TASK, model=model, device=device, dtype=getattr(torch, precision))
        self.sampling_rate: int = self.pipeline.feature_extractor.sampling_rate
        self.tag_labels: dict[str, list[str]] = {}
        self.pieces: list[str] = []
        self.frame_s = 0.0
        self.decoder: Decoder | None = None

    def load(self, source: Any) -> np.ndarray:
        """Read audio and check it, see [`Recognizer.load`]."""
        samples = load_audio(source, self.sampling_rate)
        return check_samples(samples, round(OTHERS_MIN_S * self.sampling_rate), self.sampling_rate)

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
        options: dict[str, Any] = {} if chunk_length_s is None else {"chunk_length_s": chunk_length_s}
        if self.pipeline.type == "seq2seq_whisper":
            options = {"chunk_length_s": chunk_length_s or WHISPER_WINDOW_S, "ignore_warning": True}
        count, seconds = limits(batch_size, batch_seconds)
        for output in self._outputs(waveforms, count, seconds, options):
            text = output["text"]
            yield {"text": text, "transcript": text, "confidence": 1.0, "entities": [], "tags": {}, "segments": []}

    def _outputs(
        self, waveforms: Iterable[np.ndarray], count: int, seconds: float, options: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        inputs = map(self._input, waveforms)  # a generator would keep the last one
        if seconds == math.inf:
            yield from self.pipeline(_Inputs(inputs), batch_size=count, **options)
            return
        for batch in batches(inputs, lambda audio: len(audio["array"]) / self.sampling_rate, count, seconds):
            yield from self.pipeline(batch, batch_size=len(batch), **options)

    def _input(self, samples: np.ndarray) -> dict[str, Any]:
        return {"array": samples, "sampling_rate": self.sampling_rate}

    def follow(
        self,
        waveform: np.ndarray,
        *,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        vad: bool | None = None,
    ) -> Iterator[Progress]:
        """Recognise one waveform, see [`Recognizer.follow`]."""
        yield Progress(1.0, next(self.stream([waveform], chunk_length_s=chunk_length_s)))

    def log_probs(self, waveform: np.ndarray, chunk_length_s: float | None = None) -> np.ndarray:
        """Raise ValueError: these models have other outputs."""
        raise ValueError(f"{self.model} is no Citrinet: its outputs cannot be aligned or decoded here.")

    def describe(self) -> str:
        """Describe the model, see [`Recognizer.describe`]."""
        return f"{self.pipeline.model.config.model_type}: {type(self.pipeline.model).__name__}"
