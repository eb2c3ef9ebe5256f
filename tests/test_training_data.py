"""What is trained on: segments, folders of audio, recordings that are not there, characters that are not known."""

import json
import sys

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from citrinet import CitrinetFeatureExtractor, CitrinetProcessor, load_audio
from citrinet.audio_citrinet import AudioSegment
from citrinet.manifest import ManifestEntry, read_manifest
from citrinet.tokenizer.building import build_tokenizer
from citrinet.training import Augmentation
from citrinet.training.checkpoints import average_checkpoints, checkpoints, set_aside
from citrinet.training.data import SpeechDataset, UnreadableRecordingError
from citrinet.training.labels import describe_unknown, label_ids
from citrinet.training.selection import Example, Selection, feasible, select
from citrinet.training.sources import read_source
from helpers import synthetic_speech, write_wav
from tiny_models import tiny_tokenizer


@pytest.fixture(scope="module")
def processor():
    return CitrinetProcessor(CitrinetFeatureExtractor(), tiny_tokenizer("char"))


# Segments


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Three seconds of two channels, at another rate than the model's."""
    path = tmp_path_factory.mktemp("call") / "call.flac"
    soundfile.write(path, np.stack([synthetic_speech(3.0, seed=seed, rate=8000) for seed in (1, 2)], axis=1), 8000)
    return path


def test_features_are_those_of_the_segment(call, processor, tmp_path):
    lines = [{"offset": 0.5, "duration": 1.0}, {"offset": 1.5, "duration": 0.75}, {"offset": 2.0}, {"duration": 1.25}]
    manifest = tmp_path / "m.jsonl"
    entries = [json.dumps({"audio_filepath": str(call), "text": "今天", **line}) for line in lines]
    manifest.write_text("\n".join(entries), encoding="utf-8")
    examples = select(read_source(str(manifest)), []).examples
    assert [example.duration for example in examples] == pytest.approx([1.0, 0.75, 1.0, 1.25])
    samples, _ = soundfile.read(call)
    for line, features in zip(lines, SpeechDataset(examples, processor), strict=True):
        start = int(line.get("offset", 0) * 8000)
        stop = start + int(line["duration"] * 8000) if "duration" in line else len(samples)
        soundfile.write(tmp_path / "part.wav", samples[start:stop], 8000, subtype="FLOAT")
        expected = processor.feature_extractor.extract(load_audio(tmp_path / "part.wav"))
        assert features["input_features"].shape == expected.shape
        np.testing.assert_allclose(features["input_features"], expected, atol=0.05)


def test_each_segment_has_features_of_its_own_in_the_cache(call, processor, tmp_path):
    parts = [AudioSegment(call, 0.0, 1.0), AudioSegment(call, 1.0, 1.0), AudioSegment(call, 0.0, 1.5)]
    for part in parts:  # each the first of its data set: only the recording tells them apart
        (item,) = SpeechDataset([Example(part, "今天", 1.0)], processor, variants=1, cache=tmp_path)
        expected = processor.feature_extractor.extract(load_audio(part))
        np.testing.assert_allclose(item["input_features"], expected, atol=0.01)
    assert len(list(tmp_path.glob("*/*.npy"))) == 3


def test_a_file_that_was_written_anew_is_computed_anew(processor, tmp_path):
    for seed in (1, 2):
        path = write_wav(tmp_path / "a.wav", synthetic_speech(1.0, seed=seed))
        (item,) = SpeechDataset([Example(path, "今天", 1.0)], processor, variants=1, cache=tmp_path / "cache")
    np.testing.assert_allclose(item["input_features"], processor.feature_extractor.extract(load_audio(path)), atol=0.01)


# Recordings that are not there or cannot be read


def test_recordings_that_do_not_exist_are_counted_and_named(tmp_path):
    here = write_wav(tmp_path / "here.wav", synthetic_speech(1.0))
    entries = [ManifestEntry(tmp_path / name, "今天", 1.0) for name in ("gone.wav", "here.wav", "lost.wav")]
    entries += [ManifestEntry(tmp_path, "今天", 1.0), ManifestEntry(b"RIFF", "今天", 1.0)]
    selection = select(entries, [])
    assert [str(example.audio.source) for example in selection.examples[:1]] == [here]
    assert len(selection.examples) == 2  # bytes are there, whatever they hold
    assert selection.dropped == {"no such file": 3}
    assert "dropped 3: no such file (such as " in str(selection) and "gone.wav" in str(selection)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recording_that_cannot_be_read_is_named(processor, tmp_path, workers):
    damaged = tmp_path / "damaged.flac"
    damaged.write_bytes(b"fLaC" + bytes(100))
    loader = DataLoader(SpeechDataset([Example(damaged, "今天", 1.0)], processor), num_workers=workers)
    with pytest.raises(UnreadableRecordingError, match=r"damaged\.flac: "):
        list(loader)


# Datasets


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_folder_of_audio_without_torchcodec(tmp_path, monkeypatch, form):
    for name in ("torchcodec", "torchcodec.decoders", "torchcodec.encoders"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    train = tmp_path / "corpus" / "train"
    train.mkdir(parents=True)
    rows = [{"file_name": f"{i}.wav", "sentence": text, "gender": g} for i, (text, g) in enumerate(
        [("今天天气", "GENDER_MALE"), ("请播放歌", "GENDER_FEMALE")]
    )]  # fmt: skip
    for index, row in enumerate(rows):
        write_wav(train / row["file_name"], synthetic_speech(0.5 + index))
    if form == "csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (train / f"metadata.{form}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = {"path": str(tmp_path / "corpus"), "split": "train", "text_column": "sentence"}
    examples = select(read_source(source), ["GENDER"]).examples
    assert sorted(example.text for example in examples) == ["今天天气", "请播放歌"]
    assert sorted(example.duration for example in examples) == pytest.approx([0.5, 1.5])
    assert {example.tags["GENDER"] for example in examples} == {"GENDER_MALE", "GENDER_FEMALE"}
    with pytest.raises(ValueError, match="name the right ones"):
        list(read_source({**source, "audio_column": "sound"}))
    with pytest.raises(ValueError):
        list(read_source({**source, "split": "test"}))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"split": "train"}, "needs the key `path`"),
        ({"path": "corpus", "streaming": True}, "leave `streaming` out"),
    ],
)
def test_a_dataset_that_is_named_wrongly(source, message):
    with pytest.raises(ValueError, match=message):
        list(read_source(source))


# What the tokenizer does not know


def test_unknown_characters_are_counted_and_named(processor):
    texts = ["今天龘☃", "龘麤天气", "今天", "Ω 今天"]
    spoken, silent = describe_unknown(processor.tokenizer, texts)
    assert "3 utterances hold 4 characters" in spoken and "(龘 2, 麤 1, Ω 1)" in spoken and "<unk>" in spoken
    assert silent.startswith("1 utterance holds 1 ") and "(☃ 1)" in silent and "left out" in silent
    assert describe_unknown(processor.tokenizer, ["今天"]) == []
    many = "".join(map(chr, range(0x9F00, 0x9F20)))
    (line,) = describe_unknown(processor.tokenizer, [many])
    assert "and 22 others" in line


def test_labels_hold_unknown_tokens_for_what_is_spoken_alone():
    tokenizer = build_tokenizer([*"你好吗", "ENTITY_A", "END"])  # neither a word boundary nor an unknown token
    assert tokenizer.convert_ids_to_tokens(label_ids(tokenizer, "ENTITY_A 你好 END，吗？")) == [
        "ENTITY_A", "你", "好", "END", "吗",
    ]  # fmt: skip
    known = tiny_tokenizer("char")
    ids = label_ids(known, "今天龘☃天")
    assert ids.count(known.unk_token_id) == 1
    assert known.decode(ids, group_tokens=False).replace(" ", "") == "今天⁇天"


def test_feasibility_is_that_of_the_fastest_speed(processor):
    """40 tokens in 3.3 s of 80 ms frames: 41 frames, of which a speed of 1.1 leaves 37."""
    selection = Selection([Example("", "今天" * 20, 3.3)])
    tokens = len(label_ids(processor.tokenizer, "今天" * 20))
    ratio = int(3.3 * 16000 / (tokens + 0.5))  # one token more than half a frame to spare
    assert len(feasible(selection, processor, ratio).examples) == 1
    dropped = feasible(selection, processor, ratio, max_speed=1.1)
    assert dropped.examples == [] and dropped.dropped == {"more tokens than frames at a speed of 1.1": 1}


# Workers


def test_workers_that_persist_see_which_pass_it_is(processor, tmp_path):
    path = write_wav(tmp_path / "a.wav", synthetic_speech(1.0))
    data = SpeechDataset([Example(path, "今天", 1.0)], processor, augmentation=Augmentation((0.8, 1.0, 1.2)), seed=3)
    here = []
    for epoch in range(6):
        data.epoch = epoch
        here.append(data[0]["input_features"].shape[0])
    loader = DataLoader(data, num_workers=1, persistent_workers=True, collate_fn=lambda items: items[0])
    there = []
    for epoch in range(6):
        data.epoch = epoch
        there += [item["input_features"].shape[0] for item in loader]
    assert there == here and len(set(here)) > 1


# Checkpoints


class Weights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))


def test_an_average_is_exact_and_takes_counters_from_the_last(tmp_path):
    from safetensors.torch import save_file

    values = [torch.tensor([1e8, -3.0, 0.1]), torch.tensor([1.0, 4.0, 0.2]), torch.tensor([-1e8, 5.0, 0.4])]
    for step, value in zip((9, 10, 11), values, strict=True):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"weight": value, "steps": torch.tensor(step)}, folder / "model.safetensors")
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-12").write_text("no folder")
    model = Weights()
    average_checkpoints(model, checkpoints(tmp_path))
    expected = torch.stack(values).double().mean(0).float()
    torch.testing.assert_close(model.weight.data, expected, rtol=0, atol=1e-6)
    assert model.steps == 11


def test_checkpoints_of_earlier_runs_are_set_aside(tmp_path):
    assert set_aside(tmp_path / "none") is None and set_aside(tmp_path) is None
    for run in (1, 2):
        for step in (5, 10):
            (tmp_path / f"checkpoint-{step}").mkdir()
            (tmp_path / f"checkpoint-{step}" / "run").write_text(str(run))
        assert set_aside(tmp_path) == tmp_path / f"_earlier-run-{run}"
        assert checkpoints(tmp_path) == []
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("run")}
    assert found == {f"_earlier-run-{r}/checkpoint-{s}/run": str(r) for r in (1, 2) for s in (5, 10)}


def test_entries_of_a_manifest_keep_their_segment(tmp_path):
    path = write_wav(tmp_path / "a.wav", synthetic_speech(1.0))
    line = {"audio_filepath": path, "text": "今", "offset": 0.25, "duration": 0.5, "channel_selector": 0}
    (tmp_path / "m.jsonl").write_text(json.dumps(line), encoding="utf-8")
    (example,) = select(read_manifest(tmp_path / "m.jsonl"), []).examples
    assert (example.audio.offset, example.audio.duration, example.audio.channel) == (0.25, 0.5, 0)
