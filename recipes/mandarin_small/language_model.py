"""Language model of a model, trained on the model's training sentences."""

from collections.abc import Sequence
from pathlib import Path

from citrinet.language_model.building import read_texts, train_language_model
from citrinet.language_model.options import LANGUAGE_MODEL_FILE
from citrinet.transcript_citrinet import target_text

from .text.overlap import Overlap

ORDER, PRUNE = 4, 1e-7
SETTINGS = {"weight": 0.4, "word_bonus": 1.5}


def run(out: Path, texts: Sequence[Path], exclude: Sequence[Path]) -> None:
    """
    Write `OUT/model/language_model.npz`.

    Args:
        out: folder of the run.
        texts: training texts, by default `OUT/text/train.jsonl.gz`.
        exclude: files of sentences that are left out of training, like sentences that are nearly the same.
    """
    held_out = Overlap(_plain(text) for path in exclude for text in read_texts(path))
    train_language_model(
        texts or [out / "text" / "train.jsonl.gz"],
        out / "model" / LANGUAGE_MODEL_FILE,
        order=ORDER,
        prune=PRUNE,
        excluded=lambda text: held_out.near(_plain(text)),
        settings=SETTINGS,
        force=True,
    )


def _plain(text: str) -> str:
    return target_text(text, keep_tags=False, keep_entities=False)
