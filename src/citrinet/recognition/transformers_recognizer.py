"""Recognisers that compute in PyTorch, through Transformers' pipeline."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import Pipeline, pipeline

from ..audio_citrinet import check_samples, load_audio
from ..checkpoint import load_network, load_processor
from ..information import describe_network
from ..optimized import CitrinetInferenceConfig
from ..pipeline_citrinet import CitrinetPipeline
from ..result_citrinet import RecognitionResult
from ..transcript_citrinet import entity_types
from .protocol import Progress, Recognizer, Timestamps

TASK = "automatic-speech-recognition"
# The first layers of Wav2Vec2 see 25 ms at once and raise on less.
OTHERS_MIN_S = 0.025
# Whisper's encoder sees 30 s; the pipeline cuts longer audio only if told so.
WHISPER_WINDOW_S = 30.0


class CitrinetRecognizer(Recognizer):
    """
    A Citrinet in PyTorch; [`load_recognizer`] makes it.

    Args:
        model: a folder or a Hub repository.
        precision: see [`CitrinetInferenceConfig`].
        device: where it runs.
        optimized: whether matrices are packed and normalisation is folded, which is faster.
    """

    def __init__(self, model: str, precision: str, device: str, optimized: bool):
        on_cpu = torch.device(device).type == "cpu"
        if optimized and on_cpu:
            arguments: dict[str, Any] = {"quantization_config": CitrinetInferenceConfig(precision)}
        elif precision == "int8":
            raise ValueError(f"int8 is for optimised networks on CPUs, not for {device}: choose float32 or bfloat16.")
        else:
            arguments = {"dtype": getattr(torch, precision)}
        network, processor = load_network(model, **arguments), load_processor(model)
        self.model = model
        self.pipeline = CitrinetPipeline(
            model=network.to(torch.device(device)),
            tokenizer=processor.tokenizer,
            feature_extractor=processor.feature_extractor,
            device=device,
            task=TASK,
        )
        self.sampling_rate: int = processor.feature_extractor.sampling_rate
        self.tag_labels = dict(network.config.tag_labels)

    def load(self, source: Any) -> np.ndarray:
        """Read audio and check it, see [`Recognizer.load`]."""
        return self.pipeline.feature_extractor.check(load_audio(source, self.sampling_rate))

    def stream(
        self,
        waveforms: Iterable[np.ndarray],
        *,
        batch_size: int = 1,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
    ) -> Iterator[RecognitionResult]:
        """Recognise waveforms as they come, see [`Recognizer.stream`]."""
        options = {"return_timestamps": return_timestamps, "chunk_length_s": chunk_length_s}
        given = {name: value for name, value in options.items() if value is not None}
        # A generator is what the pipeline takes for a stream; another iterator would be one recording to it.
        yield from self.pipeline((samples for samples in waveforms), batch_size=batch_size, **given)

    def follow(
        self, waveform: np.ndarray, *, return_timestamps: Timestamps | None = None, chunk_length_s: float | None = None
    ) -> Iterator[Progress]:
        """Recognise one waveform window by window, see [`Recognizer.follow`]."""
        windows = list(self.pipeline.preprocess(waveform, chunk_length_s=chunk_length_s))
        outputs: list[Any] = []
        for window in windows:
            outputs.append(self.pipeline.forward(window))
            outputs[-1].pop("is_last")
            if len(outputs) < len(windows):
                yield Progress(len(outputs) / len(windows))
        confidence = _confidence(outputs, self.pipeline.tokenizer.pad_token_id)
        yield Progress(1.0, self.pipeline.postprocess(outputs, return_timestamps=return_timestamps), confidence)

    def describe(self) -> str:
        """Say what the network is, see [`Recognizer.describe`]."""
        network = self.pipeline.model
        config = network.config
        lines = describe_network(config, entity_types(self.pipeline.tokenizer.get_vocab()))
        rate = f"one output each {config.inputs_to_logits_ratio} samples, weights of {config.dtype or 'float32'}"
        return "\n".join([lines[0], f"  {rate}", *lines[1:]])


class OtherRecognizer(Recognizer):
    """
    Another library's model, such as a Wav2Vec2 or a Whisper, to be compared with; [`load_recognizer`] makes it.

    Its results hold what the model wrote, as `text` and as `transcript`, and neither entities nor tags.

    Args:
        model: a folder or a Hub repository.
        precision: type of its weights.
        device: where it runs.
    """

    def __init__(self, model: str, precision: str, device: str):
        if precision == "int8":
            raise ValueError(f"int8 is for Citrinets, not for {model}: choose float32 or bfloat16.")
        self.model = model
        self.pipeline: Pipeline = pipeline(TASK, model=model, device=device, dtype=getattr(torch, precision))
        self.sampling_rate: int = self.pipeline.feature_extractor.sampling_rate
        self.tag_labels: dict[str, list[str]] = {}

    def load(self, source: Any) -> np.ndarray:
        """Read audio and check it, see [`Recognizer.load`]."""
        samples = load_audio(source, self.sampling_rate)
        return check_samples(samples, round(OTHERS_MIN_S * self.sampling_rate), self.sampling_rate)

    def stream(
        self,
        waveforms: Iterable[np.ndarray],
        *,
        batch_size: int = 1,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
    ) -> Iterator[RecognitionResult]:
        """Recognise waveforms as they come, see [`Recognizer.stream`]."""
        options: dict[str, Any] = {"return_timestamps": return_timestamps, "chunk_length_s": chunk_length_s}
        if self.pipeline.type == "seq2seq_whisper":
            options |= {"chunk_length_s": chunk_length_s or WHISPER_WINDOW_S, "ignore_warning": True}
        given = {name: value for name, value in options.items() if value is not None}
        inputs = ({"array": samples, "sampling_rate": self.sampling_rate} for samples in waveforms)
        for output in self.pipeline(inputs, batch_size=batch_size, **given):
            yield {"text": output["text"], "transcript": output["text"], "entities": [], "tags": {}}

    def follow(
        self, waveform: np.ndarray, *, return_timestamps: Timestamps | None = None, chunk_length_s: float | None = None
    ) -> Iterator[Progress]:
        """Recognise one waveform, see [`Recognizer.follow`]."""
        options: Any = {"return_timestamps": return_timestamps, "chunk_length_s": chunk_length_s}
        yield Progress(1.0, next(self.stream([waveform], **options)))

    def describe(self) -> str:
        """Say what the model is, see [`Recognizer.describe`]."""
        return f"{self.pipeline.model.config.model_type}: {type(self.pipeline.model).__name__}"


def _confidence(outputs: list[dict[str, torch.Tensor]], blank: int) -> float:
    """Mean probability of the tokens of all windows."""
    tokens, scores = (torch.cat([output[name].flatten() for output in outputs]) for name in ("tokens", "scores"))
    written = scores[tokens != blank]
    return written.mean().item() if len(written) else 0.0
