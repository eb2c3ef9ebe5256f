"""From the texts of the step before to a folder of speech."""

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
_HELDOUT_SHARE = 0.25  # of the time, at most: a slow machine is to have something to train on


@dataclass(frozen=True)
class Options:
    """
    What to speak, and with what.

    Args:
        out: folder of the run; `text/train.jsonl.gz` and `text/heldout.jsonl.gz` in it are read, `speech/train`,
            `speech/heldout` and `heldout` are written.
        seconds: for all of it; without it everything is spoken.
        limit: how many utterances of each kind are spoken, those that are there already included; all by default.
        train: files of utterances to speak instead of `text/train.jsonl.gz`.
        heldout: the same for `text/heldout.jsonl.gz`.
        backend: see [`load_voice`].
        device: see [`load_voice`].
        model: Kokoro's folder, see [`fetch`].
        seed: of the noise in voiceless sounds.
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
    Speak the held-out utterances, then those to train on; what is there already stays.

    Utterances of children sound as Kokoro speaks them: training makes children of them, other ones in each epoch. The
    recordings in `out/heldout` are of children, see [`write_recordings`].

    Args:
        options: what to do.

    Returns:
        Whether everything was tried; if not, the clock ran out.

    Raises:
        OSError, ValueError: in one line, for what is missing or no utterance.
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
    Speak what a folder lacks.

    Args:
        utterances: what the folder shall hold.
        folder: see [`SpeechWriter`].
        voice: who speaks.
        end: time of the monotonic clock at which to stop.

    Returns:
        Whether all was tried.
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
