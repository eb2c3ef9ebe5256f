"""What one call of `pipeline("automatic-speech-recognition")` gives."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutomaticSpeechRecognitionPipeline, pipeline

import citrinet
from citrinet import CitrinetConfig, CitrinetFeatureExtractor, CitrinetForCTC, CitrinetPipeline
from citrinet.optimized.graphs import GraphedBlocks
from citrinet.tokenizer.building import build_tokenizer
from helpers import forgive_scores, synthetic_speech

TASK = "automatic-speech-recognition"
VOCABULARY = ["▁", "来", "首", "歌", "吻", "别", "。", "AGE_14_25", "GENDER_MALE", "ENTITY_SONG_NAME", "END", "W", "E"]
TAG_LABELS = {"AGE": ["NONE", "AGE_14_25", "AGE_<14"], "GENDER": ["NONE", "GENDER_FEMALE", "GENDER_MALE"]}

# Probability of what the scripted network writes.
PROBABILITY = np.exp(10) / (np.exp(10) + len(VOCABULARY))
SURE = round(float(PROBABILITY), 4)


@pytest.fixture(scope="module")
def recognizer(zh_small_dir):
    return pipeline(TASK, model=str(zh_small_dir), device="cpu")


@pytest.fixture
def scripted():
    """A pipeline whose network writes what a test tells it to: `scripted(tokens, AGE=1)`, one token a frame."""
    torch.manual_seed(0)
    config = CitrinetConfig(
        vocab_size=len(VOCABULARY) + 1,
        hidden_sizes=[16] * 4,
        num_repeats=[1] * 4,
        kernel_sizes=[3] * 4,
        strides=[1, 2, 2, 2],
        residuals=[False] * 4,
        dropouts=[0.0] * 4,
        tag_labels=TAG_LABELS,
    )
    model = CitrinetForCTC(config).eval()
    recognizer = pipeline(
        TASK,
        model=model,
        tokenizer=build_tokenizer(VOCABULARY),
        feature_extractor=CitrinetFeatureExtractor(),
        device="cpu",
    )
    forward = model.forward

    def run(tokens, timestamps=None, **classes):
        ids = torch.tensor([VOCABULARY.index(token) if token else config.pad_token_id for token in tokens])

        def scripted_forward(*args, **kwargs):
            output = forward(*args, **kwargs)
            frames = torch.full(output.logits.shape[1:2], config.pad_token_id)
            frames[: len(ids)] = ids
            output.logits = 10 * torch.nn.functional.one_hot(frames, config.vocab_size)[None].float()
            return output

        model.forward = scripted_forward
        for category, labels in TAG_LABELS.items():
            head = model.tag_heads[category]
            head.weight.data.zero_()
            head.bias.data = 5 * torch.eye(len(labels))[classes.get(category, 0)]
        audio = synthetic_speech(len(tokens) * 0.08)
        return recognizer(audio, **({"return_timestamps": timestamps} if timestamps else {}))

    return run


def test_text_transcript_entities_tags(scripted):
    tokens = [
        "来",
        "",
        "首",
        "歌",
        "▁",
        "ENTITY_SONG_NAME",
        "▁",
        "吻",
        "吻",
        "别",
        "▁",
        "END",
        "▁",
        "。",
        "▁",
        "AGE_14_25",
    ]
    result = scripted(tokens, timestamps="char", GENDER=2)
    assert result["text"] == "来首歌 ENTITY_SONG_NAME 吻别 END。 AGE_14_25"
    assert result["transcript"] == "来首歌吻别。"
    song = {"type": "SONG_NAME", "text": "吻别", "start": 3, "end": 5, "timestamp": (0.56, 0.8)}
    assert result["entities"] == [song | {"confidence": round(float(PROBABILITY**2), 4)}]
    times = {
        "来": (0.0, 0.08),
        "首": (0.16, 0.24),
        "歌": (0.24, 0.32),
        "吻": (0.56, 0.72),
        "别": (0.72, 0.8),
        "。": (1.04, 1.12),
    }
    chunks = [{"text": text, "timestamp": time, "confidence": SURE} for text, time in times.items()]
    assert result["chunks"] == chunks and result["confidence"] == SURE
    (segment,) = result["segments"]
    assert {name: segment[name] for name in ("text", "transcript", "tags", "confidence")} == {
        name: result[name] for name in ("text", "transcript", "tags", "confidence")
    }
    assert (segment["start"], segment["end"]) == (0.0, len(tokens) * 0.08)
    age, gender = result["tags"]["AGE"], result["tags"]["GENDER"]
    assert (age["label"], age["source"], age["head"], age["text"]) == ("AGE_14_25", "text", "NONE", "AGE_14_25")
    assert (gender["label"], gender["source"], gender["text"]) == ("GENDER_MALE", "head", None)
    assert gender["score"] == pytest.approx(np.exp(5) / (np.exp(5) + 2), abs=1e-4)
    assert age["score"] == pytest.approx(np.exp(10) / (np.exp(10) + len(VOCABULARY)), abs=1e-4)


def test_the_head_overrules_the_text(scripted):
    assert scripted(["来", "AGE_14_25"], AGE=2)["tags"]["AGE"]["label"] == "AGE_<14"


def test_latin_letters_that_spell_end_are_text(scripted):
    result = scripted(["W", "E", "END", "E", "▁", "END"])
    assert result["transcript"] == "WEE"  # the tokens END are markers, though one stands inside a word


def test_words(scripted):
    result = scripted(["来", "首", "▁", "W", "E", "。"], timestamps="word")
    assert [chunk["text"] for chunk in result["chunks"]] == ["来", "首", "WE。"]
    assert result["chunks"][2]["timestamp"] == (0.24, 0.48)


def test_nothing_is_said(scripted):
    result = scripted(["", "", ""], timestamps="char")
    assert (result["text"], result["transcript"], result["entities"], result["chunks"]) == ("", "", [], [])
    assert result["tags"]["AGE"]["label"] == "NONE"


@pytest.mark.slow
def test_without_tag_heads(base_small_dir):
    result = pipeline(TASK, model=str(base_small_dir), device="cpu")(synthetic_speech(2.0))
    assert set(result) == {"text", "transcript", "confidence", "entities", "tags", "segments"}
    assert all(tag["source"] == "text" for tag in result["tags"].values())


@pytest.mark.slow
def test_any_batch_size_gives_the_same(recognizer):
    audio = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([0.02, 3.0, 0.5, 1.7, 0.1, 2.2, 1.0])]
    expected = forgive_scores([recognizer(samples, return_timestamps="char") for samples in audio])
    assert len({result["text"] for result in expected}) > 3
    for batch_size in (1, 2, 3, 7):
        assert recognizer(audio, batch_size=batch_size, return_timestamps="char") == expected


class Batches:
    """What goes through a pipeline's network: seconds of each recording in each batch."""

    def __init__(self, recognizer, monkeypatch):
        self.seen = []
        forward = recognizer.model.forward

        def spy(*args, **kwargs):
            self.seen.append([round(frames / 100, 2) for frames in kwargs["attention_mask"].sum(dim=1).tolist()])
            return forward(*args, **kwargs)

        monkeypatch.setattr(recognizer.model, "forward", spy)


@pytest.mark.slow
@pytest.mark.parametrize("on_device", [False, True])
def test_batches_by_seconds_give_the_same(recognizer, monkeypatch, on_device):
    audio = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([3.0, 0.5, 1.7, 0.1, 2.2, 1.0])]
    expected = forgive_scores([recognizer(samples, return_timestamps="char") for samples in audio])
    windows = forgive_scores([recognizer(samples, chunk_length_s=1.2) for samples in audio])
    if on_device:  # as where the network is on a GPU
        monkeypatch.setattr(CitrinetPipeline, "_feature_device", torch.device("cpu"))
    batches = Batches(recognizer, monkeypatch)
    assert recognizer(audio, batch_seconds=6.0, return_timestamps="char") == expected
    assert batches.seen == [[3.0, 0.5], [1.7, 0.1], [2.2, 1.0]]
    batches.seen.clear()
    assert list(recognizer(iter(audio), batch_size=3, batch_seconds=60, return_timestamps="char")) == expected
    assert batches.seen == [[3.0, 0.5, 1.7], [0.1, 2.2, 1.0]]
    batches.seen.clear()
    assert recognizer(audio, batch_seconds=0.01, return_timestamps="char") == expected
    assert [len(batch) for batch in batches.seen] == [1] * 6
    batches.seen.clear()
    assert recognizer(audio, chunk_length_s=1.2, batch_seconds=5.0) == windows
    assert max(map(len, batches.seen)) == 4  # of 1.2 s


@pytest.mark.slow
def test_batches_are_no_larger_than_a_cuda_graph(recognizer, monkeypatch):
    audio = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([3.0, 0.5, 1.7, 0.1, 2.2, 1.0])]
    expected = forgive_scores(recognizer(audio))
    monkeypatch.setattr(CitrinetPipeline, "_feature_device", torch.device("cpu"))
    monkeypatch.setattr(GraphedBlocks, "max_frames", 512)
    monkeypatch.setattr(recognizer.model.model, "run_blocks", GraphedBlocks())
    batches = Batches(recognizer, monkeypatch)
    assert forgive_scores(recognizer(audio, batch_size=6)) == expected
    assert batches.seen == [[3.0], [0.5, 1.7], [0.1, 2.2], [1.0]]
    batches.seen.clear()
    recognizer(audio, batch_seconds=3.0)
    assert batches.seen == [[3.0], [0.5], [1.7], [0.1], [2.2], [1.0]]  # of 1.28 or 2.56 s with a graph's padding


@pytest.mark.slow
def test_a_dataset_needs_no_iterator(recognizer):
    class Recordings(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return synthetic_speech(1.0, seed=index % 2)  # of any index

    expected = forgive_scores([recognizer(synthetic_speech(1.0, seed=seed)) for seed in range(2)])
    for batches in ({"batch_size": 2}, {"batch_seconds": 5.0}):
        assert forgive_scores(list(recognizer(Recordings(), **batches))) == expected


@pytest.mark.slow
def test_a_batch_is_begun_before_the_one_before_it_is_decoded(recognizer, monkeypatch):
    audio = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([0.5, 1.7, 0.9])]
    monkeypatch.setattr(CitrinetPipeline, "_feature_device", torch.device("cpu"))
    order = []
    forward, postprocess = recognizer._forward, recognizer.postprocess
    monkeypatch.setattr(
        recognizer, "_forward", lambda *args, **kwargs: order.append("network") or forward(*args, **kwargs)
    )
    monkeypatch.setattr(
        recognizer, "postprocess", lambda *args, **kwargs: order.append("text") or postprocess(*args, **kwargs)
    )
    assert len(list(recognizer(iter(audio), batch_size=1))) == 3
    assert order == ["network", "network", "text", "network", "text", "text"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.slow
def test_a_gpu_writes_what_a_cpu_writes():
    audio = [str(path) for path in sorted((Path(__file__).parents[1] / "examples").glob("*.flac"))]
    expected = citrinet.load_recognizer(citrinet.default_model())(audio, return_timestamps="char")
    recognizer = citrinet.load_recognizer(citrinet.default_model(), device="cuda")
    for batches in ({}, {"batch_size": 3}, {"batch_seconds": 20.0}):
        assert forgive_scores(recognizer(audio, return_timestamps="char", **batches), 5e-3) == expected
    step = list(recognizer.follow(recognizer.load(audio[0]), chunk_length_s=2))[-1]
    assert step.done == 1 and step.result is not None


@pytest.mark.slow
def test_features_beside_the_network_give_the_same(recognizer, monkeypatch):
    audio = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([3.0, 0.02, 1.7, 0.1])]
    rows = [{"array": samples, "sampling_rate": 16000, "stride": (1600, 1600), "name": "n"} for samples in audio[::2]]
    options = {"return_timestamps": "word"}
    expected = forgive_scores([recognizer(samples, **options) for samples in audio])
    parts = forgive_scores(recognizer(rows, **options))
    monkeypatch.setattr(CitrinetPipeline, "_feature_device", torch.device("cpu"))
    together = []
    extract = CitrinetFeatureExtractor._extract_together
    monkeypatch.setattr(
        CitrinetFeatureExtractor,
        "_extract_together",
        lambda self, waveforms, device: together.append(len(waveforms)) or extract(self, waveforms, device),
    )
    assert recognizer(audio, batch_size=3, **options) == expected and together == [3, 1]
    assert recognizer(audio[0], **options) == expected[0]
    assert recognizer(rows, batch_size=2, **options) == parts
    together.clear()
    monkeypatch.setattr("citrinet.pipeline_citrinet.FEATURES_AT_ONCE_S", 4.0)  # however large the network's batch is
    assert recognizer(audio, batch_size=4, **options) == expected and together == [1, 2, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.slow
def test_nothing_waits_for_the_gpu_before_the_outputs():
    pipe = citrinet.load_recognizer(citrinet.default_model(), device="cuda").pipeline
    audio = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([3.0, 1.5])]
    for mode in ("default", "default", "default", "error"):  # block by block, capturing a graph, replaying it
        torch.cuda.set_sync_debug_mode(mode)
        try:
            outputs = pipe._begin(pipe._inputs(list(pipe._windows(audio, 2, 60.0, {}))))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        outputs.pop("done").synchronize()
    assert outputs["tokens"].shape[0] == 2


@pytest.mark.slow
def test_inputs_of_every_kind_give_the_same(recognizer, tmp_path):
    samples = (synthetic_speech(2.5, seed=1) * 32767).round().astype(np.int16)
    path = tmp_path / "speech.wav"
    soundfile.write(path, samples, 16000)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="FLAC")
    expected = recognizer(str(path))
    assert expected["text"]
    for source in (
        buffer.getvalue(),
        samples,
        samples / np.float32(32768),
        np.stack([samples, samples], axis=1),
        torch.from_numpy(samples),
        {"array": samples, "sampling_rate": 16000, "path": "ignored"},
        {"raw": samples, "sampling_rate": 16000},
    ):
        assert recognizer(source)["text"] == expected["text"]


def test_a_dictionary_is_not_consumed_and_its_rest_comes_back(recognizer):
    source = {"array": synthetic_speech(0.5), "sampling_rate": 16000, "id": 7, "stride": (1600, 0)}
    before = dict(source)
    result = recognizer(source)
    assert result["id"] == [7]
    assert source == before


def test_what_else_a_dictionary_holds_changes_no_result(recognizer):
    """Rows of datasets have columns of any name, not all of them the same, in whatever batches."""
    samples = [synthetic_speech(seconds, seed=1) for seconds in (0.5, 2.5)]
    plain = recognizer(samples)
    rows = [
        {"array": samples[0], "sampling_rate": 16000, "text": "a reference", "tokens": 3, "kept": None},
        {"array": samples[1], "sampling_rate": 16000, "id": "b"},
    ]
    for batch_size in (1, 2):
        first, second = forgive_scores(recognizer(rows, batch_size=batch_size))
        assert second == {**plain[1], "id": ["b"]}
        assert (first["text"], first["tokens"], first["kept"]) == (plain[0]["text"], [3], [None])


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_stride_is_not_transcribed(recognizer, rate):
    samples = synthetic_speech(6.0, seed=3, rate=rate)
    source = {"array": samples, "sampling_rate": rate, "stride": (2 * rate, rate)}
    whole = recognizer(source | {"stride": None}, return_timestamps="char")["chunks"]
    found = recognizer(source, return_timestamps="char")["chunks"]
    # Of 75 outputs, one each 0.08 s, the stride takes 25 on the left and 12, rounded down, on the right.
    inside = [c["text"] for c in whole if c["timestamp"][1] > 25 * 0.08 and c["timestamp"][0] < 63 * 0.08]
    assert [c["text"] for c in found] == inside


def test_a_stride_without_a_rate_is_refused(recognizer):
    with pytest.raises(ValueError, match="sampling_rate"):
        recognizer({"array": synthetic_speech(1.0), "stride": (100, 0)})


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{"chunk_lenght_s": 5}, {"generate_kwargs": {"langauge": "zh"}}, {"timestamps": "char"}]
)
def test_a_misspelt_argument_is_refused(recognizer, zh_small_dir, arguments):
    name = next(iter(arguments.get("generate_kwargs", arguments)))
    with pytest.raises(TypeError, match=name):
        recognizer(synthetic_speech(1.0), **arguments)
    with pytest.raises(TypeError, match=name):
        pipeline(TASK, model=str(zh_small_dir), device="cpu", **arguments)


def test_arguments_of_the_stock_pipeline_are_taken(recognizer):
    expected = recognizer(synthetic_speech(1.0))
    given = {"generate_kwargs": {"max_new_tokens": 5, "task": "transcribe"}, "ignore_warning": True, "num_beams": 2}
    assert recognizer(synthetic_speech(1.0), num_workers=0, decoder_kwargs=None, **given) == expected
    assert recognizer(synthetic_speech(1.0), generate_kwargs=None) == expected


@pytest.mark.slow
def test_every_iterator_gives_an_iterator(recognizer):
    audio = [synthetic_speech(1.0), synthetic_speech(0.5)]
    expected = recognizer(audio)
    for source in (iter(audio), (samples for samples in audio), map(np.copy, audio)):
        results = recognizer(source)
        assert not isinstance(results, (list, dict))
        assert list(results) == expected


@pytest.mark.parametrize("source", [np.zeros(0), np.zeros(1), np.full(1600, np.nan), b"junk", np.zeros((50, 50))])
def test_bad_audio_is_one_clear_error(recognizer, source):
    with pytest.raises(ValueError, match=r"audio|junk"):
        recognizer(source)


@pytest.mark.slow
def test_the_stock_pipeline_agrees(recognizer):
    """Whoever uses the stock class with our model and tokenizer gets the same text, alone, in a batch and with times."""
    stock = AutomaticSpeechRecognitionPipeline(
        model=recognizer.model,
        tokenizer=recognizer.tokenizer,
        feature_extractor=recognizer.feature_extractor,
        device="cpu",
    )
    assert type(stock) is AutomaticSpeechRecognitionPipeline
    audio = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([1.0, 2.5, 0.7])]
    ours = recognizer(audio)
    for batch_size in (1, 3):
        for mine, theirs in zip(ours, stock(audio, batch_size=batch_size), strict=True):
            assert theirs["text"] == mine["text"]
    chunks = stock(audio[1], return_timestamps="char")["chunks"]
    assert "".join(chunk["text"] for chunk in chunks) == ours[1]["text"]
    assert stock(audio[1], return_timestamps="word")["chunks"]


@pytest.fixture(scope="module")
def local(zh_small_dir):
    """The same network with squeeze-excitation that does not look at the utterance, so that context is local."""
    recognizer = pipeline(TASK, model=str(zh_small_dir), device="cpu")
    for block in recognizer.model.model.blocks:
        block.squeeze_excitation.up.weight.data.zero_()
    return recognizer


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "stride"), [(8.0, 3.0), (10.0, (3.0, 3.2)), (7.3, 3.01)])
def test_windows_join_without_a_seam(local, chunk, stride):
    """Where strides cover what the convolutions see, windows give what one pass gives, with the same times and tags."""
    audio = synthetic_speech(30.0)
    whole = local(audio, chunk_length_s=0, return_timestamps="char")
    windows = local(audio, chunk_length_s=chunk, stride_length_s=stride, return_timestamps="char", batch_size=3)
    assert len(whole["text"]) > 30
    assert windows["text"] == whole["text"]
    assert windows["chunks"] == forgive_scores(whole["chunks"], 1e-3)
    for category, tag in whole["tags"].items():
        assert windows["tags"][category]["label"] == tag["label"]
        assert windows["tags"][category]["score"] == pytest.approx(tag["score"], abs=1e-3)


def test_tags_of_windows_are_the_frame_weighted_mean(recognizer, monkeypatch):
    """Squeeze-excitation makes windows differ from one pass; their tags are still the mean over the frames kept."""
    seen = []
    classify = recognizer.model.classify_tags

    def spy(hidden_states, mask=None):
        logits = classify(hidden_states, mask)
        if mask is not None and mask.any(dim=1).all() and hidden_states.shape[1] < 200:
            seen.append((int(mask.sum()), {category: value[0] for category, value in logits.items()}))
        return logits

    monkeypatch.setattr(recognizer.model, "classify_tags", spy)
    result = recognizer(synthetic_speech(25.0), chunk_length_s=10, stride_length_s=2)
    kept = [entry for entry in seen[1::2]]  # forward classifies whole windows first, the pipeline the frames it keeps
    assert sum(frames for frames, _ in kept) == -(-2500 // 8)
    for category, tag in result["tags"].items():
        mean = sum(frames * logits[category] for frames, logits in kept) / sum(frames for frames, _ in kept)
        labels = recognizer.model.config.tag_labels[category]
        assert labels[int(mean.argmax())] == tag["head"]
        if tag["source"] == "head":
            assert tag["score"] == pytest.approx(float(mean.softmax(0).max()), abs=1e-3)


@pytest.mark.slow
def test_long_audio_is_read_in_windows(recognizer, monkeypatch):
    lengths = []
    forward = recognizer.model.forward
    monkeypatch.setattr(
        recognizer.model, "forward", lambda **kw: lengths.append(kw["input_features"].shape[1]) or forward(**kw)
    )
    recognizer(synthetic_speech(121.0), vad=False)
    assert max(lengths) <= 3008
    lengths.clear()
    recognizer(synthetic_speech(119.0), vad=False)
    assert lengths == [11904]


@pytest.mark.slow
def test_the_older_front_end_in_windows(local):
    local.feature_extractor.frontend = "nemo-2.4"
    try:
        audio = synthetic_speech(20.0)
        whole = local(audio, chunk_length_s=0, return_timestamps="char")
        windows = local(audio, chunk_length_s=8, stride_length_s=3, return_timestamps="char")
        assert windows == forgive_scores(whole, 1e-3)
    finally:
        local.feature_extractor.frontend = "nemo-2.5"


def test_strides_must_leave_something(recognizer):
    with pytest.raises(ValueError, match="longer than the strides"):
        recognizer(synthetic_speech(9.0), chunk_length_s=4, stride_length_s=2)


def test_generic_callers_use_generate(recognizer, zh_small_dir):
    """As `transformers serve` does: processor, generate, batch_decode."""
    processor = citrinet.CitrinetProcessor.from_pretrained(zh_small_dir)
    audio = [synthetic_speech(1.0), synthetic_speech(2.0, seed=1)]
    inputs = processor(audio, sampling_rate=16000)
    ids = recognizer.model.generate(**inputs)
    assert ids.shape == (2, 26)
    assert processor.batch_decode(ids, skip_special_tokens=False) == [result["text"] for result in recognizer(audio)]
    output = recognizer.model.generate(**inputs, return_dict_in_generate=True)
    assert torch.equal(output.sequences, ids)
    assert torch.equal(recognizer.model.generate(**inputs, max_new_tokens=8, language="zh", streamer=None), ids)
    with pytest.raises(TypeError, match="atention_mask"):
        recognizer.model.generate(inputs["input_features"], atention_mask=inputs["attention_mask"])
    assert not recognizer.model.can_generate()  # else callers look for the settings of a decoder


@pytest.mark.slow
def test_half_precision(zh_small_dir):
    expected = pipeline(TASK, model=str(zh_small_dir), device="cpu")(synthetic_speech(2.0))
    for dtype in (torch.bfloat16, torch.float16):
        recognizer = pipeline(TASK, model=str(zh_small_dir), device="cpu", dtype=dtype)
        result = recognizer(synthetic_speech(2.0))
        assert type(recognizer) is CitrinetPipeline
        assert recognizer.model.dtype == dtype
        assert set(result) == set(expected)
