"""The benchmark measures what it says; how fast anything is, is no test's business."""

import io
import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import citrinet
from citrinet import bench
from citrinet.bench import Benchmark, Figures, measure, worker
from citrinet.cli import main


@pytest.fixture
def short_case(monkeypatch):
    monkeypatch.setattr(measure, "CASES", {"2 x 1 s": (2, 1)})


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


@pytest.mark.slow
def test_operations_are_those_of_the_network():
    # 4.48 G multiply-adds for a second of speech is what the full architecture takes, counted on paper.
    config = citrinet.CitrinetConfig(adapters=[{"name": "a", "dim": 256}])
    assert measure._flops(config) == pytest.approx(2 * 4.48, rel=0.03)


@pytest.mark.slow
def test_a_contestant_that_does_not_start_says_why(tmp_path):
    broken = measure._process(measure._ours(str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match=r"contestant stopped: .*nowhere"), broken:
        pass


def test_unknown_opponent():
    with pytest.raises(ValueError, match="eager, nemo or onnxruntime"):
        bench.bench(citrinet.default_model(), ["whisper"])


@pytest.mark.slow
def test_on_another_device():
    contestants = measure._contestants(citrinet.default_model(), [], "", "", "cpu:0")
    assert list(contestants) == ["eager", "float16", "bfloat16", "bfloat16, compiled"]
    with measure._process(contestants["bfloat16"]) as ask:
        seconds, _ = ask(2, 1)
    assert seconds > 0


@pytest.mark.slow
def test_graphs_have_a_precision_of_their_own(tiny_onnx_dir, monkeypatch, short_case, in_this_process):
    measured = bench.bench(str(tiny_onnx_dir), rounds=2)
    assert list(measured.figures) == ["onnxruntime"] and not measured.ceiling
    table = str(measured)
    assert "1.00x onnxruntime" in table and "GFLOP" not in table
    with pytest.raises(ValueError, match="holds ONNX graphs"):
        bench.bench(str(tiny_onnx_dir), ["nemo"])


@pytest.fixture
def in_this_process(monkeypatch):
    """Contestants' programs run here, so that no test waits for an interpreter to start; what is said is the same."""

    class Process:
        def __init__(self, command, **streams):
            answers = io.StringIO()
            options = json.loads(command[-1])
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdin", ["[2, 1]\n"] * 5)
                patch.setattr(sys, "stdout", answers)
                worker.main(options)
            self.stdin, self.stdout = io.StringIO(), iter(answers.getvalue().splitlines(keepends=True))

        def kill(self):
            pass

        wait = kill

    monkeypatch.setattr(subprocess, "Popen", Process)


@pytest.mark.parametrize("options", [{"optimized": False}, {"precision": "int8"}])
def test_the_worker_transcribes_what_it_is_asked_to(tiny_dir, monkeypatch, capsys, options):
    heard = []
    load = citrinet.load_recognizer

    def spied(*args, **kwargs):
        recognizer = load(*args, **kwargs)
        stream = recognizer.stream

        def spy(waveforms, batch_size):
            held = list(waveforms)
            heard.append([len(samples) for samples in held])
            assert batch_size == len(held)
            return stream(iter(held), batch_size=batch_size)

        recognizer.stream = spy
        return recognizer

    monkeypatch.setattr(citrinet, "load_recognizer", spied)
    monkeypatch.setattr(sys, "stdin", ["[3, 1]\n", "[1, 2]\n"])
    worker.main({"model": str(tiny_dir), **options})
    ready, *answers = capsys.readouterr().out.splitlines()
    assert ready == "answer: ready" and len(answers) == 2
    for answer in answers:
        seconds, gigabytes = json.loads(answer.removeprefix("answer: "))
        assert seconds > 0 and gigabytes > 0.1
    assert heard == [[16000] * 3] * 2 + [[32000]] * 2  # the second time counts


@pytest.mark.slow
def test_nemos_worker_needs_nothing_of_the_package(tmp_path):
    """Run by its path, with a NeMo that is made up and no `citrinet` to import."""
    models = tmp_path / "nemo" / "collections" / "asr" / "models"
    models.mkdir(parents=True)
    (models / "__init__.py").write_text(
        "import torch\n"
        "class ASRModel:\n"
        "    cfg = type('cfg', (), {'sample_rate': 8000})\n"
        "    decoding = type('decoding', (), {'ctc_decoder_predictions_tensor': lambda *a, **k: ['text']})\n"
        "    @classmethod\n"
        "    def restore_from(cls, path, map_location, strict):\n"
        "        assert path == 'model.nemo'\n"
        "        return cls()\n"
        "    def eval(self):\n"
        "        print('NeMo says something')\n"
        "        return self\n"
        "    def __call__(self, input_signal, input_signal_length):\n"
        "        assert input_signal.shape == (2, 8000) and input_signal_length.tolist() == [8000, 8000]\n"
        "        return input_signal, input_signal_length, None\n"
    )
    (tmp_path / "citrinet.py").write_text("raise ImportError('citrinet is not here')")
    done = subprocess.run(
        [sys.executable, str(measure.NEMO_WORKER), "model.nemo"],
        input="[2, 1]\n", capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:2] == ["NeMo says something", "answer: ready"]
    assert json.loads(said[2].removeprefix("answer: "))[0] >= 0


@pytest.mark.parametrize(("platform", "peak"), [("linux", 2.048), ("darwin", 0.002)])
def test_memory_where_there_is_no_proc(monkeypatch, platform, peak):
    usage = SimpleNamespace(ru_maxrss=2_000_000)
    fake = SimpleNamespace(getrusage=lambda who: usage, RUSAGE_SELF=0)
    monkeypatch.setattr(worker.Path, "is_file", lambda self: False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "resource", fake)
    assert worker.peak_memory() == pytest.approx(peak)


def test_memory_on_windows_is_not_known(monkeypatch):
    monkeypatch.setattr(worker.Path, "is_file", lambda self: False)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert worker.peak_memory() is None
    figures = {name: {"1 x 1 s": Figures([0.5, 0.25, 0.125], 1.0, 2.0)} for name in ("eager", "int8")}
    table = str(Benchmark("m", 2, figures, {"eager": None, "int8": 0.5}, {"int8": 16.0}))
    assert "4x real time, 1.00x eager, 8 GFLOP/s | – |" in table
    assert "8 GFLOP/s, 50% of the ceiling | 0.50 GB |" in table


def test_noise_is_the_same_every_time():
    assert worker.noise(0.5, 8000).shape == (4000,)
    np.testing.assert_array_equal(worker.noise(1, 16000), worker.noise(1, 16000))
    assert np.abs(worker.noise(1, 16000)).max() == pytest.approx(0.3)


def test_the_command_runs_in_a_thread(tmp_path, capsys):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["bench", "--model", str(tmp_path / "nowhere")])))
    thread.start()
    thread.join()
    assert codes == [1] and "nowhere" in capsys.readouterr().err
