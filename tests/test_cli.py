"""The `citrinet` command, run as a user runs it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from citrinet.cli import main
from helpers import synthetic_speech


@pytest.fixture(scope="module")
def audio_dir(tmp_path_factory):
    """Three good files, one of them in a folder, and three bad ones."""
    folder = tmp_path_factory.mktemp("audio")
    (folder / "more").mkdir()
    for seed, name in enumerate(["a.wav", "b.flac", "more/c.wav"]):
        soundfile.write(folder / name, synthetic_speech(2.5, seed=seed + 1), 16000)
    (folder / "bad.wav").write_bytes(b"not audio")
    (folder / "empty.wav").touch()
    soundfile.write(folder / "short.wav", np.zeros(50), 16000)
    (folder / "notes.txt").write_text("not audio either")
    return folder


@pytest.mark.slow
def test_readable_text(audio_dir, zh_small_dir, capsys):
    assert main(["transcribe", "--model", str(zh_small_dir), str(audio_dir / "a.wav")]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith(f"{audio_dir / 'a.wav'}: ")
    assert "GENDER" in output[-1]


@pytest.mark.slow
def test_json_lines(audio_dir, tiny_dir, capsys):
    files = [str(audio_dir / name) for name in ("a.wav", "b.flac")]
    arguments = ["--json", "--timestamps", "word", "--batch-size", "2", *files]
    assert main(["transcribe", "--model", str(tiny_dir), *arguments]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["audio"] for line in lines] == files
    assert all({"text", "transcript", "entities", "tags", "chunks"} <= set(line) for line in lines)
    assert lines[0]["text"] != lines[1]["text"]


@pytest.mark.slow
def test_batches_by_seconds(audio_dir, tiny_dir, capsys):
    files = [str(audio_dir / name) for name in ("a.wav", "b.flac", "more/c.wav")]

    def transcribe(*options):
        assert main(["transcribe", "--model", str(tiny_dir), *options, *files]) == 0
        return capsys.readouterr()

    alone, together = transcribe(), transcribe("--batch-seconds", "60")
    assert together.out == alone.out
    assert not alone.err and together.err == "0.0% of the batches was padding\n"


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", ["1", "2"])
def test_a_bad_file_is_reported_and_the_rest_still_done(audio_dir, tiny_dir, capsys, batch_size):
    assert main(["transcribe", "--model", str(tiny_dir), "--json", "--batch-size", batch_size, str(audio_dir)]) == 1
    captured = capsys.readouterr()
    done = [json.loads(line)["audio"] for line in captured.out.splitlines()]
    assert done == [str(audio_dir / name) for name in ("a.wav", "b.flac", "more/c.wav")]
    for name, reason in (("bad", "damaged or not audio"), ("empty", "empty"), ("short", "at least 160")):
        assert any(f"{name}.wav" in line and reason in line for line in captured.err.splitlines())


@pytest.mark.slow
def test_manifest(audio_dir, tiny_dir, capsys, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    relative = os.path.relpath(audio_dir / "a.wav", tmp_path)
    entries = [{"audio_filepath": relative, "text": "x"}, {"audio_filepath": str(audio_dir / "b.flac")}]
    manifest.write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    assert main(["transcribe", "--model", str(tiny_dir), "--json", str(manifest)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    manifest.write_text('{"text": "no audio"}\n')
    assert main(["transcribe", "--model", str(tiny_dir), str(manifest)]) == 1
    assert "line 1" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_readable(tiny_dir, capsys, tmp_path):
    assert main(["transcribe", "--model", str(tiny_dir), str(tmp_path / "missing.wav")]) == 1
    assert "missing.wav" in capsys.readouterr().err
    assert main(["transcribe", "--model", str(tiny_dir), str(tmp_path)]) == 1
    assert "no audio files" in capsys.readouterr().err


@pytest.mark.slow
def test_convert_and_info(nemo_dir, tmp_path, capsys):
    output = tmp_path / "model"
    assert main(["convert", str(nemo_dir / "zh_small.nemo"), str(output)]) == 0
    report = capsys.readouterr().out
    for expected in ("mapped: 1021 tensors", "checked: preprocessor.featurizer.fb", "total: 415,213 parameters"):
        assert expected in report
    assert main(["convert", str(nemo_dir / "zh_small.nemo"), str(output)]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["info", str(output)]) == 0
    description = capsys.readouterr().out
    for expected in ("23 blocks", "adapter zh", "GENDER_MALE", "SONG_NAME"):
        assert expected in description
    assert main(["info", str(nemo_dir / "zh_small.nemo")]) == 0
    assert "total: 415,213 parameters" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_checkpoint_that_is_none(tmp_path, capsys):
    (tmp_path / "model.nemo").write_bytes(b"junk")
    assert main(["convert", str(tmp_path / "model.nemo"), str(tmp_path / "out")]) == 1
    assert main(["info", str(tmp_path / "model.nemo")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all("not a .nemo archive" in line for line in errors)
    assert [path.name for path in tmp_path.iterdir()] == ["model.nemo"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["convert"],
        ["transcribe"],
        ["transcribe", "--batch-size", "0", "a.wav"],
        ["transcribe", "--batch-seconds", "nan", "a.wav"],
        ["serve", "--port", "70000"],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: citrinet" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["convert"], ["transcribe"], ["info"], ["export", "nemo"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    out, err = capsys.readouterr()
    assert (caught.value.code, err) == (0, "")
    assert out.startswith("usage: citrinet")


@pytest.mark.slow
def test_the_package_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "citrinet.cli", "--help"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("usage: citrinet") and not run.stderr
