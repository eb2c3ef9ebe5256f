"""Results as HTML: transcript with entities, tags, spectrogram with characters, and the CTC output."""

import base64
import io
import zlib
from collections.abc import Container
from html import escape
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from citrinet import CitrinetFeatureExtractor
from recognition import RATE, Recognition

PICTURE_S = 60  # maximum seconds in the picture
PIXELS_A_SECOND = 96
LETTER_S = 0.4
DOUBTFUL = "not reliable 不可靠"
NO_SPEECH = "No speech was recognised: too much noise, or another language? · 没有识别到语音。"


def page(recognition: Recognition) -> str:
    """Format the result of one recording."""
    result, chunks = recognition.result, recognition.result.get("chunks", [])
    said, labels = transcript(result), tags(result["tags"], recognition.doubtful_tags)
    if not recognition.is_speech:
        said, labels, chunks = note(NO_SPEECH), "", []
    speed = recognition.seconds / recognition.duration
    facts = (
        f"{recognition.duration:.1f} s · {recognition.seconds * 1000:.0f} ms · "
        f"real-time factor 实时率 {speed:.3f} ({1 / speed:.0f}×) · confidence 置信度 {result['confidence']:.0%}"
    )
    return (
        f'<div class="ct"><div class="ct-said">{said}</div>{labels}{picture(recognition.samples, chunks)}'
        f'<div class="ct-facts">{facts}</div><details class="ct-raw"><summary>CTC</summary>{escape(result["text"])}'
        "</details></div>"
    )


def note(text: str) -> str:
    """Format a message that is shown instead of a result."""
    return f'<div class="ct-note">{escape(text)}</div>'


def transcript(result: dict[str, Any]) -> str:
    """Format the transcript, with its entities marked."""
    text, done, parts = result["transcript"], 0, []
    for entity in result["entities"]:
        kind = entity["type"]
        parts.append(escape(text[done : entity["start"]]))
        parts.append(
            f'<mark style="--hue:{hue(kind)}" data-type="{escape(kind)}">'
            f"{escape(text[entity['start'] : entity['end']])}<small>{escape(kind)}</small></mark>"
        )
        done = entity["end"]
    return "".join([*parts, escape(text[done:])])


def hue(kind: str) -> int:
    """Hue of an entity type, always the same, one of nine."""
    return zlib.crc32(kind.encode()) % 9 * 40


def tags(found: dict[str, dict[str, Any]], doubtful: Container[str] = ()) -> str:
    """Format a card for each category: label, probability, labels of head and text, and a mark if doubtful."""
    cards = []
    for category, tag in found.items():
        label, head, text = ((tag[key] or "–").removeprefix(f"{category}_") for key in ("label", "head", "text"))
        cards.append(
            f'<div class="ct-tag" data-tag="{escape(category)}"><small>{escape(category)}</small><b>{escape(label)}</b>'
            f'<div class="ct-bar"><i style="width:{tag["score"]:.0%}"></i></div><small>{tag["score"]:.0%} · '
            f"head {escape(head)} · text {escape(text)}{f' · {DOUBTFUL}' if category in doubtful else ''}</small></div>"
        )
    return f'<div class="ct-tags">{"".join(cards)}</div>' if cards else ""


def picture(samples: np.ndarray, chunks: list[dict[str, Any]]) -> str:
    """Format the spectrogram of samples (n,) with the characters at their times; a click plays one."""
    samples = samples[: PICTURE_S * RATE]
    seconds = len(samples) / RATE
    letters = []
    for start, end, text in pieces(chunks, seconds):
        letters.append(
            f'<button data-start="{start:.2f}" data-end="{end:.2f}" title="{start:.2f}–{end:.2f} s" '
            f'style="left:{start / seconds:.2%};width:{(end - start) / seconds:.2%}">{escape(text)}</button>'
        )
    return (
        f'<audio preload="auto" src="{_data_url(_wave(samples), "audio/wav")}"></audio>'
        f'<div class="ct-scroll"><div class="ct-time" style="width:{seconds * PIXELS_A_SECOND:.0f}px">'
        f'<img alt="spectrogram" src="{_data_url(_spectrogram(samples), "image/png")}">'
        f'<div class="ct-letters">{"".join(letters)}</div></div></div>'
    )


def pieces(chunks: list[dict[str, Any]], seconds: float) -> list[tuple[float, float, str]]:
    """Start, end and text of characters. CTC gives only the start; the end is the next start, or `LETTER_S` later."""
    starts = [chunk["timestamp"][0] for chunk in chunks] + [seconds]
    return [
        (start, min(max(chunk["timestamp"][1], min(after, start + LETTER_S)), seconds), chunk["text"])
        for chunk, start, after in zip(chunks, starts, starts[1:], strict=False)
        if start < seconds
    ]


def _wave(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _spectrogram(samples: np.ndarray) -> bytes:
    """Picture of the log-mel features, low frequencies at the bottom."""
    features = CitrinetFeatureExtractor().extract(samples)  # (T, 80), each bin with mean 0 and deviation 1
    level = np.clip((features.T[::-1] + 2) / 5, 0, 1)
    colours = np.stack([30 + 225 * level, 20 + 190 * level**1.6, 60 + 90 * level * (1 - level)], axis=-1)
    file = io.BytesIO()
    Image.fromarray(colours.astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
