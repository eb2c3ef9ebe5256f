"""Real Mandarin recordings, where they are at hand: a folder with NeMo manifests, named by CITRINET_SPEECH."""

import json
import os
import re
from pathlib import Path

import pytest
import soundfile
from transformers import pipeline

from citrinet import default_model
from citrinet.cli import main
from citrinet.evaluation import evaluate
from helpers import forgive_scores

DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "real_zh"
SPEECH = Path(os.environ.get("CITRINET_SPEECH", DEFAULT))
_MISSING = not (SPEECH / "test.jsonl").is_file()
pytestmark = [
    pytest.mark.skipif(_MISSING, reason="no recordings: set CITRINET_SPEECH to a folder with test.jsonl"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def entries():
    return [json.loads(line) for line in (SPEECH / "test.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_manifest_gives_the_same_at_any_batch_size(entries, zh_small_dir, capsys):
    outputs = []
    for batch_size in ("1", "5"):
        arguments = ["--json", "--timestamps", "char", "--batch-size", batch_size, str(SPEECH / "test.jsonl")]
        assert main(["transcribe", "--model", str(zh_small_dir), *arguments]) == 0
        outputs.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    lines = outputs[0]
    assert forgive_scores(outputs[1]) == lines
    assert [Path(line["audio"]).name for line in lines] == [Path(e["audio_filepath"]).name for e in entries]
    assert sum(bool(line["transcript"]) for line in lines) > len(entries) / 2  # the weights are random


def test_times_lie_in_the_recording(entries, zh_small_dir):
    recognizer = pipeline("automatic-speech-recognition", model=str(zh_small_dir), device="cpu")
    for entry in entries[:8]:
        path = SPEECH / entry["audio_filepath"]
        times = [t for chunk in recognizer(str(path), return_timestamps="char")["chunks"] for t in chunk["timestamp"]]
        assert times == sorted(times)
        assert times[0] >= 0 and times[-1] <= soundfile.info(path).duration + 0.08


@pytest.mark.parametrize(
    ("manifest", "row"), [("valid.jsonl", "real, known speakers"), ("test.jsonl", "real, new speakers")]
)
def test_the_default_models_card_tells_its_error_rate(manifest, row):
    card = (Path(default_model()) / "README.md").read_text(encoding="utf-8")
    figure = re.search(rf"^\| {row} \| \d+ \| ([\d.]+) %", card, re.MULTILINE)
    result = evaluate([default_model()], SPEECH / manifest, batch_size=8, resamples=10).models[0]
    assert 100 * result.cer.rate.value == pytest.approx(float(figure[1]), abs=0.5)
