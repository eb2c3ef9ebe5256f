"""The model that comes with the package does on the example clips what its card says."""

import json
import re
from pathlib import Path

import pytest
from transformers import pipeline

import citrinet
from citrinet.cli import main
from citrinet.manifest import read_manifest

EXAMPLES = Path(__file__).parents[1] / "examples"
FOLDER = Path(citrinet.default_model())
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recognizer():
    return pipeline("automatic-speech-recognition", citrinet.default_model(), device="cpu")


def test_it_fits_into_the_package():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 28e6


@pytest.mark.slow
def test_clips_read_as_the_card_says(recognizer):
    rows = re.findall(r"^\| `(\w+\.flac)` \| (\S+) \| (\S+) \|", CARD, re.MULTILINE)
    entries = {entry.audio.name: entry for entry in read_manifest(EXAMPLES / "clips.jsonl")}
    assert {name for name, *_ in rows} == entries.keys()
    for name, _, written in rows:
        result = recognizer(str(EXAMPLES / name))
        assert result["text"] == written
        assert result["tags"].keys() == {"AGE", "DIALECT", "GENDER"}


def test_no_model_named_means_this_one(capsys):
    assert main(["transcribe", "--json", str(EXAMPLES / "song.flac")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["text"] in CARD and result["tags"]["GENDER"]["score"] > 0
