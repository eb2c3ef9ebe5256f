"""Speak the texts of step 1 into a folder of speech."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from tqdm.auto import tqdm

from citrinet.cli.termination import unwinding_when_terminated

from ..utterance import Utterance, read_utterances
from .fetch import fetch
from .recordings import write_recordings
from .sound import RATE
from .store import SpeechStore, SpeechWriter
from .voice import Voice, load_voice

_SAVE_EVERY = 10.0  # seconds
_HELDOUT_SHARE = 0.25  # maximum fraction of the time, so that a slow machine still gets training speech


@dataclass(frozen=True)
class Options:
    """
    Options of the step.

    Args:
        out: folder of the run; `text/train.jsonl.gz` and `text/heldout.jsonl.gz` in it are read, `speech/train`,
            `speech/heldout` and `heldout` are written.
        seconds: time limit; by default everything is spoken.
        limit: maximum number of utterances of each kind, including existing ones; by default all.
        train: files of utterances to speak instead of `text/train.jsonl.gz`.
        heldout: the same for `text/heldout.jsonl.gz`.
        backend: see [`load_voice`].
        device: see [`load_voice`].
        model: folder of Kokoro, see [`fetch`].
        seed: random seed of the noise in voiceless sounds.
    """

    out: Path
    seconds: float | None = None
    limit: int | None = None
    train: Sequence[Path] = ()
    heldout: Sequence[Path] = ()
    backend: str | None = None
    device: str | None = None
    model: Path | None = None
    seed: int = 0


def run(options: Options) -> bool:
    """
    Speak the held-out utterances, then the training utterances; existing speech is kept.

    Utterances of children are stored as Kokoro speaks them: training turns them into children's voices, differently in
    each epoch. In the recordings in `out/heldout` the voices are changed, see [`write_recordings`].

    Args:
        options: the options.

    Returns:
        Whether all utterances were tried; if not, the time was up.

    Raises:
        OSError, ValueError: if a file is missing or has a line that is not an utterance.
    """
    begin = time.monotonic()
    text, speech = options.out / "text", options.out / "speech"
    heldout = _first(options.heldout or [text / "heldout.jsonl.gz"], options.limit)
    train = _first(options.train or [text / "train.jsonl.gz"], options.limit)
    voice = load_voice(fetch(options.model), options.backend, options.device)
    torch.manual_seed(options.seed)
    now = time.monotonic()
    end = begin + options.seconds if options.seconds is not None else None
    heldout_end = now + _HELDOUT_SHARE * (end - now) if end is not None else None
    with unwinding_when_terminated():
        done = speak(heldout, speech / "heldout", voice, heldout_end)
        write_recordings(heldout, SpeechStore(speech / "heldout"), options.out / "heldout")
        return speak(train, speech / "train", voice, end) and done


def speak(utterances: Sequence[Utterance], folder: Path, voice: Voice, end: float | None = None) -> bool:
    """
    Speak the utterances that a folder lacks.

    Args:
        utterances: all utterances of the folder.
        folder: see [`SpeechWriter`].
        voice: the synthesiser.
        end: time of the monotonic clock at which to stop.

    Returns:
        Whether all utterances were tried.
    """
    with SpeechWriter(folder) as writer:
        missing = [utterance for utterance in utterances if utterance.id not in writer.ids]
        left_out: list[int] = []
        begin = saved = time.monotonic()
        before = writer.samples
        with tqdm(total=len(missing), desc=folder.name, unit="utterance", disable=not missing) as bar:
            for batch in voice.speak(missing):
                for utterance, samples in batch:
                    if samples is None:
                        left_out.append(utterance.id)
                    else:
                        writer.append(utterance.id, samples)
                bar.update(len(batch))
                now = time.monotonic()
                made = (writer.samples - before) / RATE
                bar.set_postfix_str(f"{writer.samples / RATE / 3600:.3f} h, {made / (now - begin):.1f} x real time")
                if now - saved > _SAVE_EVERY:
                    writer.save()
                    saved = now
                if end is not None and now > end:
                    break
            tried = bar.n == len(missing)
    print(f"{folder}: {len(writer.ids)} utterances, {writer.samples / RATE / 3600:.3f} h", end="")
    print(f"; stopped by the clock, {len(missing) - bar.n} are left" if not tried else "", end="")
    print(f"; silent or too long: {', '.join(map(str, left_out))}" if left_out else "")
    return tried


def _first(files: Sequence[Path], limit: int | None) -> list[Utterance]:
    return list(islice(chain.from_iterable(read_utterances(path) for path in files), limit))
