"""The benchmark measures what it says; how fast anything is, is no test's business."""

import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import citrinet
from citrinet import bench
from citrinet.bench import Benchmark, Figures, measure, worker
from citrinet.cli import main
from tiny_models import TWO_BLOCKS, tiny_config


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
    with pytest.raises(ValueError, match=r"contestant stopped: .*nowhere"), broken as wait:
        wait()


def test_unknown_opponent():
    with pytest.raises(ValueError, match="compiled, eager, nemo, onnxruntime"):
        bench.bench(citrinet.default_model(), ["whisper"])


# Millions of parameters as NVIDIA publishes them: Riva's list of models, and the card of the Mandarin one.
@pytest.mark.parametrize(
    "name, published, head",
    [
        ("citrinet_256", 9.8, 641 * 257),
        ("citrinet_1024", 142, 1025 * 1025),
        ("citrinet_1024_gamma_0_25", 140, 0),
    ],
)
def test_published_sizes(name, published, head):
    config = bench.size_config(name)
    with torch.device("meta"):
        network = citrinet.CitrinetForCTC(config)
    encoder = sum(weights.numel() for weights in network.model.parameters())
    assert (encoder + head) / 1e6 == pytest.approx(published, rel=0.01)


@pytest.mark.slow
def test_a_size_is_measured_by_its_name(short_case, in_this_process, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "_measure_ceiling", lambda *_: None)
    size = bench.size_config("citrinet_256")  # of which two blocks are enough
    small = tiny_config(**TWO_BLOCKS, vocab_size=size.vocab_size, num_mel_bins=size.num_mel_bins)
    monkeypatch.setattr("citrinet.bench.sizes.size_config", lambda name: small)
    found = bench.bench("citrinet_256", rounds=1)
    assert str(found).startswith("citrinet_256, ")
    folders = {options["model"] for options in in_this_process.started}
    assert len(folders) == 1 and not Path(*folders).exists()  # it was there for the run
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="use citrinet_256, citrinet_384, "):
        bench.size_config("citrinet_300")


def test_a_folder_of_the_same_name_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("citrinet_256").mkdir()
    with bench.model_folder("citrinet_256") as folder:
        assert folder == "citrinet_256"


@pytest.mark.slow
def test_on_another_device():
    contestants = measure._contestants(citrinet.default_model(), ["compiled"], "", "", "cpu:0")
    precisions = ["float32", "float16", "bfloat16"]
    assert list(contestants) == ["eager", "eager, bfloat16", *precisions, "compiled, bfloat16"]
    with measure._process(contestants["eager, bfloat16"]) as wait:
        seconds, _ = wait()(2, 1)
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
    Process.started = []
    Process.after = {}
    Process.patch = monkeypatch
    monkeypatch.setattr(subprocess, "Popen", Process)
    return Process


class Process:
    """Answers five questions, or as many as `after` says of its precision; all its answers are there at once."""

    def __init__(self, command, **streams):
        options = json.loads(command[-1])
        self.started.append(options)
        precision = options.get("precision", "float32")
        answers = io.StringIO()
        if self.after.get(precision) != 0:
            with self.patch.context() as patch:
                patch.setattr(sys, "stdin", ["[2, 1]\n"] * self.after.get(precision, 5))
                patch.setattr(sys, "stdout", answers)
                worker.main({**options, "precision": "float32"})
        else:
            streams["stderr"].write("some trace\nRuntimeError: no such card\n")
        self.stdin, self.stdout = io.StringIO(), iter(answers.getvalue().splitlines(keepends=True))

    def kill(self):
        pass

    wait = kill


@pytest.fixture
def device_case(monkeypatch):
    """A benchmark of a device, which is this CPU under another name."""
    monkeypatch.setattr(measure, "CASES_ON_DEVICES", {"1 x 1 s": (1, 1), "2 x 1 s": (2, 1)})
    monkeypatch.setattr(measure, "PRODUCT", 64)


@pytest.mark.slow
def test_a_device_has_its_ceiling_and_one_process_for_all_cases(tiny_dir, device_case, in_this_process):
    found = bench.bench(str(tiny_dir), rounds=2, device="cpu:0")
    assert len(in_this_process.started) == len(found.figures) == 5
    assert all(len(cases["2 x 1 s"].seconds) == 2 for cases in found.figures.values())
    assert list(found.ceiling) == ["float32", "float16", "bfloat16"] and min(found.ceiling.values()) > 0
    title, _, head, _, *rows = str(found).splitlines()
    assert title.endswith(", cpu:0") and head == "| | 1 x 1 s | 2 x 1 s | peak memory |"
    shares = [row.count("% of the ceiling") for row in rows]
    assert shares == [0, 2, 2, 2, 2]  # all but `eager`


@pytest.mark.slow
def test_who_does_not_start_or_stops_is_left_out(tiny_dir, device_case, in_this_process, tmp_path):
    in_this_process.after = {"float16": 0, "bfloat16": 3}  # of four answers, two rounds of two cases
    found = bench.bench(str(tiny_dir), rounds=2, device="cpu:0")
    assert found.failed.keys() == {"float16", "bfloat16", "eager, bfloat16"}
    assert found.failed["float16"] == "a contestant stopped: RuntimeError: no such card"
    assert len(found.figures["bfloat16"]["1 x 1 s"].seconds) == 2
    assert len(found.figures["bfloat16"]["2 x 1 s"].seconds) == 1
    assert len(found.figures["float32"]["2 x 1 s"].seconds) == 2
    table = str(found)
    assert "| float16 | – | – | – |" in table and "no such card" in table
    bench.plot(found, tmp_path / "speed.svg")
    in_this_process.after = dict.fromkeys(["float32", "float16", "bfloat16"], 0)
    with pytest.raises(ValueError, match="no such card"):
        bench.bench(str(tiny_dir), rounds=2, device="cpu:0")


@pytest.mark.slow
def test_a_run_that_is_cut_off_leaves_its_figures(tiny_dir, device_case, in_this_process, tmp_path, monkeypatch):
    output = tmp_path / "figures.json"
    seen = []

    def cut_off(*_):
        seen.append(json.loads(output.read_text()) if output.exists() else None)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(measure, "_measure_ceiling", cut_off)
    arguments = ["bench", "--model", str(tiny_dir), "--device", "cpu:0", "--rounds", "2", "--output", str(output)]
    assert main(arguments) == 130
    left = json.loads(output.read_text())
    counts = {case: len(figures["seconds"]) for case, figures in left["figures"]["float32"].items()}
    assert counts == {"1 x 1 s": 2, "2 x 1 s": 1}
    assert seen[0] is None and len(seen[1]["figures"]["eager"]["1 x 1 s"]["seconds"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json"]


def test_nemo_runs_on_the_device(tiny_dir, monkeypatch, tmp_path):
    monkeypatch.setattr("citrinet.convert.export_nemo", lambda *_, **__: SimpleNamespace(output="model.nemo"))
    contestants = measure._contestants(str(tiny_dir), ["nemo"], str(tmp_path), "python-of-nemo", "cuda")
    worker_of_nemo = ["python-of-nemo", str(measure.NEMO_WORKER), "model.nemo", "cuda"]
    assert contestants["NeMo"] == [*worker_of_nemo, "float32"]
    assert contestants["NeMo, bfloat16"] == [*worker_of_nemo, "bfloat16"]
    on_cpu = measure._contestants(str(tiny_dir), ["nemo"], str(tmp_path), "python-of-nemo", "cpu")
    assert on_cpu["NeMo"][-2:] == ["cpu", "float32"] and "NeMo, bfloat16" not in on_cpu


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.slow
def test_on_a_gpu(tiny_dir, monkeypatch):
    monkeypatch.setattr(measure, "CASES_ON_DEVICES", {"2 x 1 s": (2, 1)})
    found = bench.bench(str(tiny_dir), rounds=1, device="cuda")
    assert not found.failed and found.device == torch.cuda.get_device_name()
    assert all(0 < memory < 8 for memory in found.memory.values())


@pytest.mark.parametrize("options", [{"optimized": False}, {"precision": "int8"}])
def test_the_worker_transcribes_what_it_is_asked_to(tiny_dir, monkeypatch, capsys, options):
    heard = []
    load = citrinet.load_recognizer

    def spied(*args, **kwargs):
        recognizer = load(*args, **kwargs)
        stream = recognizer.stream

        def spy(waveforms, batch_size, vad):
            held = list(waveforms)
            heard.append([len(samples) for samples in held])
            assert batch_size == len(held) and vad is False  # NeMo does not cut at pauses
            return stream(iter(held), batch_size=batch_size, vad=vad)

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
    assert heard == [[16000]] + [[16000] * 3] * 2 + [[32000]] * 2  # the second time counts


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nemos_worker_needs_nothing_of_the_package(tmp_path, precision):
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
        "        assert (path, map_location) == ('model.nemo', 'cpu')\n"
        "        return cls()\n"
        "    def eval(self):\n"
        "        print('NeMo says something')\n"
        "        return self\n"
        "    def __call__(self, input_signal, input_signal_length):\n"
        "        assert input_signal.shape == (2, 8000) and input_signal_length.tolist() == [8000, 8000]\n"
        "        assert (input_signal @ input_signal.T).dtype == torch.PRECISION\n"
        "        return input_signal, input_signal_length, None\n".replace("PRECISION", precision)
    )
    (tmp_path / "citrinet.py").write_text("raise ImportError('citrinet is not here')")
    done = subprocess.run(
        [sys.executable, str(measure.NEMO_WORKER), "model.nemo", "cpu", precision],
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
