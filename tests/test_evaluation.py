"""Evaluation: known edits give known figures, from the functions and from the command."""

import base64
import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    pipeline,
)

from citrinet.cli import main
from citrinet.error_rates import align, count_edits
from citrinet.evaluation import build_report, evaluate, format_report, normalize, write_report
from citrinet.evaluation.evaluate import Run
from citrinet.evaluation.page import html_page
from citrinet.evaluation.scoring import rate
from citrinet.manifest import read_manifest
from helpers import synthetic_speech


def write_manifest(folder, lines):
    """Lines of a manifest as keywords; files that are not named are `0.wav`, `1.wav`, ..."""
    path = folder / "manifest.jsonl"
    entries = [{"audio_filepath": f"{index}.wav", **line} for index, line in enumerate(lines)]
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    return path


def report_on(folder, lines, *outputs, tag_labels=None):
    """The report for models that returned `outputs`, a list for each; a string is what a model writes that is no Citrinet."""
    manifest = write_manifest(folder, lines)
    runs = [
        Run(f"model{number}", tag_labels or {}, {i: citrinet_output(o, o) if isinstance(o, str) else o for i, o in enumerate(said)})
        for number, said in enumerate(outputs)
    ]  # fmt: skip
    return build_report(manifest, read_manifest(manifest), runs)


def citrinet_output(text, transcript, entities=(), **tags):
    """A dictionary of `CitrinetPipeline`; tags as category=(head, text, merged)."""
    return {
        "text": text,
        "transcript": transcript,
        "entities": [{"type": kind, "text": what} for kind, what in entities],
        "tags": {category: {"head": h, "text": t, "label": m} for category, (h, t, m) in tags.items()},
    }


@pytest.fixture(scope="module")
def stock_dir(tmp_path_factory):
    """A Wav2Vec2 of another's making that says `是 GENDER_MALE` whatever it hears."""
    folder = tmp_path_factory.mktemp("stock")
    vocabulary = {"<pad>": 0, "<unk>": 1, "|": 2, "是": 3, "GENDER_MALE": 4}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json", bos_token=None, eos_token=None, pad_token="<pad>")
    config = Wav2Vec2Config(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, pad_token_id=0,
        conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(config)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.lm_head.bias.data = torch.tensor([0.0, 0.0, 0.0, 5.0, 0.0])
    model.save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def audio_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    for index in range(3):
        soundfile.write(folder / f"{index}.wav", synthetic_speech(4 + index, seed=index + 1), 16000)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天，北京的 天气？", "今天北京的天气"),
        ("ＰＬＡＹ　Ｍｕｓｉｃ！", "playmusic"),
        ("Don't stop—50%", "dontstop50"),
        ("cafe\u0301 ①", "café1"),
        ("हिन्दी", "हिन्दी"),  # vowel signs are combining marks, not punctuation
        ("￥5 ~ \u200b\ufeff", "5"),
    ],
)
def test_normalisation(text, expected):
    assert normalize(text) == expected == normalize(expected)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("今天天气", "今天天气", (0, 0, 0, 4)),
        ("今天天气", "明天天气", (1, 0, 0, 4)),
        ("今天天气", "今天气", (0, 1, 0, 4)),
        ("今天天气", "今天的天气", (0, 0, 1, 4)),
        ("", "今天", (0, 0, 2, 0)),
        ("今天", "", (0, 2, 0, 2)),
        ("", "", (0, 0, 0, 0)),
    ],
)
def test_edits(reference, hypothesis, expected):
    edits = count_edits(reference, hypothesis)
    assert (edits.substitutions, edits.deletions, edits.insertions, edits.length) == expected
    runs = align(reference, hypothesis)
    assert "".join(text for kind, text in runs if kind != "insert") == reference
    assert "".join(text for kind, text in runs if kind != "delete") == hypothesis


def test_known_edits_in_a_corpus(tmp_path):
    """One substitution and one insertion in four characters, one deletion in six: 3 / 10, not the mean of the rates."""
    lines = [{"text": "今天天气。"}, {"text": "打开客厅的灯"}]
    (model,) = report_on(tmp_path, lines, ["明天的天气", "打开客厅灯！"]).models
    edits = model.cer.edits
    assert (edits.substitutions, edits.deletions, edits.insertions, edits.length) == (1, 1, 1, 10)
    assert model.cer.rate.value == pytest.approx(0.3)
    assert model.wer == model.cer  # a Chinese character is a word


def test_words_between_spaces_and_chinese_characters(tmp_path):
    said = "please play 周结 music please"
    (model,) = report_on(tmp_path, [{"text": "Play 周杰伦 music, please!"}], [said]).models
    assert model.wer.edits.length == 6
    assert (model.wer.edits.substitutions, model.wer.edits.deletions, model.wer.edits.insertions) == (1, 1, 1)


def test_markers_are_words_only_if_the_manifest_writes_them(tmp_path):
    tagged = "放 ENTITY_SONG 吻别 END。 GENDER_FEMALE"
    (written,) = report_on(tmp_path, [{"text": tagged}], ["放吻别 GENDER_MALE"]).models
    assert written.cer.edits.errors == 0
    assert written.wer.edits.errors == 0
    edits = written.wer_tagged.edits
    assert (edits.length, edits.deletions, edits.substitutions) == (6, 2, 1)  # 放 ENTITY_SONG 吻 别 END GENDER_FEMALE
    report = report_on(tmp_path, [{"text": "放吻别。", "gender": "GENDER_FEMALE"}], [tagged])
    assert report.markers == [] and report.models[0].wer.edits.errors == 0
    assert report.models[0].wer_tagged is None and "WER with tags" not in format_report(report)
    entities_only = report_on(tmp_path, [{"text": "放 ENTITY_SONG 吻别 END"}], [tagged])
    assert entities_only.markers == ["entities"] and entities_only.models[0].wer_tagged.edits.errors == 0
    assert "WER with tags" in format_report(entities_only)


def test_end_is_a_word_where_there_are_no_entities(tmp_path):
    (model,) = report_on(tmp_path, [{"text": "THE END OF IT"}], ["the end of"]).models
    assert (model.wer.edits.length, model.wer.edits.errors, model.wer.edits.deletions) == (4, 1, 1)
    (model,) = report_on(tmp_path, [{"text": "他喝 ENTITY_DRINK 茶 END"}], ["他喝 ENTITY_DRINK 茶END"]).models
    assert (model.cer.edits.length, model.cer.edits.errors) == (3, 0)


def test_what_the_citrinet_pipeline_made_of_the_text_is_taken(tmp_path):
    """It knows markers by their tokens, so that its transcript may hold what looks like one."""
    output = citrinet_output("放 GENDER_X", "放 GENDER_X", GENDER=("GENDER_MALE", None, "GENDER_MALE"))
    (model,) = report_on(tmp_path, [{"text": "放", "gender": "GENDER_MALE"}], [output]).models
    assert model.cer.edits.insertions == len("genderx")
    assert model.tags["GENDER"].accuracy["head"].value == 1.0


def test_tags(tmp_path):
    lines = [
        *[{"text": "好", "gender": "GENDER_FEMALE", "corpus": "AISHELL-3"}] * 3,
        {"text": "好 GENDER_MALE"},
        {"text": "好", "gender": ""},
        {"text": "好", "gender": "NONE"},
    ]
    answers = [
        ("GENDER_FEMALE", None, "GENDER_FEMALE"),
        ("NONE", "GENDER_FEMALE", "GENDER_FEMALE"),
        ("NONE", None, "NONE"),
        ("GENDER_FEMALE", "GENDER_MALE", "GENDER_FEMALE"),
        ("GENDER_MALE", "GENDER_MALE", "GENDER_MALE"),  # the manifest does not know
        ("NONE", None, "NONE"),
    ]
    labels = {"GENDER": ["NONE", "GENDER_FEMALE", "GENDER_MALE"]}
    outputs = [citrinet_output("好", "好", GENDER=answer) for answer in answers]
    report = report_on(tmp_path, lines, outputs, ["好"] * 6, tag_labels=labels)
    score = report.models[0].tags["GENDER"]
    assert list(report.models[0].tags) == ["GENDER"]
    assert (score.count, score.majority_label, score.majority_accuracy) == (5, "GENDER_FEMALE", 0.6)
    accuracy = {source: score.accuracy[source].value for source in ("head", "text", "merged")}
    assert accuracy == pytest.approx({"head": 2 / 5, "text": 3 / 5, "merged": 3 / 5})
    assert score.labels == ["GENDER_FEMALE", "GENDER_MALE", "NONE"]
    assert score.confusion["merged"] == [[2, 0, 1], [1, 0, 0], [0, 0, 1]]
    assert score.confusion["head"] == [[1, 0, 2], [1, 0, 0], [0, 0, 1]]
    silent = report.models[1].tags["GENDER"]
    assert silent.accuracy == {"head": None, "text": None, "merged": None} and silent.majority_accuracy == 0.6


def test_entities(tmp_path):
    lines = [
        {"text": "放 ENTITY_SONG 吻别 END 和 ENTITY_SONG 吻别 END"},
        {"text": "去 ENTITY_CITY 上海 END"},
        {"text": "回 ENTITY_CITY 北京 END"},
    ]
    said = ["放 ENTITY_SONG 吻 别 END 和吻别", "去 ENTITY_SONG 上海 END", "回 ENTITY_CITY 北京。 END"]
    report = report_on(tmp_path, lines, said)
    score = report.models[0].entities
    assert (score.counts.reference, score.counts.predicted, score.counts.matched) == (4, 3, 2)
    assert score.precision.value == pytest.approx(2 / 3)
    assert score.recall.value == pytest.approx(2 / 4)
    assert score.f1.value == pytest.approx(4 / 7)
    assert score.types["SONG"] == {
        "reference": 2, "predicted": 2, "matched": 1, "precision": 0.5, "recall": 0.5, "f1": 0.5,
    }  # fmt: skip
    assert score.types["CITY"] == {
        "reference": 2, "predicted": 1, "matched": 1, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3),
    }  # fmt: skip
    assert report_on(tmp_path, [{"text": "上海"}], ["ENTITY_CITY 上海 END"]).models[0].entities is None
    nothing = report_on(tmp_path, [{"text": "ENTITY_CITY 上海 END"}], ["上海"]).models[0].entities
    assert nothing.precision.value is None and nothing.recall.value == nothing.f1.value == 0


def test_intervals():
    """The binomial interval of 200 of 1000 is 0.175 to 0.226; the bootstrap must find it, and again with the same seed."""
    successes, trials = np.arange(1000) % 5 == 0, np.ones(1000)
    found = rate(successes, trials)
    assert found.value == 0.2
    assert (found.low, found.high) == pytest.approx((0.1757, 0.2254), abs=0.003)
    assert rate(successes, trials) == found != rate(successes, trials, seed=1)
    assert rate([1, 1, 1], [2, 2, 2]) == (0.5, 0.5, 0.5)
    assert rate([1], [0]) == (None, None, None)
    # What a recording without reference adds is counted where others make a rate of it.
    assert rate([2, 0], [0, 4]).value == 0.5


def test_rates_use_the_draws_of_one_another(tmp_path):
    lines = [{"text": "今天天气"}] * 20
    said = ["今天天气" if index % 3 else "明天气" for index in range(20)]
    one, two = report_on(tmp_path, lines, said, said).models
    assert one.cer == two.cer and one.cer.rate.low < one.cer.rate.value < one.cer.rate.high


@pytest.mark.slow
def test_the_command_on_models_of_two_kinds(audio_dir, zh_small_dir, stock_dir, tmp_path, capsys):
    """The references are a model's own words with edits that are known, so that the figures are."""
    ours = pipeline("automatic-speech-recognition", str(zh_small_dir))
    said = [normalize(ours(str(audio_dir / f"{index}.wav"))["transcript"]) for index in range(3)]
    assert min(map(len, said)) >= 4
    # A character that no one says in front, one in the place of another, two missing at the end.
    texts = ["龘" + said[0], said[1][:1] + "龘" + said[1][2:], said[2][:-2]]
    genders = ["GENDER_MALE", "GENDER_FEMALE", "GENDER_MALE"]
    lines = [
        {"audio_filepath": str(audio_dir / f"{i}.wav"), "text": text, "gender": gender}
        for i, (text, gender) in enumerate(zip(texts, genders, strict=True))
    ]
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not audio")
    soundfile.write(tmp_path / "short.wav", np.zeros(50), 16000)
    lines.insert(1, {"audio_filepath": str(bad), "text": "好"})
    lines.append({"audio_filepath": "missing.wav", "text": "好"})
    lines.append({"audio_filepath": "short.wav", "text": "好"})
    manifest = write_manifest(tmp_path, lines)
    arguments = ["--model", str(zh_small_dir), "--model", str(stock_dir), "--batch-size", "2", "--json"]
    assert main(["evaluate", *arguments, "--output", str(tmp_path / "out"), str(manifest)]) == 1

    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("citrinet: ")]
    assert len(errors) == 3
    for name, reason in (("bad", "damaged or not audio"), ("missing", "No such file"), ("short", "25 ms at")):
        assert any(f"{name}.wav" in line and reason in line for line in errors)
    report = json.loads(captured.out)
    assert (report["recordings"], report["scored"], len(report["failed"])) == (6, 3, 3)
    assert report["audio_seconds"] == pytest.approx(15)
    known, stock = report["models"]
    length = sum(map(len, texts))
    assert {name: known["cer"][name] for name in ("substitutions", "deletions", "insertions", "length")} == {
        "substitutions": 1, "deletions": 1, "insertions": 2, "length": length,
    }  # fmt: skip
    assert known["cer"]["value"] == pytest.approx(4 / length)
    assert known["tags"]["GENDER"]["accuracy"]["head"] is not None
    assert 0 < known["real_time_factor"] == pytest.approx(known["processing_seconds"] / 15)
    # It says one character for all of a recording, which may be right by chance.
    hits = sum("是" in text for text in texts)
    assert stock["cer"]["deletions"] + stock["cer"]["substitutions"] == length - hits
    assert stock["tags"]["GENDER"]["accuracy"] == {"head": None, "text": None, "merged": None}

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "report.html", "report.json", "utterances.jsonl",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report
    utterances = [json.loads(line) for line in (tmp_path / "out" / "utterances.jsonl").open(encoding="utf-8")]
    assert Counter(utterance["model"] for utterance in utterances) == {str(zh_small_dir): 3, str(stock_dir): 3}
    assert utterances[0]["cer"] == {"substitutions": 0, "deletions": 1, "insertions": 0, "length": len(texts[0])}


def test_tags_that_a_stock_pipeline_writes(audio_dir, stock_dir, tmp_path, capsys):
    model = Wav2Vec2ForCTC.from_pretrained(stock_dir)
    model.lm_head.bias.data[4] = 9.0
    model.save_pretrained(tmp_path / "model")
    Wav2Vec2Processor.from_pretrained(stock_dir).save_pretrained(tmp_path / "model")
    genders = ["GENDER_MALE", "GENDER_FEMALE", "GENDER_FEMALE"]
    lines = [{"audio_filepath": str(audio_dir / f"{i}.wav"), "text": "好", "gender": g} for i, g in enumerate(genders)]
    manifest = write_manifest(tmp_path, lines)
    assert main(["evaluate", "--model", str(tmp_path / "model"), str(manifest)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| GENDER"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:3] == ["GENDER", "3", "66.7 (GENDER_FEMALE)"]
    assert cells[4] == "-" and cells[5].startswith("33.3 (") and cells[6] == cells[5]


@pytest.mark.slow
def test_page(tmp_path):
    lines = [
        {"text": "放 ENTITY_SONG 吻别 END GENDER_MALE"},
        {"text": "去 ENTITY_CITY <上海> END GENDER_FEMALE"},
    ]
    report = report_on(tmp_path, lines, ["放 ENTITY_SONG 吻别 END GENDER_MALE", "去下海"], ["放", ""])
    page = html_page(report)
    images = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(images) == 5  # errors, spread, tags, confusion matrices of the model that says some, entities
    assert all(b"</svg>" in base64.b64decode(image) for image in images)
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched
    assert "去<del>上</del><ins>下</ins>海" in page
    assert "NFKC" in page
    write_report(report, tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "report.html").read_text(encoding="utf-8") == page


def test_page_escapes_what_others_wrote(tmp_path):
    report = report_on(tmp_path, [{"text": "好", "audio_filepath": "<script>alert(1)</script>.wav"}], ["不"])
    assert "<script>" not in html_page(report)


def test_empty_references(tmp_path):
    """Noise of which nothing may be said: what is said all the same counts, but alone it makes no rate."""
    report = report_on(tmp_path, [{"text": ""}, {"text": "好天气"}], ["喂", "好天气"])
    assert report.models[0].cer.rate.value == pytest.approx(1 / 3)
    alone = report_on(tmp_path, [{"text": ""}], ["喂"])
    assert alone.models[0].cer.rate.value is None
    assert "| -" in format_report(alone) and "<ins>喂</ins>" in html_page(alone)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the manifest is empty"),
        ([{"text": "好"}, {}], "1 of 2 lines have no `text`"),
        ([{"text": "好"}], "none of its 1 recordings could be read"),
    ],
)
def test_manifests_that_cannot_be_used(lines, message, stock_dir, tmp_path, capsys):
    manifest = write_manifest(tmp_path, lines)
    with pytest.raises(ValueError, match=message):
        evaluate([str(stock_dir)], manifest)
    assert main(["evaluate", "--model", str(stock_dir), str(manifest)]) == 1
    assert message in capsys.readouterr().err


def test_a_model_that_is_missing_is_found_out_first(stock_dir, audio_dir, tmp_path, capsys, monkeypatch):
    """Before any is loaded."""
    monkeypatch.setattr(sys.modules["citrinet.evaluation.evaluate"], "load_recognizer", None)
    manifest = write_manifest(tmp_path, [{"audio_filepath": str(audio_dir / "0.wav"), "text": "好"}])
    assert main(["evaluate", "--model", str(stock_dir), "--model", str(tmp_path / "none"), str(manifest)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and str(tmp_path / "none") in captured.err


def test_missing_package(stock_dir, tmp_path, capsys, monkeypatch):
    for name in [n for n in sys.modules if n.startswith(("citrinet.evaluation", "citrinet.error_rates"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("citrinet.evaluation")
    monkeypatch.delattr("citrinet.error_rates")
    monkeypatch.setitem(sys.modules, "jiwer", None)
    assert main(["evaluate", "--model", str(stock_dir), str(tmp_path / "manifest.jsonl")]) == 1
    assert 'jiwer: pip install "citrinet[evaluate]"' in capsys.readouterr().err


def test_tables_need_no_package_for_plots(stock_dir, audio_dir, tmp_path, capsys, monkeypatch):
    """A page does, and says so before work begins."""
    for name in [n for n in sys.modules if n.startswith("citrinet.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("citrinet.evaluation")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    manifest = write_manifest(tmp_path, [{"audio_filepath": str(audio_dir / "0.wav"), "text": "好"}])
    arguments = ["evaluate", "--model", str(stock_dir), str(manifest)]
    assert main(arguments) == 0
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "matplotlib" in captured.err and captured.out.count("| CER") == 1


@pytest.mark.slow
def test_segments_of_one_recording(audio_dir, zh_small_dir, tmp_path, capsys):
    """Each is read on its own, and each has a name of its own in the files and on the page."""
    parts = [synthetic_speech(2.5, seed=seed) for seed in (5, 6, 7)]
    soundfile.write(tmp_path / "joined.wav", np.concatenate(parts), 16000)
    ours = pipeline("automatic-speech-recognition", str(zh_small_dir))
    soundfile.write(tmp_path / "part.wav", parts[1], 16000)
    said = ours(str(tmp_path / "part.wav"))["transcript"]
    assert said
    spans = [{"offset": 0.0, "duration": 2.5}, {"offset": 2.5, "duration": 2.5}, {"offset": 90.0, "duration": 2.5}]
    lines = [{"audio_filepath": "joined.wav", "text": f"龘{said}", **span} for span in spans]
    manifest = write_manifest(tmp_path, lines)
    main(["evaluate", "--model", str(zh_small_dir), "--output", str(tmp_path / "out"), "--json", str(manifest)])
    report = json.loads(capsys.readouterr().out)
    assert report["scored"] == 2 and report["audio_seconds"] == pytest.approx(5)
    assert "(90-92.5 s)" in report["failed"][0]["audio"]
    utterances = [json.loads(line) for line in (tmp_path / "out" / "utterances.jsonl").open(encoding="utf-8")]
    assert [(u["offset"], u["duration"], u["channel"]) for u in utterances] == [(0.0, 2.5, None), (2.5, 2.5, None)]
    assert normalize(utterances[1]["hypothesis"]["transcript"]) == normalize(said)
    assert utterances[1]["cer"]["deletions"] == 1 and not utterances[1]["cer"]["substitutions"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "joined.wav (0-2.5 s)" in page and "joined.wav (2.5-5 s)" in page


@pytest.mark.slow
def test_graphs_beside_the_model_they_were_made_of(audio_dir, tiny_dir, tiny_graphs, tmp_path, capsys):
    """int8 graphs are a model like any other."""
    graphs = tiny_graphs / "int8"
    lines = [{"audio_filepath": str(audio_dir / f"{i}.wav"), "text": "好天气", "gender": "MALE"} for i in range(3)]
    manifest = write_manifest(tmp_path, lines)
    assert main(["evaluate", "--model", str(tiny_dir), "--model", str(graphs), "--json", str(manifest)]) == 0
    ours, theirs = json.loads(capsys.readouterr().out)["models"]
    assert theirs["model"] == str(graphs) and theirs["cer"]["length"] == ours["cer"]["length"] == 9
    assert theirs["tags"]["gender"]["accuracy"]["head"] is not None


@pytest.mark.slow
def test_the_package_does_not_load_what_only_evaluation_needs():
    code = "import sys, citrinet, citrinet.cli; print([m for m in ('jiwer', 'matplotlib') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
