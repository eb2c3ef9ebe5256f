"""A converted folder in `pipeline()` and the Auto classes: with citrinet, with nothing but Transformers, with both."""

import json
import shutil
from pathlib import Path

import pytest

from citrinet.convert import convert_nemo, export_nemo
from helpers import Probe, run_probes, synthetic_speech, write_wav

pytestmark = pytest.mark.slow
CLASSES = {
    "pipeline": "pipeline_citrinet.CitrinetPipeline",
    "model": "modeling_citrinet.CitrinetForCTC",
    "config": "configuration_citrinet.CitrinetConfig",
    "tokenizer": "tokenization_citrinet.CitrinetTokenizer",
    "feature_extractor": "feature_extraction_citrinet.CitrinetFeatureExtractor",
}
AUTO = {
    "AutoConfig": CLASSES["config"],
    "AutoModel": "modeling_citrinet.CitrinetModel",
    "AutoModelForCTC": CLASSES["model"],
    "AutoFeatureExtractor": CLASSES["feature_extractor"],
    "AutoTokenizer": CLASSES["tokenizer"],
    "AutoProcessor": "processing_citrinet.CitrinetProcessor",
}
SAVED = ("model", "pipeline", "trainer")
SAVERS = ("package", "remote")
TRUST = {"trust_remote_code": True}


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("audio")
    return [
        write_wav(folder / f"{seed}.wav", synthetic_speech(seconds, seed)) for seed, seconds in ((2, 4.0), (1, 2.3))
    ]


@pytest.fixture(scope="module")
def converted(tiny_dir, tmp_path_factory) -> Path:
    """What `citrinet convert` makes of a network of two blocks."""
    folder = tmp_path_factory.mktemp("converted")
    export_nemo(tiny_dir, folder / "tiny.nemo")
    return convert_nemo(folder / "tiny.nemo", folder / "model").output


@pytest.fixture(scope="module")
def loaded(converted, audio, tmp_path_factory) -> dict[str, Probe]:
    """One interpreter with citrinet and one without, each of which loads the folder, uses it and saves it again."""
    probes = {}
    for saver in SAVERS:
        # Each has a copy of its own, so that nothing that the other writes can help it.
        folder = tmp_path_factory.mktemp(saver)
        shutil.copytree(converted, folder / "small.v1")
        function = "load_with_package" if saver == "package" else "load_with_remote_code"
        arguments = {"folder": str(folder / "small.v1"), "audio": audio, "saved": str(folder)}
        probes[saver] = Probe(function, saver == "package", arguments)
    run_probes(*probes.values())
    return probes


@pytest.fixture(scope="module")
def saved(loaded) -> dict[tuple[str, str], Path]:
    """(who saved, how) -> folder, out of reach of the folder that it was loaded from."""
    folders = {}
    for saver, probe in loaded.items():
        source, root = Path(probe.arguments["folder"]), Path(probe.arguments["saved"])
        source.rename(root / "moved")
        folders |= {(saver, kind): root / kind for kind in (*SAVED, "encoder")}
    return folders


@pytest.fixture(scope="module")
def reloaded(saved, audio) -> dict[str, Probe]:
    """The saved folders in two more interpreters, with citrinet and without, that know nothing of the first two."""
    folders = [str(folder) for (_, kind), folder in saved.items() if kind != "encoder"]
    probes = {
        "package": Probe("reload", True, {"folders": folders, "audio": audio, "trust": {}}),
        "remote": Probe("reload", False, {"folders": folders, "audio": audio, "trust": TRUST}),
    }
    run_probes(*probes.values())
    return probes


def packaged(classes: dict[str, str]) -> dict[str, str]:
    return {part: f"citrinet.{name}" for part, name in classes.items()}


def assert_remote(found: dict[str, str], expected: dict[str, str]) -> None:
    """All from modules of the folder, which Transformers copies to a package of this name."""
    assert {part: ".".join(name.split(".")[-2:]) for part, name in found.items()} == expected
    assert [name for name in found.values() if not name.startswith("transformers_modules.")] == []


def test_import_is_enough(loaded):
    assert loaded["package"]["pipeline"]["classes"] == packaged(CLASSES)
    assert loaded["package"]["auto"] == packaged(AUTO)


def test_remote_code_is_enough(loaded):
    probe = loaded["remote"]
    assert_remote(probe["pipeline"]["classes"], CLASSES)
    assert_remote(probe["auto"], AUTO)
    assert probe.citrinet_modules == [], "the interpreter without citrinet found it after all"


def test_remote_code_needs_no_task(loaded):
    assert_remote({"pipeline": loaded["remote"]["without_task"]}, {"pipeline": CLASSES["pipeline"]})


def test_package_and_trust_together(loaded):
    """Which of the two a class then comes from depends on the release of Transformers; they must get on together."""
    found = loaded["package"]["with_trust"]["classes"]
    assert {part: ".".join(name.split(".")[-2:]) for part, name in found.items()} == CLASSES
    assert {name.split(".")[0] for name in found.values()} <= {"citrinet", "transformers_modules"}


def test_every_way_gives_the_same(loaded):
    package, remote = loaded["package"], loaded["remote"]
    expected = package["pipeline"]["outputs"]
    assert expected["plain"]["text"] and expected["plain"]["tags"], "the test would compare nothing"
    assert expected["char"]["chunks"] and expected["word"]["chunks"]
    assert remote["pipeline"]["outputs"] == expected
    assert package["with_trust"]["outputs"] == expected
    assert package["after_trust"] == package["pipeline"]
    assert package["generated"] == remote["generated"] == expected["plain"]["text"]


@pytest.mark.parametrize("saver", SAVERS)
def test_an_edit_of_preprocessor_config_counts(loaded, saver):
    assert loaded[saver]["edited"] == ["nemo-2.4"] * 3


def test_any_attention_implementation_is_right(loaded):
    assert loaded["package"]["attention"] == packaged(CLASSES)["pipeline"]
    assert_remote({"pipeline": loaded["remote"]["attention"]}, {"pipeline": CLASSES["pipeline"]})


def test_package_knows_a_model_given_as_object(loaded):
    assert loaded["package"]["from_objects"] == packaged(CLASSES)["pipeline"]


def test_encoder_alone(loaded):
    for probe in loaded.values():
        assert probe["save_encoder"] is True
        assert "UNEXPECTED" not in probe.log
        assert "MISSING" not in probe.log


@pytest.mark.parametrize("saver", SAVERS)
def test_other_models_keep_the_stock_pipeline(loaded, saver):
    stock = loaded[saver]["stock"]
    name = "transformers.pipelines.automatic_speech_recognition.AutomaticSpeechRecognitionPipeline"
    assert stock["classes"] == [name, name]
    assert stock["output"].keys() == {"text"}
    assert stock == loaded["remote"]["stock"]


@pytest.mark.parametrize("loader", SAVERS)
@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.parametrize("saver", SAVERS)
def test_what_was_saved_loads(loaded, saved, reloaded, saver, kind, loader):
    assert loaded[saver][f"save_{kind}"] is None
    facts = reloaded[loader][str(saved[saver, kind])]
    auto = {name: AUTO[name] for name in facts["auto"]}
    if loader == "package":
        assert facts["pipeline"]["classes"] == packaged(CLASSES)
        assert facts["auto"] == packaged(auto)
    else:
        assert_remote(facts["pipeline"]["classes"], CLASSES)
        assert_remote(facts["auto"], auto)
    before = loaded[saver]["trained" if kind == "trainer" else "pipeline"]["outputs"]
    assert facts["pipeline"]["outputs"] == {way: before[way] for way in facts["pipeline"]["outputs"]}


def test_training_changed_the_model(loaded):
    """Else the checkpoint of the test above could be any."""
    for probe in loaded.values():
        assert probe["trained"]["outputs"]["plain"] != probe["pipeline"]["outputs"]["plain"]


@pytest.mark.parametrize("kind", [*SAVED, "encoder"])
@pytest.mark.parametrize("saver", SAVERS)
def test_what_was_saved_is_complete(saved, converted, saver, kind):
    """Every module that the configuration names comes along unchanged."""
    modules = {path.name: path.read_bytes() for path in converted.glob("*.py")}
    found = {path.name: path.read_bytes() for path in saved[saver, kind].glob("*.py")}
    assert found == modules


def test_saved_configuration_names_all_classes(saved, converted):
    original = json.loads((converted / "config.json").read_text(encoding="utf-8"))
    assert original["auto_map"].keys() == AUTO.keys()
    for folder in saved.values():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["auto_map"] == original["auto_map"]
        assert config["custom_pipelines"] == original["custom_pipelines"]


def test_no_network(loaded, reloaded):
    assert {host for probe in [*loaded.values(), *reloaded.values()] for host in probe.hosts} == set()
