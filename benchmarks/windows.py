"""
Measure how much the text of long audio changes when it is transcribed in windows instead of in one pass.

    python benchmarks/windows.py --model DIR MANIFEST.jsonl

The recordings of the manifest are joined, and transcribed in one pass and in windows of several lengths: with features
of the whole recording, as with `chunk_length_s`, and with features of each window, as in Transformers' own pipeline.
The figure is the edit distance to the text of one pass, per character of it.
"""

import argparse
from pathlib import Path

import numpy as np
from torchaudio.functional import edit_distance
from tqdm.auto import tqdm
from transformers import AutomaticSpeechRecognitionPipeline

from citrinet import load_audio, load_recognizer
from citrinet.manifest import read_manifest


def main() -> None:
    """Read the manifest, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--windows", type=float, nargs="+", default=[10, 20, 30, 60], metavar="S")
    options = parser.parse_args()
    entries = tqdm(list(read_manifest(options.manifest)), unit="file", disable=None)
    audio = np.concatenate([load_audio(entry.segment) for entry in entries])

    ours = load_recognizer(options.model, optimized=False)
    names = ("model", "tokenizer", "feature_extractor")
    stock = AutomaticSpeechRecognitionPipeline(**{name: getattr(ours.pipeline, name) for name in names}, device="cpu")
    one_pass = ours(audio, chunk_length_s=0)["text"]
    print(f"{len(audio) / 16000:.0f} s, {len(one_pass)} characters\n")
    print("| window | features of all | features of the window |\n|---|---|---|")
    for seconds in options.windows:
        texts = [recognizer(audio.copy(), chunk_length_s=seconds)["text"] for recognizer in (ours, stock)]
        changed = [edit_distance(text, one_pass) / max(len(one_pass), 1) for text in texts]
        print(f"| {seconds:g} s | {changed[0]:.1%} | {changed[1]:.1%} |")


if __name__ == "__main__":
    main()
