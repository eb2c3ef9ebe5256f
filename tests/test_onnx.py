"""Exported graphs: PyTorch's numbers, the files that others read, and those others themselves."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import sentencepiece
import soundfile
import soxr
import torch
from transformers import AutoModelForCTC, AutoProcessor, pipeline

import citrinet
from citrinet import CitrinetOnnx
from citrinet.cli import main
from citrinet.convert import ConversionError
from citrinet.convert.hf_to_onnx import export_onnx
from helpers import forgive_scores, synthetic_speech

ROOT = Path(__file__).parents[1]
CLIPS = sorted((ROOT / "examples").glob("*.flac"))
CARD = ROOT.parent / "shared" / "docs" / "model-card.txt"
FILES = {
    "model.onnx",
    "config.json",
    "tokenizer.model",
    "vocabulary.json",
    "tag_classifier.onnx",
    "tag_classifier.json",
}
OURS = {"frontend.onnx", "vocab.txt", "tokens.txt"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The embedded model in every type."""
    folder = tmp_path_factory.mktemp("onnx")
    for dtype in ("float32", "float16", "int8"):
        export_onnx(citrinet.default_model(), folder / dtype, dtype=dtype)
    return folder


@pytest.fixture(scope="module")
def recognizer():
    return pipeline("automatic-speech-recognition", citrinet.default_model())


def session(path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def edits(a: str, b: str) -> int:
    import jiwer

    return round(jiwer.cer(a, b) * len(a))


@pytest.mark.parametrize("name", ["base_small", "zh_small"])
def test_graph_has_pytorchs_numbers_alone_and_padded(name, request, tmp_path):
    model_dir = request.getfixturevalue(f"{name}_dir")
    export_onnx(model_dir, tmp_path / "onnx")
    model, processor = AutoModelForCTC.from_pretrained(model_dir).eval(), AutoProcessor.from_pretrained(model_dir)
    waveforms = [synthetic_speech(seconds, seed=i) for i, seconds in enumerate((1.7, 0.4, 3.0))]
    inputs = processor(waveforms, sampling_rate=16000)
    with torch.no_grad():
        expected = model(**inputs)
    mask = expected.attention_mask.numpy()
    signal, lengths = inputs["input_features"].transpose(1, 2).numpy(), inputs["attention_mask"].sum(1).numpy()
    graph = session(tmp_path / "onnx" / "model.onnx")
    logprobs, encoded = graph.run(None, {"audio_signal": signal, "length": lengths})
    reference = expected.logits.log_softmax(-1).numpy()
    assert np.abs(logprobs - reference)[mask].max() < 1e-3
    assert np.array_equal(logprobs.argmax(-1)[mask], reference.argmax(-1)[mask])
    hidden = expected.last_hidden_state.numpy()
    assert np.abs(encoded.transpose(0, 2, 1) - hidden)[mask].max() < 1e-3 * np.abs(hidden[mask]).max()
    assert not encoded.transpose(0, 2, 1)[~mask].any()
    for row, length in enumerate(lengths):
        alone = graph.run(None, {"audio_signal": signal[row : row + 1, :, :length], "length": np.array([length])})
        frames = alone[0].shape[1]
        assert np.abs(alone[0][0] - logprobs[row, :frames]).max() < 1e-3
        assert np.abs(alone[1][0] - encoded[row, :, :frames]).max() < 1e-3 * np.abs(hidden[mask]).max()


@pytest.mark.parametrize("frontend", ["nemo-2.5", "nemo-2.4"])
def test_front_end_has_the_extractors_numbers(frontend, tmp_path):
    from citrinet.convert.onnx_graphs import write_front_end

    extractor = citrinet.CitrinetFeatureExtractor(frontend=frontend)
    write_front_end(extractor, tmp_path / "frontend.onnx", 18)
    waveforms = [synthetic_speech(seconds, seed=i) for i, seconds in enumerate((1.0, 2.345, 0.0101, 0.016))]
    longest = max(map(len, waveforms))
    batch = np.stack([np.pad(waveform, (0, longest - len(waveform))) for waveform in waveforms])
    lengths = np.array([len(waveform) for waveform in waveforms])
    features, frames = session(tmp_path / "frontend.onnx").run(None, {"waveform": batch, "waveform_length": lengths})
    for row, waveform in enumerate(waveforms):
        expected = extractor.extract(waveform)
        assert frames[row] == len(expected)
        assert np.abs(features[row, :, : frames[row]].T - expected).max() < 1e-4
        assert not features[row, :, frames[row] :].any()


def test_files_are_those_of_the_card(exported):
    folder = exported / "float32"
    assert {path.name for path in folder.iterdir()} == FILES | OURS
    config = json.loads((folder / "config.json").read_text())
    preprocessor = config["preprocessor"]
    assert {"sample_rate", "window_size", "window_stride", "win_length", "hop_length", "n_fft", "features"} <= set(
        preprocessor
    )
    assert {"lowfreq", "highfreq", "preemph", "log", "log_zero_guard_type", "log_zero_guard_value"} <= set(preprocessor)
    assert {"normalize", "pad_to", "dither"} <= set(preprocessor)
    vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    tokenizer = AutoProcessor.from_pretrained(citrinet.default_model()).tokenizer
    assert vocabulary["blank_id"] == len(vocabulary["vocabulary"]) == tokenizer.pad_token_id
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    assert [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())] == vocabulary["vocabulary"]
    tags = json.loads((folder / "tag_classifier.json").read_text())
    assert tags["input_type"] == "pooled"
    model = AutoModelForCTC.from_pretrained(citrinet.default_model())
    assert tags["encoder_dim"] == model.config.hidden_size
    assert {name: facts["labels"] for name, facts in tags["categories"].items()} == model.config.tag_labels
    assert all(facts["num_classes"] == len(facts["labels"]) for facts in tags["categories"].values())


def test_inputs_and_outputs_are_those_of_the_card(exported):
    graph = session(exported / "float32" / "model.onnx")
    assert [(i.name, i.type) for i in graph.get_inputs()] == [
        ("audio_signal", "tensor(float)"), ("length", "tensor(int64)")
    ]  # fmt: skip
    assert [o.name for o in graph.get_outputs()] == ["logprobs", "encoder_output"]
    heads = session(exported / "float32" / "tag_classifier.onnx")
    assert [i.name for i in heads.get_inputs()] == ["pooled_encoder"]
    model = AutoModelForCTC.from_pretrained(citrinet.default_model()).eval()
    pooled = torch.randn(3, model.config.hidden_size)
    with torch.no_grad():
        expected = model.classify_tags(pooled[:, None])
    for name, logits in zip(sorted(expected), heads.run(None, {"pooled_encoder": pooled.numpy()}), strict=True):
        assert np.abs(logits - expected[name].numpy()).max() < 1e-4


def test_a_model_without_tags_and_one_of_characters(base_small_dir, tmp_path):
    export_onnx(base_small_dir, tmp_path / "onnx")
    assert not any("tag_classifier" in path.name for path in (tmp_path / "onnx").iterdir())
    found = CitrinetOnnx(tmp_path / "onnx")(synthetic_speech(2.0))
    assert found == pipeline("automatic-speech-recognition", str(base_small_dir))(synthetic_speech(2.0))


# The card's text has lost its indentation. Lines from its `import json` on, by depth; all others have none.
DEPTHS = {
    1: {16, 18, 20, *range(31, 34), 35, *range(37, 50), *range(52, 66), *range(70, 80), *range(82, 85), 99, 101}
    | set(range(115, 119)),
    2: {34, 36, 50, 51, 66, 68, 80, 81, 100},
    3: {67, 69},
}


@pytest.mark.skipif(not CARD.is_file(), reason="the model card's text is not at hand")
def test_the_cards_own_script_runs(exported):
    lines = CARD.read_text(encoding="utf-8").splitlines()
    heading = next(i for i, line in enumerate(lines) if line.startswith("ONNX Inference"))
    first = lines.index("import json", heading)
    last = next(i for i in range(first, len(lines)) if lines[i].startswith("Example output"))
    depth = {number: depth for depth, numbers in DEPTHS.items() for number in numbers}
    script = "\n".join("    " * depth.get(i, 0) + line for i, line in enumerate(lines[first:last]))
    script = re.sub(r'hf_hub_download\(repo, "onnx/(\S+)"\)', rf'"{exported / "float32"}/\1"', script)
    script = script.replace('"audio.wav"', f'"{ROOT / "examples" / "bus.flac"}"')
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert not run.stderr
    transcript, *tags = run.stdout.splitlines()
    assert transcript.startswith("Transcript: ") and len(transcript) > len("Transcript: ") + 3
    assert [line.split(":")[0].strip() for line in tags] == ["AGE", "DIALECT", "GENDER"]
    assert tags[2].strip() in ("GENDER: GENDER_MALE", "GENDER: GENDER_FEMALE", "GENDER: NONE")


@pytest.mark.parametrize("return_timestamps", [None, "char"])
def test_runner_returns_what_the_pipeline_does(exported, recognizer, return_timestamps):
    clips = [str(clip) for clip in CLIPS if soundfile.info(clip).samplerate == 16000]
    found = CitrinetOnnx(exported / "float32")(clips, return_timestamps=return_timestamps, batch_size=4)
    for clip, result in zip(clips, found, strict=True):
        expected = recognizer(clip, **({"return_timestamps": return_timestamps} if return_timestamps else {}))
        assert forgive_scores([result], 1e-3) == [expected]


def test_runner_takes_what_the_pipeline_takes(exported, recognizer):
    runner = CitrinetOnnx(exported / "float32")
    samples = citrinet.load_audio(CLIPS[0])
    text = recognizer(samples)["text"]
    stereo_int16 = (np.stack([samples, samples]) * 32767).astype(np.int16)
    for audio in (samples, stereo_int16, CLIPS[0].read_bytes(), {"array": samples, "sampling_rate": 16000}):
        assert runner(audio)["text"] == text
    resampled = runner({"array": np.repeat(samples, 3), "sampling_rate": 48000})["text"]
    assert edits(text, resampled) <= 3
    with pytest.raises(ValueError, match="at least 160"):
        runner(samples[:10])
    with pytest.raises(ValueError, match="NaN"):
        runner(np.full(16000, np.nan, np.float32))


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_runner_resamples_as_the_pipeline_does(rate, exported, recognizer, tmp_path):
    speech = np.concatenate([citrinet.load_audio(clip) for clip in CLIPS[:2]])
    samples = soxr.resample(speech, 16000, rate)
    path = tmp_path / "speech.flac"
    soundfile.write(path, samples, rate)
    runner = CitrinetOnnx(exported / "float32")
    assert np.array_equal(runner.load(str(path)), citrinet.load_audio(path))
    for audio in (str(path), {"array": samples, "sampling_rate": rate}, {"bytes": path.read_bytes(), "path": None}):
        expected = recognizer(audio, return_timestamps="char")
        assert expected["chunks"], "the test would compare nothing"
        assert forgive_scores([runner(audio, return_timestamps="char")], 1e-3) == [expected]


def test_front_end_of_telephone_calls(exported, recognizer):
    """
    Above 4 kHz they are empty, and those bands' deviation is as small as the last bit of their mean.

    What PyTorch rounds there differs by less than 1 from what the graph does in double precision; a graph that adds in
    single precision is off by more than 4. Below, both are the same.
    """
    extractor = recognizer.feature_extractor
    speech = np.concatenate([citrinet.load_audio(clip) for clip in CLIPS[:2]])
    samples = citrinet.load_audio({"array": soxr.resample(speech, 16000, 8000), "sampling_rate": 8000})
    inputs = {"waveform": samples[None], "waveform_length": np.array([len(samples)])}
    found = session(exported / "float32" / "frontend.onnx").run(None, inputs)[0][0].T
    error = np.abs(found - extractor.extract(samples)).max(axis=0)
    assert error.max() < 1
    assert error[extractor.mel_filters[extractor.n_fft // 4 :].sum(axis=0) == 0].max() < 1e-3


def test_runner_reads_long_audio_in_the_pipelines_windows(exported, recognizer):
    samples = np.concatenate([citrinet.load_audio(clip) for clip in CLIPS] * 6)[: 16000 * 125]
    expected = recognizer(samples)
    found = CitrinetOnnx(exported / "float32")(samples)
    assert found["text"] == expected["text"]
    assert found["tags"].keys() == expected["tags"].keys()
    assert (
        CitrinetOnnx(exported / "float32")(samples, chunk_length_s=10)["text"]
        == recognizer(samples, chunk_length_s=10)["text"]
    )


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_types_say_nearly_the_same(exported, dtype):
    size = {name: (exported / name / "model.onnx").stat().st_size for name in ("float32", dtype)}
    assert size[dtype] < {"float16": 0.55, "int8": 0.3}[dtype] * size["float32"]
    whole, small = CitrinetOnnx(exported / "float32"), CitrinetOnnx(exported / dtype)
    texts = [(whole(str(clip))["text"], small(str(clip))["text"]) for clip in CLIPS]
    assert sum(edits(a, b) for a, b in texts) <= 0.05 * sum(len(a) for a, _ in texts)


def test_int8_multiplies_in_int8(exported):
    import onnx

    operators = [node.op_type for node in onnx.load(exported / "int8" / "model.onnx").graph.node]
    assert operators.count("MatMulInteger") > 0.9 * sum(name.startswith("MatMul") for name in operators)


def test_onnx_asr_reads_it(exported):
    onnx_asr = pytest.importorskip("onnx_asr")
    theirs = onnx_asr.load_model("nemo-conformer-ctc", exported / "float32")
    ours = CitrinetOnnx(exported / "float32")
    for clip in CLIPS:
        samples, rate = soundfile.read(clip, dtype="float32")
        if rate == 16000:
            assert theirs.recognize(samples, sample_rate=rate) == ours(str(clip))["text"]


def test_sherpa_onnx_reads_it(exported):
    """Its front end is Kaldi's with other windows, so that it may hear a character differently here and there."""
    sherpa_onnx = pytest.importorskip("sherpa_onnx")
    folder = exported / "float32"
    theirs = sherpa_onnx.OfflineRecognizer.from_nemo_ctc(str(folder / "model.onnx"), str(folder / "tokens.txt"))
    ours = CitrinetOnnx(folder)
    wrong = total = 0
    for clip in CLIPS:
        samples, rate = soundfile.read(clip, dtype="float32")
        stream = theirs.create_stream()
        stream.accept_waveform(rate, samples)
        theirs.decode_stream(stream)
        text = ours(str(clip))["text"]
        wrong, total = wrong + edits(text, stream.result.text), total + len(text)
    assert wrong <= 0.2 * total


def test_command_runs_graphs_without_pytorch(exported):
    script = (
        "import sys; from citrinet.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(9 if 'torch' in sys.modules or 'transformers' in sys.modules else code)"
    )
    arguments = ["transcribe", "--json", "--model", str(exported / "float32"), str(CLIPS[0])]
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["text"] == CitrinetOnnx(exported / "float32")(str(CLIPS[0]))["text"]


@pytest.mark.parametrize(
    "order",
    ["import citrinet; from transformers import pipeline", "from transformers import pipeline; import citrinet"],
)
def test_transformers_knows_citrinet_whichever_comes_first(order):
    script = (
        f"{order}; import sys; recognizer = pipeline('automatic-speech-recognition', citrinet.default_model()); "
        "print(type(recognizer).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "CitrinetPipeline", run.stderr


def test_command_exports(tmp_path, capsys):
    arguments = ["export", "onnx", citrinet.default_model(), str(tmp_path / "onnx")]
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["transcribe", "--model", str(tmp_path / "onnx"), "--precision", "int8", str(CLIPS[0])]) == 1
    assert "--dtype" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(ValueError, match="float32, float16, int8"):
        export_onnx(citrinet.default_model(), tmp_path / "onnx", dtype="int4")
    with pytest.raises(ValueError, match="18 or later"):
        export_onnx(citrinet.default_model(), tmp_path / "onnx", opset=11)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConversionError, match="not a Citrinet"):
        export_onnx(tmp_path / "other", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_damaged_export_is_refused(exported, tmp_path):
    for path in (exported / "float32").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"model\.onnx is no graph"):
        CitrinetOnnx(tmp_path)
    (tmp_path / "vocabulary.json").write_text("{")
    with pytest.raises(ValueError, match=r"vocabulary\.json is damaged"):
        CitrinetOnnx(tmp_path)


def test_a_missing_onnxruntime_is_told(exported, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["transcribe", "--model", str(exported / "float32"), str(CLIPS[0])]) == 1
    assert 'pip install "citrinet[onnx]"' in capsys.readouterr().err
