"""Training runs of a tiny network on chirps: a corpus, recipes for it, and what came of them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from transformers import TrainerCallback

from citrinet.evaluation import evaluate
from citrinet.training import train
from citrinet.training.trainer import SpeechTrainer
from helpers import synthetic_speech, write_wav
from tiny_models import TWO_BLOCKS

WORDS = "今天北京的天气怎么样请播放一首好听歌"
TINY = {**TWO_BLOCKS, "se_reduction_ratio": 2, "time_masks": 1, "time_width": 0.1}


def make_corpus(folder):
    """Eight recordings, a manifest with tags in columns, and one with entities and tags in the text."""
    rng = np.random.default_rng(0)
    columns, tagged = [], []
    for index in range(8):
        seconds = 0.6 + 0.1 * index
        write_wav(folder / f"{index}.wav", synthetic_speech(seconds, seed=index))
        text = "".join(rng.choice(list(WORDS), 4))
        gender = ["GENDER_MALE", "GENDER_FEMALE", None][index % 3]
        line = {"audio_filepath": f"{index}.wav", "duration": seconds}
        columns.append({**line, "text": text, "gender": gender})
        tagged.append({**line, "text": f"{text[:2]}ENTITY_SONG_NAME{text[2:]}END {gender or ''} AGE_14_25"})
    for name, entries in {"columns": columns, "tagged": tagged}.items():
        lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def write_recipe(folder, corpus, name="recipe", **sections):
    recipe = {
        "data": {"train": [str(corpus / "columns.jsonl")], "validation": [str(corpus / "columns.jsonl")]},
        "model": {"config": TINY},
        "tokenizer": {"train": {"model_type": "char", "vocab_size": 100}},
        "training": {
            "output_dir": str(folder / name),
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.01,
            "use_cpu": True,
            "logging_steps": 1,
            "disable_tqdm": True,
        },
    }
    for section, values in sections.items():
        recipe[section] = {**recipe[section], **values}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return path


def losses(output):
    """Training losses by step, from the log that the last checkpoint holds."""
    states = sorted(output.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name[11:]))
    history = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def stop_after(steps, recipe):
    """Run a recipe that is interrupted after some steps."""

    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step > steps:
                raise KeyboardInterrupt

    original = SpeechTrainer.__init__

    def patched(self, **kwargs):
        original(self, **kwargs)
        self.add_callback(Interrupt())

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SpeechTrainer, "__init__", patched)
        train(recipe)


def run_in_two_processes(recipe, *changes):
    """What `citrinet train` prints under `accelerate launch`."""
    # accelerate starts several processes on a CPU only through MPI, or as if they were for GPUs; the recipe says CPU.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["-m", "citrinet.cli", "train", str(recipe), *changes]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def error_rate(model, manifest):
    """Character error rate as `citrinet evaluate` gives it."""
    (result,) = evaluate([str(model)], manifest, resamples=2).models
    return result.cer.rate.value
