"""Evaluation on validation sets, with the package's decoding and scoring."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from citrinet import CitrinetForCTC, CitrinetProcessor
from citrinet.decoding_citrinet import Decoded
from citrinet.evaluation import scoring
from citrinet.manifest import ManifestEntry
from citrinet.result_citrinet import Heard, RecognitionResult, ResultBuilder

from .batches import Loader, plain_plan
from .data import CATEGORIES, UNKNOWN, Corpus

BATCH = 64
Scores = dict[str, dict[str, float]]


class Validation:
    """
    Transcribes the validation sets of a corpus and scores the results.

    Args:
        corpus: all speech.
        loader: loader of its batches.
        processor: processor with the tokenizer.
    """

    def __init__(self, corpus: Corpus, loader: Loader, processor: CitrinetProcessor):
        self.corpus, self.loader, self.tokenizer = corpus, loader, processor.tokenizer
        self._results = ResultBuilder(
            self.tokenizer.get_vocab(), 0.0, corpus.tag_labels, self.tokenizer.text_with_spans
        )

    def __call__(self, model: CitrinetForCTC) -> Scores:
        """
        Score a model with greedy decoding in float32.

        Returns:
            Name of the set -> `recordings`, `cer`, `entity_f1` if there are entities, and the accuracy of the head of
            each tag category, if labels are known.
        """
        training = model.training
        model.train(False)
        scores = {name: self._score(model, self.corpus.members(name)) for name in self.corpus.validation_sets()}
        model.train(training)
        return scores

    def _score(self, model: CitrinetForCTC, members: NDArray[np.int64]) -> dict[str, float]:
        labels = [label for names in self.corpus.tag_labels.values() for label in names]
        entries = [self._entry(index) for index in members]
        references = scoring.annotate_references(entries, labels, list(CATEGORIES))
        hypotheses = scoring.annotate_outputs(self._recognise(model, members), labels, list(CATEGORIES))
        edits = scoring.transcript_edits(references, hypotheses)
        found = {"recordings": float(len(members)), "cer": scoring.error_rate(edits).rate.value}
        if entities := scoring.entity_score(references, hypotheses):
            found["entity_f1"] = entities.f1.value
        for category in CATEGORIES:
            score = scoring.tag_score(category, references, hypotheses)
            if score and (accuracy := score.accuracy["head"]):
                found[category.lower()] = accuracy.value
        return {name: value for name, value in found.items() if value is not None}

    def _entry(self, index: int) -> ManifestEntry:
        classes = zip(self.corpus.tag_labels.items(), self.corpus.tags[index], strict=True)
        columns = {category: labels[number] for (category, labels), number in classes if number != UNKNOWN}
        return ManifestEntry(Path(), self.corpus.texts[index], columns=columns)

    @torch.no_grad()
    def _recognise(self, model: CitrinetForCTC, members: NDArray[np.int64]) -> list[RecognitionResult]:
        """Results in the order of `members`."""
        results: dict[int, RecognitionResult] = {}
        ordered = members[np.argsort(self.corpus.lengths[members], kind="stable")]
        ratio = model.config.inputs_to_logits_ratio // model.config.hop_length
        for start in range(0, len(ordered), BATCH):
            at = ordered[start : start + BATCH]
            batch = self.loader(plain_plan(self.corpus, at), augment=False)
            output = model(batch.features, batch.mask)
            best = output.logits.argmax(dim=-1).cpu().numpy()
            tags = (
                torch.cat([output.tag_logits[category] for category in sorted(output.tag_logits)], dim=1).cpu().numpy()
            )
            for index, frames, row, tag_logits in zip(at, batch.frames.tolist(), best, tags, strict=True):
                results[int(index)] = self._result(row[: -(-frames // ratio)], tag_logits)
        return [results[int(index)] for index in members]

    def _result(self, best: NDArray[np.int64], tag_logits: NDArray[np.float32]) -> RecognitionResult:
        tokens = self.tokenizer.ctc_tokens(best)
        return self._results.build([Heard(Decoded(tokens, np.zeros(len(tokens))), len(best), tag_logits, 0.0, 0.0)])
