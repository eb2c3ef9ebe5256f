"""A converted repository on a Hub: loaded by its name, loaded again without a network, uploaded. The Hub is a stand-in."""

from pathlib import Path

import pytest

from helpers import Probe, run_probes, synthetic_speech, write_wav
from hub_server import LARGE, Hub

pytestmark = pytest.mark.slow
REPOSITORY = "someone/citrinet-zh-small"
TRUST = {"trust_remote_code": True}
ONLINE = {"HF_HUB_OFFLINE": "0"}
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@pytest.fixture(scope="module")
def audio(tmp_path_factory) -> list[str]:
    path = tmp_path_factory.mktemp("audio") / "speech.wav"
    return [write_wav(path, synthetic_speech(4.0, 2))]


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> dict[str, Path]:
    """Caches, empty at first; those of the online interpreters are handed to the offline ones."""
    return {"package": tmp_path_factory.mktemp("package"), "remote": tmp_path_factory.mktemp("remote")}


@pytest.fixture(scope="module")
def saved_dir(tmp_path_factory) -> Path:
    """Where the interpreter without citrinet saves what it loaded by name."""
    return tmp_path_factory.mktemp("saved") / "again"


@pytest.fixture(scope="module")
def online(zh_small_dir, audio, homes, saved_dir) -> dict[str, Probe]:
    """With citrinet and without it, by the name of the repository."""
    with Hub({REPOSITORY: zh_small_dir}) as hub:
        environment = {**ONLINE, "HF_ENDPOINT": hub.url}
        package = {"repository": REPOSITORY, "audio": audio, "trust": {}, "reference": str(zh_small_dir)}
        remote = {"repository": REPOSITORY, "audio": audio, "trust": TRUST, "saved": str(saved_dir)}
        probes = {
            "package": Probe("load_from_hub", True, package, homes["package"], environment),
            "remote": Probe("load_from_hub", False, remote, homes["remote"], environment),
        }
        run_probes(*probes.values())
    assert hub.misunderstood == []
    return probes


@pytest.fixture(scope="module")
def offline(online, audio, homes, saved_dir) -> dict[str, Probe]:
    """The same caches after the Hub has gone; and what was saved, with no cache at all."""
    # The task of a repository without remote code stands in its card, which is not in the cache.
    package = {"repository": REPOSITORY, "audio": audio, "trust": {}, "without_task": False}
    remote = {"repository": REPOSITORY, "audio": audio, "trust": TRUST}
    probes = {
        "package": Probe("load_from_hub", True, package, homes["package"]),
        "remote": Probe("load_from_hub", False, remote, homes["remote"]),
        "saved": Probe("reload", False, {"folders": [str(saved_dir)], "audio": audio, "trust": TRUST}),
    }
    run_probes(*probes.values())
    return probes


def assert_classes(probe: Probe) -> None:
    found = [*probe["pipeline"]["classes"].values(), *probe["auto"].values()]
    found += [probe["without_task"]] if "without_task" in probe.facts else []
    assert {name.rsplit(".", 1)[-1] for name in found} == {
        "CitrinetPipeline", "CitrinetForCTC", "CitrinetModel", "CitrinetConfig", "CitrinetTokenizer",
        "CitrinetFeatureExtractor", "CitrinetProcessor",
    }  # fmt: skip
    source = "citrinet." if probe.package else "transformers_modules.someone.citrinet_hyphen_zh_hyphen_small."
    assert [name for name in found if not name.startswith(source)] == []


@pytest.mark.parametrize("way", ["package", "remote"])
def test_load_by_name(online, way):
    assert_classes(online[way])
    expected = online["package"]["reference"]["outputs"]
    assert expected["plain"]["text"] and expected["word"]["chunks"]
    assert online[way]["pipeline"]["outputs"] == expected


@pytest.mark.parametrize("way", ["package", "remote"])
def test_load_from_the_cache_without_a_network(online, offline, way):
    assert_classes(offline[way])
    assert offline[way]["pipeline"]["outputs"] == online[way]["pipeline"]["outputs"]
    assert offline[way].hosts == []


def test_what_was_loaded_by_name_is_saved_complete(online, offline, saved_dir):
    """The copy stands on its own: it is loaded with empty caches and no network."""
    facts = offline["saved"][str(saved_dir)]
    classes = [*facts["pipeline"]["classes"].values(), *facts["auto"].values()]
    assert [name for name in classes if not name.startswith("transformers_modules.again.")] == []
    expected = online["remote"]["pipeline"]["outputs"]
    assert facts["pipeline"]["outputs"] == {way: expected[way] for way in facts["pipeline"]["outputs"]}


def test_nothing_but_the_hub_was_contacted(online):
    assert {host for probe in online.values() for host in probe.hosts} <= LOOPBACK


def test_push(nemo_dir, tmp_path):
    output = tmp_path / "zh_small"
    arguments = {"nemo_file": str(nemo_dir / "zh_small.nemo"), "output": str(output), "repository": "someone/pushed"}
    with Hub({}) as hub:
        environment = {**ONLINE, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_stand_in", "HF_HUB_DISABLE_XET": "1"}
        probe = Probe("convert_and_push", True, arguments, environment=environment)
        run_probes(probe)
    assert hub.misunderstood == []
    assert hub.tokens <= {"Bearer hf_stand_in", None} and "Bearer hf_stand_in" in hub.tokens
    written = {path.name: path.read_bytes() for path in output.iterdir()}
    assert hub.received == {"someone/pushed": written}
    assert {len(content) >= LARGE for content in written.values()} == {True, False}, "both ways of upload must be used"
    assert set(hub.large_objects.values()) == {content for content in written.values() if len(content) >= LARGE}
    assert set(probe.hosts) <= LOOPBACK
