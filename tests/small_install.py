"""
What works without PyTorch and Transformers, on the embedded model's ONNX folder: `python tests/small_install.py FOLDER`.

Run by nox in an environment of requirements/onnx.txt, and by test_onnx.py where every other package is refused.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

import citrinet
from citrinet.cli import main

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
BUS, TEXT = EXAMPLES / "bus.flac", "附近有没有去北山的公交车"


def command(*words: object) -> None:
    """Run the command line."""
    status = main([str(word) for word in words])
    if status:
        raise SystemExit(f"citrinet {' '.join(map(str, words))}: exit status {status}")


def long_audio(path: Path, rate: int = 44_100) -> None:
    """All clips twice, with pauses, at a rate that has to be resampled."""
    clips = [np.pad(citrinet.load_audio(clip), (0, 16_000)) for clip in sorted(EXAMPLES.glob("*.flac"))] * 2
    soundfile.write(path, soxr.resample(np.concatenate(clips), 16_000, rate), rate)


def check(model: str, work: Path) -> None:
    """Transcribe, from Python and in every format; words that may come; long audio cut at pauses; align."""
    recognizer = citrinet.load_recognizer(model)
    assert recognizer(str(BUS))["transcript"] == TEXT
    long_audio(work / "long.wav")
    result = recognizer(str(work / "long.wav"), return_timestamps="char")
    assert len(result["segments"]) > 1 and result["transcript"].count(TEXT) == 2, result["transcript"]

    (work / "words.txt").write_text("北山\n", encoding="utf-8")
    (work / "bus.txt").write_text(TEXT, encoding="utf-8")
    for name in ("text", "json", "srt", "vtt", "textgrid", "ctm", "tsv"):
        output = work / name
        options = ["--format", name, "--output", output, "--hot-words", work / "words.txt"]
        command("transcribe", "--model", model, *options, BUS)
        (written,) = output.iterdir()
        assert "北" in written.read_text(encoding="utf-8"), written
    command("align", "--model", model, "--format", "json", "--output", work / "aligned", BUS, work / "bus.txt")
    (written,) = (work / "aligned").iterdir()
    chunks = json.loads(written.read_text(encoding="utf-8"))["chunks"]
    assert "".join(chunk["text"] for chunk in chunks) == TEXT and all(chunk["said"] for chunk in chunks)
    command("info", model)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        check(sys.argv[1], Path(folder))
    loaded = sorted({"torch", "transformers"} & set(sys.modules))
    assert not loaded, loaded
    print("all of it works")
