"""
Compare every exported form of a model on the recordings of a manifest: size, speed, and differences from PyTorch.

    python benchmarks/deploy.py MODEL MANIFEST.jsonl

Recordings are transcribed one by one, from waveform to text, by all forms in turn, round by round. Agreement is the
share of frames with PyTorch's most probable token, on PyTorch's features; changed characters are edits per character of
PyTorch's text, without markers; the error rate is against the manifest's texts. onnx-asr and sherpa-onnx read the
float32 folder with their own front ends.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import jiwer
import numpy as np
import onnx_asr
import onnxruntime
import sherpa_onnx
import torch
from tqdm.auto import tqdm
from transformers import AutoModelForCTC, AutoProcessor

from citrinet import load_audio, load_recognizer
from citrinet.convert import export_nemo
from citrinet.convert.hf_to_onnx import DTYPES, export_onnx
from citrinet.evaluation import normalize
from citrinet.manifest import read_manifest
from citrinet.transcript_citrinet import parse_transcript

RATE = 16_000
Recognizer = Callable[[np.ndarray], str]


def main() -> None:
    """Export, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    entries = list(read_manifest(options.manifest))
    audio = [load_audio(entry.segment) for entry in tqdm(entries, unit="file", disable=None)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        forms, sizes = exported(options.model, folder)
        texts, seconds = measure(forms, audio, options.rounds)
        agreement = frame_agreement(options.model, folder, audio)
    said, pytorch_text = [plain(entry.text or "") for entry in entries], [plain(text) for text in texts["PyTorch"]]
    pytorch, fp32 = statistics.median(seconds["PyTorch"]), statistics.median(seconds["onnxruntime float32"])
    print(f"{len(audio)} recordings, {sum(map(len, audio)) / RATE:.0f} s, {torch.get_num_threads()} threads\n")
    print("| form | MB | against PyTorch | against onnxruntime float32 | agreement | changed characters | CER |")
    print("|---|---|---|---|---|---|---|")
    for form in forms:
        median = statistics.median(seconds[form])
        share = f"{agreement[form]:.2%}" if form in agreement else ""
        written = [plain(text) for text in texts[form]]
        changed, error = jiwer.cer(pytorch_text, written), jiwer.cer(said, written)
        speed = f"{pytorch / median:.2f}x | {fp32 / median:.2f}x"
        print(f"| {form} | {sizes.get(form, 0):.1f} | {speed} | {share} | {changed:.2%} | {error:.2%} |")
    print(f"\nmodel.nemo: {sizes['nemo']:.1f} MB")


def exported(model: str, folder: Path) -> tuple[dict[str, Recognizer], dict[str, float]]:
    """Functions from samples (n,) to text, and sizes of files in MB, by name of the form."""
    recognizer = load_recognizer(model, optimized=False)
    forms: dict[str, Recognizer] = {"PyTorch": lambda samples: recognizer(samples)["text"]}
    sizes = {"nemo": megabytes([export_nemo(model, folder / "model.nemo", tag_heads=False).output])}
    for dtype in DTYPES:
        export_onnx(model, folder / dtype, dtype=dtype)
        graphs = load_recognizer(folder / dtype)
        forms[f"onnxruntime {dtype}"] = lambda samples, graphs=graphs: graphs(samples)["text"]
        sizes[f"onnxruntime {dtype}"] = megabytes((folder / dtype).iterdir())
    theirs = onnx_asr.load_model("nemo-conformer-ctc", folder / "float32")
    forms["onnx-asr"] = lambda samples: theirs.recognize(samples, sample_rate=RATE)
    files = [str(folder / "float32" / name) for name in ("model.onnx", "tokens.txt")]
    sherpa = sherpa_onnx.OfflineRecognizer.from_nemo_ctc(*files, num_threads=torch.get_num_threads())

    def ask_sherpa(samples: np.ndarray) -> str:
        stream = sherpa.create_stream()
        stream.accept_waveform(RATE, samples)
        sherpa.decode_stream(stream)
        return stream.result.text

    return forms | {"sherpa-onnx": ask_sherpa}, sizes


def measure(
    forms: dict[str, Recognizer], audio: list[np.ndarray], rounds: int
) -> tuple[dict[str, list[str]], dict[str, list[float]]]:
    """Texts and seconds of every round, by form."""
    texts: dict[str, list[str]] = {}
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for recognize in forms.values():
        recognize(audio[0])  # warms up
    for _ in tqdm(range(rounds), unit="round", disable=None):
        for form, recognize in forms.items():
            start = time.perf_counter()
            texts[form] = [recognize(samples) for samples in audio]
            seconds[form].append(time.perf_counter() - start)
    return texts, seconds


@torch.inference_mode()
def frame_agreement(model: str, folder: Path, audio: list[np.ndarray]) -> dict[str, float]:
    """Share of frames with PyTorch's most probable token, by form."""
    network, processor = AutoModelForCTC.from_pretrained(model).eval(), AutoProcessor.from_pretrained(model)
    equal: dict[str, list[np.ndarray]] = {}
    sessions = {dtype: onnxruntime.InferenceSession(str(folder / dtype / "model.onnx")) for dtype in DTYPES}
    for samples in tqdm(audio, unit="file", disable=None):
        inputs = processor(samples, sampling_rate=RATE)
        expected = network(**inputs).logits[0].argmax(-1).numpy()
        signal = inputs["input_features"].transpose(1, 2).numpy()
        feed = {"audio_signal": signal, "length": inputs["attention_mask"].sum(1).numpy()}
        for dtype, session in sessions.items():
            frames = session.run(["logprobs"], feed)[0][0].argmax(-1)
            equal.setdefault(f"onnxruntime {dtype}", []).append(frames[: len(expected)] == expected)
    return {form: float(np.concatenate(parts).mean()) for form, parts in equal.items()}


def megabytes(files: Iterable[Path]) -> float:
    """Total size of files in MB."""
    return sum(path.stat().st_size for path in files) / 1e6


def plain(text: str) -> str:
    """Normalise a text for error rates: no markers, punctuation or spaces."""
    return normalize(parse_transcript(text).transcript)


if __name__ == "__main__":
    main()
