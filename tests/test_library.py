"""What generic code of Transformers' users does with a converted model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import (
    MODEL_FOR_CTC_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

import citrinet
from citrinet import (
    CitrinetConfig,
    CitrinetFeatureExtractor,
    CitrinetForCTC,
    CitrinetInferenceConfig,
    CitrinetProcessor,
)
from citrinet.checkpoint import load_network
from helpers import synthetic_speech
from tiny_models import tiny_config, tiny_tokenizer

TASK = "automatic-speech-recognition"
ATTENTION = [None, "sdpa", "eager", "flash_attention_2", "flex_attention", "kernels-community/flash-attn"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    """A whole model that is quick to load. Not to be written to."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer("bpe")
    network = CitrinetForCTC(tiny_config(num_mel_bins=80, vocab_size=len(tokenizer))).eval()
    torch.nn.init.normal_(network.ctc_head.weight)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    network.save_pretrained(folder)
    CitrinetProcessor(CitrinetFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(model_dir, tmp_path) -> Path:
    """The same, to be written to."""
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


def leaderboard(model_id: str, audios: list, device: str, attention: str, compiled: bool, batch_size: int) -> list[str]:
    """The calls of the Open ASR Leaderboard's script for Transformers, in its order."""
    config = AutoConfig.from_pretrained(model_id)
    is_seq2seq = type(config) in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
    assert is_seq2seq or type(config) in MODEL_FOR_CTC_MAPPING
    loader = AutoModelForSpeechSeq2Seq if is_seq2seq else AutoModelForCTC
    model = loader.from_pretrained(model_id, torch_dtype=torch.bfloat16, attn_implementation=attention).to(device)
    model.eval()
    processor = AutoProcessor.from_pretrained(model_id)
    options = {}
    if model.can_generate():
        options["max_new_tokens"] = None
        if model.generation_config.is_multilingual:
            options |= {"language": "en", "task": "transcribe"}
    if compiled:
        model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)
        if model.can_generate():
            model.generation_config.cache_implementation = "static"
    texts = []
    for start in range(0, len(audios), batch_size):
        batch = audios[start : start + batch_size]
        missing = batch_size - len(batch) if compiled else 0
        batch = batch + [batch[-1]] * missing
        if model.can_generate():
            inputs = processor(batch, sampling_rate=16_000, return_tensors="pt", device=device)
        else:
            inputs = processor(
                batch,
                sampling_rate=16_000,
                truncation=False,
                padding="longest",
                return_tensors="pt",
                return_attention_mask=True,
            )
        inputs = inputs.to(device)
        inputs[processor.model_input_names[0]] = inputs[processor.model_input_names[0]].to(torch.bfloat16)
        with sdpa_kernel([SDPBackend.MATH]):
            if model.can_generate():
                ids = model.generate(**inputs, **options, min_new_tokens=None)
            else:
                with torch.no_grad():
                    ids = model(**inputs).logits.argmax(-1)
        ids = ids[:-missing, ...] if missing else ids
        texts += processor.batch_decode(ids, skip_special_tokens=True)
    return texts


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "compiled"), [("sdpa", False), ("sdpa", True), ("eager", False)])
def test_the_leaderboards_script_runs(model_dir, attention, compiled):
    audios = [synthetic_speech(seconds, seed) for seed, seconds in enumerate([1.0, 2.5, 0.7])]
    texts = leaderboard(str(model_dir), audios, "cpu", attention, compiled, batch_size=2)
    recognizer = pipeline(TASK, model=str(model_dir), device="cpu", dtype=torch.bfloat16)
    assert texts == [result["text"].replace(" \u2047 ", "") for result in recognizer(audios)]
    assert all(texts)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTION)
def test_any_attention_implementation_is_right(model_dir, attention):
    features = torch.randn(1, 64, 80)
    expected = AutoModelForCTC.from_pretrained(model_dir)(features).logits
    model = AutoModelForCTC.from_pretrained(model_dir, attn_implementation=attention)
    assert torch.equal(model(features).logits, expected)
    model.set_attn_implementation("eager")
    model.set_attn_implementation(attention or "sdpa")
    encoder = AutoModel.from_pretrained(model_dir, attn_implementation=attention)
    assert torch.equal(encoder(features).last_hidden_state, model.model(features).last_hidden_state)
    config = AutoConfig.from_pretrained(model_dir, attn_implementation=attention)
    AutoModelForCTC.from_config(config)
    AutoModelForCTC.from_config(AutoConfig.from_pretrained(model_dir), attn_implementation=attention)


def test_other_arguments_of_loading(model_dir, tmp_path):
    for arguments in ({"dtype": torch.float16}, {"torch_dtype": "float16"}):
        model = AutoModelForCTC.from_pretrained(model_dir, device_map="cpu", attn_implementation="sdpa", **arguments)
        assert model.dtype == torch.float16
    given = {"attn_implementation": "sdpa", "low_cpu_mem_usage": True, "use_safetensors": True}
    recognizer = pipeline(TASK, str(model_dir), model_kwargs=dict(given), device_map="cpu")
    expected = recognizer(synthetic_speech(1.0))
    recognizer.save_pretrained(tmp_path / "saved")
    assert pipeline(TASK, str(tmp_path / "saved"))(synthetic_speech(1.0)) == expected
    for file in (tmp_path / "saved").glob("*.json"):
        assert not set(given) & json.loads(file.read_text(encoding="utf-8")).keys()


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForCTC])
@pytest.mark.parametrize("name", ["atention_mask", "labls", "output_hidden_state", "tag_lables"])
def test_a_misspelt_argument_of_forward_is_refused(model_dir, kind, name):
    model = kind.from_pretrained(model_dir)
    with pytest.raises(TypeError, match=name):
        model(torch.randn(1, 32, 80), **{name: torch.ones(1, 32)})


def test_a_misspelt_argument_of_the_feature_extractor_is_refused(model_dir):
    extractor = AutoFeatureExtractor.from_pretrained(model_dir)
    with pytest.raises(TypeError, match="sampling_rat"):
        extractor(synthetic_speech(1.0), sampling_rat=8000)


def test_no_configuration_changes_another():
    first = CitrinetConfig()
    expected = first.to_dict()
    first.adapters.append({"name": "x"})
    first.tag_labels["AGE"] = ["NONE"]
    first.auto_map["AutoTokenizer"].append("x")
    for name in ("hidden_sizes", "num_repeats", "kernel_sizes", "strides", "residuals", "dropouts"):
        getattr(first, name).append(1)
    assert CitrinetConfig().to_dict() == expected


def test_a_configuration_does_not_hold_what_it_was_given():
    given = {
        "hidden_sizes": [16],
        "num_repeats": [1],
        "kernel_sizes": [3],
        "strides": [1],
        "residuals": [False],
        "dropouts": [0.0],
        "adapters": [{"name": "first", "dim": 4}],
        "tag_labels": {"AGE": ["NONE", "AGE_14"]},
    }
    first, second = CitrinetConfig(**given), CitrinetConfig(**given)
    before = json.dumps(given)
    first.tag_labels["AGE"].append("AGE_20")
    first.adapters[0]["dim"] = 8
    for name in ("hidden_sizes", "num_repeats", "kernel_sizes", "strides", "residuals", "dropouts"):
        getattr(first, name).append(1)
    assert json.dumps(given) == before
    assert second.to_dict() == CitrinetConfig(**given).to_dict()


def test_a_model_does_not_hold_what_it_was_given():
    labels, adapter = {"AGE": ["NONE", "AGE_14"]}, {"name": "new", "dim": 4}
    model = CitrinetForCTC(tiny_config())
    model.new_adapter(adapter)
    model.new_heads(9, 8, labels)
    labels["AGE"].append("AGE_20")
    adapter["dim"] = 5
    assert model.config.tag_labels == {"AGE": ["NONE", "AGE_14"]}
    assert model.config.adapters[-1]["dim"] == 4


@pytest.mark.parametrize("labels", ["MALE", [1, 2], None])
def test_labels_are_lists_of_strings(labels):
    with pytest.raises(ValueError, match="GENDER must be a list of strings"):
        CitrinetConfig(tag_labels={"GENDER": labels})


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_an_optimised_pipeline_saves(model_dir, tmp_path, precision):
    given = {"quantization_config": CitrinetInferenceConfig(precision)}
    fast = pipeline(TASK, str(model_dir), model_kwargs=given)
    expected = fast(synthetic_speech(2.0))
    fast.save_pretrained(tmp_path)
    for again in (pipeline(TASK, str(tmp_path)), pipeline(TASK, str(tmp_path), model_kwargs=given)):
        found = again(synthetic_speech(2.0))
        if precision == "float32":
            assert found["text"] == expected["text"]
        assert found["tags"].keys() == expected["tags"].keys()
    load_network(str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(model_dir).get_vocab()
    tokenizer.save_pretrained(tmp_path / "tokenizer")


def rewrite(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def extractors(folder: Path) -> list:
    """The feature extractor, by every way to it."""
    return [
        AutoFeatureExtractor.from_pretrained(folder),
        AutoProcessor.from_pretrained(folder).feature_extractor,
        citrinet.CitrinetProcessor.from_pretrained(folder).feature_extractor,
        pipeline(TASK, str(folder)).feature_extractor,
        citrinet.load_recognizer(folder).pipeline.feature_extractor,
    ]


@pytest.mark.parametrize(("name", "value"), [("frontend", "nemo-2.4"), ("preemphasis", 0.0), ("pad_to_multiple_of", 8)])
@pytest.mark.parametrize("nested", [False, True])
def test_an_edit_of_preprocessor_config_counts(folder, name, value, nested):
    """Also in a folder with a second copy in processor_config.json, as Transformers' own processors write it."""
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    if nested:
        rewrite(folder / "processor_config.json", feature_extractor=extractor.to_dict())
    rewrite(folder / "preprocessor_config.json", **{name: value})
    assert [getattr(found, name) for found in extractors(folder)] == [value] * 5
    AutoProcessor.from_pretrained(folder).save_pretrained(folder / "again")
    assert [getattr(found, name) for found in extractors_of_processor(folder / "again")] == [value] * 2


def extractors_of_processor(folder: Path) -> list:
    return [AutoFeatureExtractor.from_pretrained(folder), AutoProcessor.from_pretrained(folder).feature_extractor]


def test_settings_in_processor_config_alone_are_read(folder):
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    (folder / "preprocessor_config.json").unlink()
    rewrite(folder / "processor_config.json", feature_extractor=extractor.to_dict() | {"frontend": "nemo-2.4"})
    assert [found.frontend for found in extractors(folder)] == ["nemo-2.4"] * 5


def test_a_processor_saves_one_copy_of_the_settings(folder, tmp_path):
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "processor_config.json").read_text(encoding="utf-8"))
    assert settings["processor_class"] == "CitrinetProcessor"
    assert "feature_extractor" not in settings
    assert (tmp_path / "saved" / "preprocessor_config.json").is_file()


OTHER_CONFIGURATIONS = {
    "mismatched": {"vocab_size": 17, "pad_token_id": 16},
    "missing": {"num_repeats": [2, 2, 2, 1]},
    "unexpected": {"num_repeats": [1, 1, 2, 1]},
}


@pytest.mark.parametrize("precision", [None, "float32", "int8"])
@pytest.mark.parametrize("problem", OTHER_CONFIGURATIONS)
def test_weights_of_another_configuration_are_reported(folder, problem, precision):
    given = {} if precision is None else {"quantization_config": CitrinetInferenceConfig(precision)}
    rewrite(folder / "config.json", **OTHER_CONFIGURATIONS[problem])
    with pytest.raises(ValueError, match=rf"not those of its configuration \(\d+ {problem}"):
        load_network(str(folder), **given)
