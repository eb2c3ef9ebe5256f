"""Checkpoints by the name of a repository or by their address. The Hub is a stand-in, on this machine."""

import shutil
from pathlib import Path

import pytest
import yaml

from citrinet.convert import ConversionError
from citrinet.convert.source import open_source
from helpers import Probe, run_probes
from hub_server import COMMIT, Hub

pytestmark = pytest.mark.slow
CARD = "---\nlicense: cc-by-4.0\nlanguage: zh\nlibrary_name: nemo\n---\n# A model\n"
ONE, TWO, NONE = "someone/one", "someone/two", "someone/none"


@pytest.fixture(scope="module")
def converted(nemo_dir, tmp_path_factory):
    """Commands, and how each of them ended."""
    home = tmp_path_factory.mktemp("hub")
    for name, files in ((ONE, ["a.nemo"]), (TWO, ["a.nemo", "b.nemo"]), (NONE, [])):
        folder = home / name.replace("/", "-")
        folder.mkdir()
        (folder / "README.md").write_text(CARD)
        for file in files:
            shutil.copyfile(nemo_dir / "zh_small.nemo", folder / file)
    outputs = tmp_path_factory.mktemp("out")
    with Hub({name: home / name.replace("/", "-") for name in (ONE, TWO, NONE)}) as hub:
        environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        jobs = {
            "repository": [ONE, "--language", "zh-TW"],
            "address": [f"{hub.url}/{ONE}/resolve/main/a.nemo"],
            "elsewhere": [f"{hub.large_url}/{_sha256(nemo_dir / 'zh_small.nemo')}"],
            "revision": [ONE, "--revision", COMMIT, "--token", "hf_given"],
            "two": [TWO],
            "file": [TWO, "--file", "b.nemo"],
            "no file": [TWO, "--file", "c.nemo"],
            "none": [NONE],
            "absent": ["someone/absent"],
            "no revision": [ONE, "--revision", "v9"],
            "no answer": [f"{hub.url}/elsewhere/model.nemo"],
        }
        lines = [["convert", words[0], str(outputs / name), *words[1:]] for name, words in jobs.items()]
        lines += [["transcribe", "--model", ONE, "speech.wav"], ["transcribe", "--model", NONE, "speech.wav"]]
        probe = Probe("commands", True, {"lines": lines}, environment=environment)
        run_probes(probe)
    assert set(probe.hosts) <= {"127.0.0.1", "::1", "localhost"}
    assert "Bearer hf_given" in hub.tokens
    return dict(zip([*jobs, "transcribe", "transcribe none"], probe.facts, strict=True)), outputs


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_way_gives_the_same_model(converted, zh_small_dir):
    results, outputs = converted
    expected = {path.name: path.read_bytes() for path in zh_small_dir.iterdir() if path.name != "README.md"}
    for name in ("repository", "address", "elsewhere", "revision", "file"):
        assert results[name][0] == 0, results[name]
        found = {path.name: path.read_bytes() for path in (outputs / name).iterdir() if path.name != "README.md"}
        assert found == expected, name


def test_the_card_carries_what_the_sources_says(converted):
    _, outputs = converted
    for name, language in (("repository", "zh-TW"), ("address", "zh")):
        card = (outputs / name / "README.md").read_text(encoding="utf-8")
        facts = yaml.safe_load(card.split("---")[1])
        assert (facts["license"], facts["language"], facts["base_model"]) == ("cc-by-4.0", language, ONE)
        assert facts["library_name"] == "transformers" and "`cc-by-4.0`" in card
    elsewhere = yaml.safe_load((outputs / "elsewhere" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert not {"license", "base_model"} & set(elsewhere)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two", "holds 2 .nemo files, choose one with --file: a.nemo, b.nemo"),
        ("no file", "has no file 'c.nemo'"),
        ("none", "holds no .nemo file"),
        ("absent", "no such repository on the Hub"),
        ("no revision", "has no revision 'v9'"),
        ("no answer", "the server answered 404"),
        ("transcribe", f"convert it first, `citrinet convert {ONE} my-model`"),
        ("transcribe none", NONE),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(converted, name, message):
    results, outputs = converted
    status, printed, error = results[name]
    assert status == 1 and message in error and not printed
    assert len(error.strip().splitlines()) == 1
    assert not (outputs / name).exists()


def test_a_folder_with_one_checkpoint(nemo_dir, tmp_path):
    shutil.copyfile(nemo_dir / "zh_small.nemo", tmp_path / "a.nemo")
    with open_source(tmp_path) as source:
        assert source.path == tmp_path / "a.nemo" and source.repository is None
    (tmp_path / "b.nemo").touch()
    with pytest.raises(ConversionError, match="--file"), open_source(tmp_path):
        pass
