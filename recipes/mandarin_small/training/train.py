"""Train a model on the speech of step 2."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from citrinet import CitrinetFeatureExtractor, CitrinetProcessor
from citrinet.tokenizer.training import train_tokenizer
from citrinet.transcript_citrinet import find_markers

from ..speech.store import INDEX
from ..text.annotate import annotate
from .augmentation import RATE
from .checkpoint import STATE
from .data import REAL, SPLICED, SYNTHETIC, Corpus, Labels, Recording, read_recordings, read_speech
from .loop import Training
from .network import SIZES
from .options import Options
from .splices import splice

VOCABULARY = 6_000  # maximum size


def check(seconds: float | None, steps: int | None, size: str) -> None:
    """
    Check the options that say how long to train, and which network.

    Raises:
        ValueError: if neither `seconds` nor `steps` is given, or there is no such size.
    """
    if not (seconds or steps):
        raise ValueError("say how long to train: give --seconds or --steps.")
    if size not in SIZES:
        raise ValueError(f"there is no size {size!r}: take one of {', '.join(SIZES)}.")


def is_trained(out: Path) -> bool:
    """Whether the run in this folder is complete."""
    return (out / "model" / "model.safetensors").exists() and not (out / STATE).exists()


def is_begun(out: Path) -> bool:
    """Whether the run in this folder is complete or can be resumed."""
    return is_trained(out) or (out / STATE).exists()


def run(options: Options) -> bool:
    """
    Train a model, or resume an interrupted run.

    `out/model` is a folder that the package loads; `out/log.jsonl` has losses and scores, `out/log.png` a plot of them.
    Ctrl-C or SIGTERM ends the training after the current step; the model then has the average so far.

    Args:
        options: the options.

    Returns:
        Whether the training is complete.

    Raises:
        OSError, ValueError: if a file is missing, or files or options do not fit together.
    """
    started = time.monotonic()
    check(options.seconds, options.steps, options.size)
    if is_trained(options.out):
        print(f"{options.out / 'model'} is trained already: remove it to train again.")
        return True
    with stopped_by_signals() as stop:
        corpus, processor, labels = prepare(options)
        training = Training(options, corpus, processor, labels)
        return training.run(started, stop)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare(options: Options) -> tuple[Corpus, CitrinetProcessor, Labels]:
    """Read all speech, and train the tokenizer on the training texts."""
    speech, text = options.out / "speech", options.out / "text"
    train = options.train or [text / "train.jsonl.gz"]
    recordings = read_speech(speech / "train", train)
    if not recordings:
        raise ValueError(f"{speech / 'train'} holds no speech of {train[0]}: speak that first (the step `speech`).")
    texts = [recording.text for recording in recordings]
    if (speech / "heldout" / INDEX).exists():
        recordings += read_speech(speech / "heldout", options.heldout or [text / "heldout.jsonl.gz"])
    real = [_marked(recording) for manifest in options.real for recording in read_recordings(manifest, REAL)]
    for manifest in options.validation:
        if manifest.stem in {SYNTHETIC, REAL, SPLICED} | {recording.group for recording in recordings}:
            raise ValueError(f"{manifest}: there is a set {manifest.stem} already, give the manifest another name.")
        recordings += read_recordings(manifest, manifest.stem)
    spliced = splice(real, texts, options.splices, options.place, options.seed) if real else []
    texts += [recording.text for recording in real]
    tokenizer = train_tokenizer(texts, VOCABULARY, "char", add_dummy_prefix=False)
    labels = Labels(tokenizer, texts)
    corpus = Corpus.of([*recordings, *real, *spliced], labels, options.place)
    _describe(corpus)
    return corpus, CitrinetProcessor(CitrinetFeatureExtractor(), tokenizer), labels


def _marked(recording: Recording) -> Recording:
    """Mark entities by rules, as in the plain sentences of step 1, unless the text already has markers."""
    return recording if find_markers(recording.text) else replace(recording, text=annotate(recording.text))


def _describe(corpus: Corpus) -> None:
    for group in sorted(set(corpus.groups.tolist())):
        members = corpus.members(group)
        print(f"{group}: {len(members)} utterances, {corpus.lengths[members].sum() / RATE / 3600:.2f} h")
