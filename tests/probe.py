"""
What the tests run in interpreters of their own: `python probe.py FUNCTION ARGUMENTS`, see `helpers.run_probes`.

Whether an interpreter knows `citrinet`, and what its caches hold, is the very thing under test, so nothing can be shared.
"""

import importlib
import io
import json
import os
import shutil
import sys
import traceback
import wave
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

TASK = "automatic-speech-recognition"
AUTO_CLASSES = ("AutoConfig", "AutoModel", "AutoModelForCTC", "AutoFeatureExtractor", "AutoTokenizer", "AutoProcessor")
TRUST = {"trust_remote_code": True}


class Steps(dict):
    """Facts by name; a step that fails is noted as such and does not keep the next ones from being tried."""

    def take(self, name: str, step: Callable[[], Any]) -> None:
        try:
            self[name] = step()
        except Exception:
            self[name] = {"error": traceback.format_exc()}


def load_with_package(folder: str, audio: list[str], saved: str) -> dict:
    """`import citrinet` alone, then with `trust_remote_code` as well, then alone again."""
    facts = _load_and_save(folder, audio, saved, {})
    facts.take("with_trust", lambda: _describe(_pipeline(TASK, folder, **TRUST), audio))
    facts.take("after_trust", lambda: _describe(_pipeline(TASK, folder), audio))
    return facts


def _edited(folder: str, saved: str, trust: dict) -> list[str]:
    """The front end, by every way to it, of a copy whose settings somebody edited."""
    copy = shutil.copytree(folder, f"{saved}/edited")
    file = Path(copy, "preprocessor_config.json")
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(settings | {"frontend": "nemo-2.4"}), encoding="utf-8")
    extractors = [
        _auto("AutoFeatureExtractor", copy, trust),
        _auto("AutoProcessor", copy, trust).feature_extractor,
        _pipeline(TASK, copy, **trust).feature_extractor,
    ]
    return [extractor.frontend for extractor in extractors]


def load_with_remote_code(folder: str, audio: list[str], saved: str) -> dict:
    """Nothing but Transformers and the code in the folder."""
    facts = _load_and_save(folder, audio, saved, TRUST)
    facts.take("without_task", lambda: _class(_pipeline(model=folder, **TRUST)))
    return facts


def reload(folders: list[str], audio: list[str], trust: dict) -> dict:
    """Load what was saved elsewhere."""
    facts = Steps()
    for folder in folders:
        facts.take(folder, lambda folder=folder: _reload(folder, audio, trust))
    return facts


def load_from_hub(
    repository: str,
    audio: list[str],
    trust: dict,
    without_task: bool = True,
    reference: str | None = None,
    saved: str | None = None,
) -> dict:
    """Load by the name of a repository; `reference` is a local folder that should give the same, `saved` one to write."""
    facts = Steps()
    facts.take("pipeline", lambda: _describe(_pipeline(TASK, repository, **trust), audio))
    facts.take("auto", lambda: _auto_classes(repository, trust))
    if without_task:
        facts.take("without_task", lambda: _class(_pipeline(model=repository, **trust)))
    if reference:
        facts.take("reference", lambda: _describe(_pipeline(TASK, reference, **trust), audio))
    if saved:
        parts = [_auto(name, repository, trust) for name in ("AutoModelForCTC", "AutoProcessor")]
        facts.take("save", lambda: _save(saved, *parts))
    return facts


def convert_and_push(nemo_file: str, output: str, repository: str) -> None:
    """Convert a checkpoint and upload the result."""
    from citrinet.convert import convert_nemo

    convert_nemo(nemo_file, output, push_to_hub=repository)


def commands(lines: list[list[str]]) -> list[list[Any]]:
    """Run commands of `citrinet` one after the other: status, what is printed and the message of each."""
    from citrinet.cli import main

    results = []
    for words in lines:
        with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as message:
            status = main(words)
        results.append([status, printed.getvalue(), message.getvalue()])
    return results


def _load_and_save(folder: str, audio: list[str], saved: str, trust: dict) -> Steps:
    pipe = _pipeline(TASK, folder, **trust)
    model, tokenizer, extractor = pipe.model, pipe.tokenizer, pipe.feature_extractor
    processor = _auto("AutoProcessor", folder, trust)
    facts = Steps()
    facts.take("pipeline", lambda: _describe(pipe, audio))
    facts.take("auto", lambda: _auto_classes(folder, trust))
    facts.take("generated", lambda: _generate(model, processor, audio[0]))
    facts.take("stock", lambda: _stock_pipeline(Path(saved) / "stock"))
    facts.take("from_objects", lambda: _class(_pipeline(TASK, model, tokenizer=tokenizer, feature_extractor=extractor)))
    facts.take("edited", lambda: _edited(folder, saved, trust))
    facts.take(
        "attention", lambda: _class(_pipeline(TASK, folder, model_kwargs={"attn_implementation": "sdpa"}, **trust))
    )
    facts.take("save_model", lambda: _save(f"{saved}/model", model, processor))
    facts.take("save_pipeline", lambda: _save(f"{saved}/pipeline", pipe))
    facts.take("save_encoder", lambda: _save_encoder(model, folder, trust, f"{saved}/encoder"))
    facts.take("save_trainer", lambda: _train_one_step(model, processor, saved))
    facts.take("trained", lambda: _describe(pipe, audio))
    return facts


def _reload(folder: str, audio: list[str], trust: dict) -> dict:
    return {
        "pipeline": _describe(_pipeline(TASK, folder, **trust), audio, ["plain", "word"]),
        "auto": _auto_classes(folder, trust, ["AutoModel", "AutoProcessor"]),  # the pipeline uses the others
    }


def _save(folder: str, *parts) -> None:
    for part in parts:
        part.save_pretrained(folder)


def _save_encoder(model, folder: str, trust: dict, saved: str) -> bool:
    """Save the encoder loaded on its own; whether it is that of the whole model."""
    import torch

    encoder = _auto("AutoModel", folder, trust)
    encoder.save_pretrained(saved)
    state = model.model.state_dict()
    return all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())


def _pipeline(*args, **kwargs):
    from transformers import pipeline

    return pipeline(*args, device="cpu", **kwargs)


def _auto(name: str, folder: str, trust: dict):
    import transformers

    return getattr(transformers, name).from_pretrained(folder, **trust)


def _auto_classes(folder: str, trust: dict, names: Sequence[str] = AUTO_CLASSES) -> dict:
    return {name: _class(_auto(name, folder, trust)) for name in names}


def _class(instance) -> str:
    return f"{type(instance).__module__}.{type(instance).__qualname__}"


def _describe(pipe, audio: list[str], ways: Sequence[str] = ("plain", "char", "word", "batch", "chunked")) -> dict:
    """Which classes a pipeline is made of, and what it writes."""
    calls = {
        "plain": lambda: pipe(audio[0]),
        "char": lambda: pipe(audio[0], return_timestamps="char"),
        "word": lambda: pipe(audio[0], return_timestamps="word"),
        "batch": lambda: pipe(audio, batch_size=len(audio)),
        "chunked": lambda: pipe(audio[0], chunk_length_s=1.5),
    }
    classes = {part: _class(getattr(pipe, part)) for part in ("model", "tokenizer", "feature_extractor")}
    classes |= {"pipeline": _class(pipe), "config": _class(pipe.model.config)}
    return {"classes": classes, "outputs": {way: calls[way]() for way in ways}}


def _generate(model, processor, path: str) -> str:
    """The way to text without the pipeline."""
    import numpy as np

    with wave.open(path) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    tokens = model.generate(**processor(samples, sampling_rate=16000))
    return processor.batch_decode(tokens)[0]


def _train_one_step(model, processor, saved: str) -> None:
    """A Trainer checkpoint in `saved`/trainer."""
    import numpy as np
    from transformers import Trainer, TrainingArguments

    samples = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    arguments = TrainingArguments(
        f"{saved}/run", max_steps=1, save_steps=1, learning_rate=0.01, report_to=[], use_cpu=True, disable_tqdm=True
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=[samples],
        data_collator=lambda items: dict(processor(items, ["一二"], sampling_rate=16000)),
        processing_class=processor,
    )
    trainer.train()
    model.eval()
    shutil.move(f"{saved}/run/checkpoint-1", f"{saved}/trainer")


def _stock_pipeline(folder: Path) -> dict:
    """A model of another kind, loaded from a folder and from objects."""
    import numpy as np
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder.mkdir(parents=True)
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5, "b": 6}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model, extractor = Wav2Vec2ForCTC(config).eval(), Wav2Vec2FeatureExtractor()
    for part in (model, tokenizer, extractor):
        part.save_pretrained(folder)
    samples = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    from_folder = _pipeline(TASK, str(folder))
    from_objects = _pipeline(TASK, model, tokenizer=tokenizer, feature_extractor=extractor)
    return {"classes": [_class(from_folder), _class(from_objects)], "output": from_folder(samples)}


def _record_hosts(hosts: set[str]) -> None:
    """Note every address that a socket connects to and every name that is looked up."""

    def note(event, arguments):
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            hosts.add(arguments[1][0])
        elif event == "socket.getaddrinfo":
            hosts.add(arguments[0])

    sys.addaudithook(note)


def main() -> None:
    function, arguments = sys.argv[1], json.loads(sys.argv[2])
    hosts: set[str] = set()
    _record_hosts(hosts)
    if os.environ["PROBE_PACKAGE"] == "1":
        import citrinet  # noqa: F401
    else:
        # Even where citrinet is installed it must not be found.
        sys.modules["citrinet"] = None
        try:
            importlib.import_module("citrinet")
        except ImportError:
            pass
        else:
            raise AssertionError("citrinet can be imported in an interpreter that should not know it")
    facts = globals()[function](**arguments)
    foreign = sorted(name for name in sys.modules if name.split(".")[0] == "citrinet" and sys.modules[name])
    result = {"facts": facts, "citrinet_modules": foreign, "hosts": sorted(map(str, hosts))}
    Path(os.environ["PROBE_RESULT"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
