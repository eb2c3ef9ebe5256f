"""The benchmark measures what it says; how fast anything is, is no test's business."""

import json
import sys

import pytest
from transformers import AutoConfig

import citrinet
from citrinet import bench
from citrinet.cli import main


@pytest.fixture
def short_case(monkeypatch):
    monkeypatch.setattr(bench, "CASES", {"2 x 1 s": (2, 1)})


@pytest.mark.slow
def test_command_prints_every_precision_and_draws(short_case, capsys, tmp_path):
    picture = tmp_path / "speed.png"
    assert main(["bench", "--rounds", "2", "--json", "--plot", str(picture)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["figures"]) == ["eager", "float32", "bfloat16", "int8"]
    for name, cases in report["figures"].items():
        figures = cases["2 x 1 s"]
        assert len(figures["seconds"]) == 2 and min(figures["seconds"]) > 0
        assert figures["speech"] == 2
        assert report["memory"][name] > 0.1
    assert min(report["ceiling"].values()) > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_is_refused_at_once(monkeypatch, capsys):
    monkeypatch.setattr("citrinet.cli.bench.find_spec", lambda name: None)
    monkeypatch.setattr(bench, "bench", lambda *_: pytest.fail("measured for nothing"))
    assert main(["bench", "--plot", "speed.png"]) == 1
    assert 'pip install "citrinet[evaluate]"' in capsys.readouterr().err


def test_operations_are_those_of_the_network(monkeypatch):
    # 4.48 G multiply-adds for a second of speech is what the full architecture takes, counted on paper.
    config = citrinet.CitrinetConfig(adapters=[{"name": "a", "dim": 256}])
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda _: config)
    assert bench._flops("any") == pytest.approx(2 * 4.48, rel=0.03)


@pytest.mark.slow
def test_a_contestant_that_does_not_start_says_why(short_case):
    broken = bench._worker(sys.executable, "raise ImportError('no such module')")
    with pytest.raises(ValueError, match=r"contestant stopped: .*no such module"), broken:
        pass


def test_unknown_opponent():
    with pytest.raises(ValueError, match="eager, nemo or onnxruntime"):
        bench.bench(citrinet.default_model(), ["whisper"])


@pytest.mark.slow
def test_on_another_device(short_case):
    contestants = bench._contestants(citrinet.default_model(), [], "", "", "cpu:0")
    assert list(contestants) == ["eager", "float16", "bfloat16", "bfloat16, compiled"]
    with bench._worker(*contestants["bfloat16"]) as ask:
        seconds, _ = ask(2, 1)
    assert seconds > 0
