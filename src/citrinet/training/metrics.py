"""Error rate and tag accuracy on the validation data, for Transformers' `Trainer`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import EvalPrediction

from ..decoding_citrinet import Decoded
from ..error_rates import character_edits, find_corpus_markers
from ..processing_citrinet import CitrinetProcessor
from ..result_citrinet import Heard, ResultBuilder
from ..transcript_citrinet import parse_transcript
from .data import UNKNOWN, Example


class Metrics:
    """
    Character error rate without markers, as in `citrinet evaluate`, and tag accuracy: `compute_metrics` of [`Trainer`].

    Args:
        processor: processor with the tokenizer.
        examples: the validation data in the order of the predictions; their texts are the references.
        tag_labels: category -> labels of its head.
    """

    def __init__(self, processor: CitrinetProcessor, examples: Sequence[Example], tag_labels: dict[str, list[str]]):
        self.tokenizer = processor.tokenizer
        self.tag_labels = tag_labels
        self._results = ResultBuilder(self.tokenizer.get_vocab(), 0.0, tag_labels, self.tokenizer.text_with_spans)
        texts = [example.text for example in examples]
        known = [label for labels in tag_labels.values() for label in labels]
        found = find_corpus_markers(texts, known)
        self.references = [parse_transcript(*pair).transcript for pair in zip(texts, found, strict=True)]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Compute `cer`, and `<category>_accuracy` over the utterances with a label, from predicted classes."""
        best: Any = prediction.predictions
        labels: Any = prediction.label_ids
        tags: dict[str, Any] = {}
        tag_labels: dict[str, Any] = {}
        if self.tag_labels:
            (best, tags), (_, tag_labels) = best, labels
        edits = [character_edits(*pair) for pair in zip(self.references, map(self.transcript, best), strict=True)]
        length = sum(edit.length for edit in edits)
        metrics = {"cer": sum(edit.errors for edit in edits) / max(length, 1)}
        for category in sorted(self.tag_labels):
            known = tag_labels[category] >= 0
            if known.any():
                metrics[f"{category}_accuracy"] = float(np.mean((tags[category] == tag_labels[category])[known]))
        return metrics

    def transcript(self, frames: npt.NDArray[np.integer]) -> str:
        """Convert the best token of each frame, -100 for padding, to the transcript that a recogniser would give."""
        tokens = self.tokenizer.ctc_tokens(frames[frames >= 0])
        heard = Heard(Decoded(tokens, np.zeros(len(tokens))), len(frames), np.zeros(0), 0.0, 0.0)
        return self._results.build([heard])["transcript"]


def best_classes(outputs: Any, labels: Any) -> Any:
    """
    Reduce the logits of a batch to the best token of each frame and the best tag labels, to save memory in evaluation.

    Args:
        outputs: (B, T', V) logits, or a tuple of these and category -> (B, labels) logits of the tag heads.
        labels: not used.

    Returns:
        (B, T') tokens, or a tuple of these and category -> (B,) classes.
    """
    logits, tag_logits = outputs if isinstance(outputs, tuple) else (outputs, None)
    # Frames that Trainer adds to make the batches of several processes equally long have -100 for every token.
    best: torch.Tensor = logits.argmax(dim=-1).masked_fill((logits == UNKNOWN).all(dim=-1), UNKNOWN)
    if tag_logits is None:
        return best
    return best, {category: values.argmax(dim=-1) for category, values in tag_logits.items()}
