"""Confidence against what is right: bins, the expected calibration error, the temperature, and where it is written."""

import json
import shutil

import numpy as np
import pytest

import citrinet
from citrinet.cli import main
from citrinet.evaluation.calibration import calibration, fit_temperature, reliability, write_temperature
from citrinet.result_citrinet import calibrated


def result(text, confidences):
    chunks = [{"text": char, "confidence": value} for char, value in zip(text, confidences, strict=True)]
    return {"chunks": chunks}


def test_what_is_right_and_how_sure_the_model_was():
    found = calibration(
        [result("来首歌吧", [0.9, 0.9, 0.9, 0.3]), result("北 京。", [0.3, 0.9, 0.9, 0.3])], ["来听歌", "北京"]
    )
    low, high = found.bins
    assert (low.count, high.count) == (2, 4) and (low.right, high.right) == (0.5, 0.75)
    assert found.error == pytest.approx((2 * 0.2 + 4 * 0.15) / 6) and found.count == 6


def test_nothing_to_judge():
    assert calibration([result("", []), {}], ["来", "听"]) is None


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature):
    rng = np.random.default_rng(0)
    true = rng.uniform(0.02, 0.98, 50_000)
    right = rng.random(len(true)) < true
    said = calibrated(true, 1 / temperature)
    assert fit_temperature(said, right) == pytest.approx(temperature, rel=0.05)
    before, after = (np.mean([abs(b.confidence - b.right) for b in reliability(p, right)]) for p in (said, true))
    assert after < 0.02 and (temperature == 1 or before > 3 * after)


def test_log_odds_are_divided():
    probabilities = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    inside = probabilities[1:4]
    expected = 1 / (1 + np.exp(-np.log(inside / (1 - inside)) / 2))
    np.testing.assert_allclose(calibrated(probabilities, 2.0)[1:4], expected)
    assert calibrated(probabilities, 2.0)[0] == 0 and calibrated(probabilities, 2.0)[4] == pytest.approx(1, abs=1e-5)


@pytest.fixture
def folders(tiny_dir, tiny_onnx_dir, tmp_path):
    return [shutil.copytree(folder, tmp_path / name) for folder, name in ((tiny_dir, "torch"), (tiny_onnx_dir, "onnx"))]


def test_a_temperature_counts_in_every_recogniser(folders):
    speech = "examples/bus.flac"
    plain, graphs = (citrinet.load_recognizer(folder)(speech, return_timestamps="char") for folder in folders)
    for folder in folders:
        assert write_temperature(str(folder), 2.0) == 2.0
    for before, folder in zip((plain, graphs), folders, strict=True):
        after = citrinet.load_recognizer(folder)(speech, return_timestamps="char")
        assert after["text"] == before["text"] and after["tags"] == before["tags"]
        old, new = (np.array([chunk["confidence"] for chunk in found["chunks"]]) for found in (before, after))
        np.testing.assert_allclose(new, calibrated(old, 2.0), atol=3e-3)
    assert write_temperature(str(folders[0]), 0.75) == 1.5
    assert json.loads((folders[0] / "config.json").read_text())["confidence_temperature"] == 1.5


def test_the_command_calibrates_a_folder(folders, tmp_path, capsys):
    manifest = tmp_path / "test.jsonl"
    line = {"audio_filepath": "examples/bus.flac", "text": "附近有没有去北山的公交车"}
    manifest.write_text(json.dumps(line), encoding="utf-8")
    assert main(["evaluate", str(manifest), "--model", str(folders[0]), "--calibrate"]) == 0
    printed = capsys.readouterr()
    temperature = json.loads((folders[0] / "config.json").read_text())["confidence_temperature"]
    assert f"confidence_temperature {temperature:g}" in printed.err and "calibration error" in printed.out
    assert main(["evaluate", str(manifest), "--calibrate"]) == 1
    assert "--model FOLDER" in capsys.readouterr().err


def test_what_is_sure_and_sounds_like_speech_is_speech():
    sure = {"transcript": "来", "confidence": 0.9}
    speech = citrinet.load_audio("examples/bus.flac", 16_000)
    assert citrinet.is_speech(sure, speech) and not citrinet.is_speech(
        sure, np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    )
    assert citrinet.is_speech({"transcript": "来", "confidence": 0.9})
    assert not citrinet.is_speech({"transcript": "来", "confidence": 0.1})
    assert not citrinet.is_speech({"transcript": "", "confidence": 0.0})
