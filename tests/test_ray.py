"""Transcription on a Ray cluster: the same results, bad files as rows, nodes that die, runs that go on."""

import json
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

import citrinet
import citrinet.ray as cluster_module
from citrinet.cli import main
from helpers import code_blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # Ray's of itself
]
CLIPS = sorted((Path(__file__).parents[1] / "examples").glob("*.flac"))


@pytest.fixture(scope="module")
def expected():
    recognizer = citrinet.load_recognizer(citrinet.default_model())
    return {clip.name: recognizer(str(clip)) for clip in CLIPS}


@pytest.fixture
def folder(tmp_path):
    """Two dozen recordings and one that is none."""
    place = tmp_path / "recordings"
    place.mkdir()
    for index in range(24):
        clip = CLIPS[index % len(CLIPS)]
        shutil.copyfile(clip, place / f"{index:02}-{clip.name}")
    (place / "bad.flac").write_bytes(b"no sound")
    return place


def test_the_command_goes_on_with_what_is_missing(folder, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["transcribe", "--ray", "local", "--output", str(output), "--workers", "1-2"]
    clips = sorted(folder.glob("0*"))
    manifest = tmp_path / "some.jsonl"
    lines = [{"audio_filepath": str(clip), "offset": 0.5, "duration": 1.5} for clip in clips[:3]]
    manifest.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert main([*words, str(manifest)]) == 0
    first = {path.name: path.read_bytes() for path in output.iterdir()}
    assert main([*words, str(manifest), f"file://{folder}", "--parquet"]) == 1
    assert "25 recordings" in capsys.readouterr().out
    assert {name: (output / name).read_bytes() for name in first} == first
    assert sorted(path.suffix for path in output.iterdir()) == [".jsonl", ".parquet"]
    assert len(cluster_module.written(output)) == 28
    assert main([*words, str(manifest), f"file://{folder}"]) == 0
    assert "all 28 recordings are in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --output DIR"),
        (["--output", "out", "--format", "srt"], "JSON lines or --parquet, not srt"),
        (["--output", "out", "--channel", "all"], "give a manifest"),
        (["--output", "out", "--ray", "127.0.0.1:1"], "no Ray cluster"),
        (["--output", "out", "--ray", "cluster:head"], "is no address"),
    ],
)
def test_what_cannot_be_done_on_a_cluster(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["transcribe", str(CLIPS[0]), *(["--ray"] if "--ray" not in words else []), *words]) == 1
    assert message in capsys.readouterr().err


def test_missing_values_are_no_numbers():
    rows = list(
        cluster_module._rows({"audio": np.array(["a"]), "offset": np.array([1.5]), "duration": np.array([np.nan])})
    )
    segment = cluster_module._segment(rows[0])
    assert (segment.source, segment.offset, segment.duration, segment.channel) == ("a", 1.5, None, None)


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster of two machines, of two processors each; this process stays connected to it, so its tests come last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_module, "ROWS_AT_ONCE", 4)
        patch.setattr(cluster_module, "SHARD_ROWS", 5)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 100 << 20})
        second = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
        ray.init(address=cluster.address, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield cluster, second
        ray.shutdown()
        cluster.shutdown()


def read(output):
    return [json.loads(line) for path in sorted(output.glob("*.jsonl")) for line in path.open(encoding="utf-8")]


def test_a_cluster_that_is_too_small_is_refused(two_nodes):
    rows = ray.data.from_items([{"audio": "speech.wav"}])
    with pytest.raises(ValueError, match="no room for 2 workers of 3 CPUs"):
        cluster_module.transcribe(rows, "model", workers=2, cpus=3)
    with pytest.raises(ValueError, match="0 GPUs"):
        cluster_module.transcribe(rows, "model", gpus=1)
    with pytest.raises(ValueError, match="workers"):
        cluster_module.transcribe(rows, "model", workers=0)


def test_the_guide(two_nodes, expected, monkeypatch, capsys):
    root = CLIPS[0].parents[1]
    monkeypatch.chdir(root)
    code = next(
        block.content for block in code_blocks(root / "docs/guides/cluster.md") if "import ray" in block.content
    )
    exec(code, {})
    assert capsys.readouterr().out.strip() in {result["transcript"] for result in expected.values()}


def test_a_node_that_dies_loses_nothing_and_doubles_nothing(two_nodes, folder, tmp_path, expected):
    cluster, second = two_nodes
    output = tmp_path / "out"
    rows = [{"audio": str(path), "offset": 0.0, "duration": None, "channel": None} for path in sorted(folder.iterdir())]
    results = cluster_module.transcribe(ray.data.from_items(rows), str(citrinet.default_model()), workers=2)

    def kill():
        while not list(output.glob("*.jsonl")):
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    assert cluster_module.write(results, output) == 1
    killer.join()
    found = read(output)
    assert Counter(row["audio"] for row in found) == Counter(row["audio"] for row in rows)
    for row in found:
        name = Path(row["audio"]).name
        if name == "bad.flac":
            assert row["error"] and row["text"] is None and row["entities"] is None
            continue
        wanted = expected[name[3:]]
        assert row["error"] is None and row["text"] == wanted["text"] and row["transcript"] == wanted["transcript"]
        assert [entity["text"] for entity in row["entities"]] == [entity["text"] for entity in wanted["entities"]]
        assert {name: tag["label"] for name, tag in row["tags"].items()} == {
            name: tag["label"] for name, tag in wanted["tags"].items()
        }
