"""The `citrinet` command."""

import argparse
import json
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from . import manifest

AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".mp4", ".aif", ".aiff"}

_DESCRIPTION = """\
NVIDIA Citrinet speech recognisers in Transformers.

  citrinet convert model.nemo my-model           make a Transformers repository of a NeMo checkpoint
  citrinet transcribe --model my-model talk.wav  print what is said, the entities and the speaker's tags
  citrinet info my-model                         print what a checkpoint is
  citrinet tokenizer train.jsonl --output tok    train a tokenizer
  citrinet train recipe.yaml                     train or fine-tune a model
  citrinet evaluate --model my-model test.jsonl  measure how well one model or several transcribe
  citrinet bench --model my-model                measure how fast a model is here
  citrinet export nemo my-model model.nemo       make a NeMo checkpoint of a model
  citrinet export onnx my-model my-model-onnx    make ONNX graphs of a model
"""


def main(arguments: list[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: words after `citrinet`; those of the process if not given.

    Returns:
        The exit status: 0 if all went well, 1 if something failed, 2 for wrong usage.
    """
    options = _parser().parse_args(arguments)
    # A terminated command unwinds like an interrupted one, so that what it was writing is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return _fail("interrupted")
    except (
        OSError,
        ValueError,
        ImportError,
    ) as error:  # bad input or a missing extra; all else is a bug
        return _fail(" ".join(str(error).split()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="citrinet", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_convert(commands)
    _add_transcribe(commands)
    _add_info(commands)
    _add_tokenizer(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_bench(commands)
    _add_export(commands)
    return parser


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="make a Transformers repository of a .nemo file",
        description="Convert a NeMo Citrinet CTC checkpoint. Nothing in the file is executed, and OUT_DIR appears only "
        "when it is complete.",
    )
    parser.add_argument("nemo_file", metavar="MODEL.nemo", help="the checkpoint")
    parser.add_argument("output", metavar="OUT_DIR", help="the folder to write")
    parser.add_argument(
        "--frontend",
        choices=["nemo-2.5", "nemo-2.4"],
        help="whose arithmetic made the features in training: NeMo 2.5 and later (default), or 2.4 and earlier; "
        "NeMo's files do not say, those of `citrinet export nemo` do",
    )
    parser.add_argument(
        "--tag-labels",
        metavar="FILE",
        help='labels of the tag heads, if the vocabulary does not hold them: JSON like {"AGE": {"0": "NONE", ...}}',
    )
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="type of the weights"
    )
    parser.add_argument("--language", metavar="CODE", help="ISO code for the model card, such as zh")
    parser.add_argument("--force", action="store_true", help="replace OUT_DIR if it exists")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the result to this Hub repository (owner/name)")
    parser.set_defaults(run=_convert)


def _add_transcribe(commands: Any) -> None:
    parser = commands.add_parser(
        "transcribe",
        help="print what is said in audio files",
        description="Transcribe audio files, all those in a folder, or those that a NeMo manifest (JSON lines with "
        "`audio_filepath`) names. A file that cannot be read is reported, the others are done, and the exit status "
        "is 1.",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE|FOLDER|MANIFEST", help="audio, folders, .jsonl manifests")
    parser.add_argument(
        "--model", metavar="DIR|REPO", help="a folder or a Hub repository (default: a small Mandarin one)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--timestamps", choices=["char", "word"], help="times of characters or words as well")
    parser.add_argument("--batch-size", type=_positive, default=1, metavar="N", help="files at a time (default 1)")
    parser.add_argument(
        "--chunk-length", type=float, metavar="S",
        help="read longer audio in windows of S seconds, 0 for never (default: windows of 30 s above 120 s)",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda, mps, ...")
    _add_precision(parser)
    parser.set_defaults(run=_transcribe)


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        default="float32",
        choices=["float32", "bfloat16", "int8"],
        help="of matrix products; bfloat16 and int8 are faster and a little less exact (default float32)",
    )


def _add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="print what a checkpoint is",
        description="Print architecture, size, vocabulary, adapters and labels of a converted folder, a Hub repository "
        "or a .nemo file. A .nemo file is checked as `convert` would, and nothing is written.",
    )
    parser.add_argument("model", metavar="DIR|REPO|FILE.nemo", help="the checkpoint")
    parser.set_defaults(run=_info)


def _add_tokenizer(commands: Any) -> None:
    parser = commands.add_parser(
        "tokenizer",
        help="train a tokenizer on the texts of manifests",
        description="Train a SentencePiece model. Entity markers, and tags if they are kept, become symbols of their "
        "own. DIR is then a tokenizer for recipes and AutoTokenizer; tokenizer.model in it is the SentencePiece model.",
    )
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="NeMo manifests")
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--vocab-size", type=_positive, default=5000, metavar="N", help="pieces at most (default 5000)")
    parser.add_argument("--model-type", default="bpe", choices=["bpe", "unigram", "char"], help="default bpe")
    parser.add_argument("--keep-tags", action="store_true", help="let the CTC head write speaker tags too")
    parser.add_argument("--drop-entities", action="store_true", help="leave entity markers out")
    parser.add_argument(
        "--user-defined-symbols", nargs="+", default=[], metavar="TAG", help="symbols that the texts need not hold"
    )
    parser.add_argument("--no-dummy-prefix", action="store_true", help="start texts without a word boundary")
    parser.set_defaults(run=_tokenizer)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train or fine-tune a model",
        description="Train as a recipe says, with Transformers' Trainer. Runs under `accelerate launch` too.",
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="data, model, tokenizer and training arguments")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="changes, such as training.learning_rate=1e-3")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.set_defaults(run=_train)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure how well models transcribe",
        description="Transcribe the recordings of a NeMo manifest (JSON lines with `audio_filepath` and `text`) and "
        "print error rates, tag accuracies, entity scores and speed. A recording that cannot be read is reported, the "
        'others are done, and the exit status is 1. Needs `pip install "citrinet[evaluate]"`.',
    )
    parser.add_argument("manifest", metavar="MANIFEST", help="what is spoken in which files")
    parser.add_argument(
        "--model", action="append", metavar="DIR|REPO",
        help="any model of automatic speech recognition, Citrinet or not; given several times, they share one table "
        "(default: the small Mandarin model of the package)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--output", metavar="OUT_DIR", help="write report.html (with plots), report.json and utterances.jsonl there"
    )
    parser.add_argument("--batch-size", type=_positive, default=1, metavar="N", help="files at a time (default 1)")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda, mps, ...")
    _add_precision(parser)
    parser.set_defaults(run=_evaluate)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export", help="write a model in another form", description="Write a model for others."
    )
    forms = parser.add_subparsers(title="forms", metavar="FORM", required=True)
    nemo = forms.add_parser(
        "nemo",
        help="a .nemo file",
        description="Write a model as a NeMo checkpoint, the inverse of `citrinet convert`. What NeMo cannot express "
        "is refused, and OUT.nemo appears only when it is complete.",
    )
    nemo.add_argument("model", metavar="DIR|REPO", help="a folder or a Hub repository")
    nemo.add_argument("output", metavar="OUT.nemo", help="the file to write")
    nemo.add_argument(
        "--without-tag-heads", action="store_true", help="leave the tag heads out: NeMo refuses them with strict=True"
    )
    nemo.add_argument("--force", action="store_true", help="replace OUT.nemo if it exists")
    nemo.set_defaults(run=_export_nemo)
    onnx = forms.add_parser(
        "onnx",
        help="ONNX graphs",
        description="Write a model as ONNX graphs (front end, network, tag heads) with the files that programs without "
        "PyTorch read beside them. OUT_DIR appears only when it is complete, and is a model for `citrinet transcribe`. "
        'Needs `pip install "citrinet[onnx]"`.',
    )
    onnx.add_argument("model", metavar="DIR|REPO", help="a folder or a Hub repository")
    onnx.add_argument("output", metavar="OUT_DIR", help="the folder to write")
    onnx.add_argument(
        "--dtype", default="float32", choices=["float32", "float16", "int8"],
        help="type of the weights; int8 quantizes the matrix products (default float32)",
    )  # fmt: skip
    onnx.add_argument("--opset", type=_positive, default=18, metavar="N", help="version of ONNX's operators, from 18")
    onnx.add_argument("--force", action="store_true", help="replace OUT_DIR if it exists")
    onnx.set_defaults(run=_export_onnx)


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure how fast a model is on this machine",
        description="Measure a model in every precision, from waveform to text, beside this machine's ceiling of "
        "matrix products. Contestants are processes of their own and take turns; medians, least and most are printed.",
    )
    parser.add_argument(
        "--model", metavar="DIR|REPO", help="a folder or a Hub repository (default: a small Mandarin one)"
    )
    parser.add_argument(
        "--against", action="append", default=[], choices=["eager", "nemo", "onnxruntime"],
        help="measure others too; may be repeated; `eager`, the model as it is, is always there",
    )  # fmt: skip
    parser.add_argument(
        "--nemo-python", default=sys.executable, metavar="PATH", help="interpreter of an environment with NeMo"
    )
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default), cuda, ...")
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="default 5")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw a picture (.png, .svg); needs matplotlib")
    parser.set_defaults(run=_bench)


def _convert(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from .convert import convert_nemo

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    report = convert_nemo(
        options.nemo_file,
        options.output,
        frontend=options.frontend,
        tag_labels=options.tag_labels,
        dtype=options.dtype,
        language=options.language,
        force=options.force,
        push_to_hub=options.push_to_hub,
    )
    print(report)
    return 0


def _transcribe(options: argparse.Namespace) -> int:
    from .reading import FileReader

    sources = [source for path in options.paths for source in _sources(path)]
    load, recognize = _recognizer(options)
    with tqdm(total=len(sources), unit="file", disable=None) as progress:
        reader = FileReader(sources, load, options.batch_size)
        for result in recognize(iter(reader)):
            for source, done in reader.in_order(result):
                progress.write(_line(source, done, options.json), file=sys.stdout)
            progress.update()
    for source, error in reader.failed:
        _fail(f"{source}: {str(error).removeprefix(f'{source}: ')}")
    if options.batch_size > 1:
        print(f"{reader.padding:.1%} of the batches was padding", file=sys.stderr)
    return 1 if reader.failed else 0


def _recognizer(options: argparse.Namespace) -> tuple[Any, Any]:
    """What reads a file, and what makes results of the waveforms."""
    from .default import default_model
    from .onnx_runner import CitrinetOnnx, is_onnx_folder

    model = options.model or default_model()
    call = {"return_timestamps": options.timestamps, "chunk_length_s": options.chunk_length}
    call = {name: value for name, value in call.items() if value is not None} | {"batch_size": options.batch_size}
    if is_onnx_folder(model):
        if (options.precision, options.device) != ("float32", "cpu"):
            raise ValueError(f"{model} holds graphs for a CPU: their precision is that of `export onnx --dtype`.")
        graphs = CitrinetOnnx(model)
        return graphs.load, lambda waveforms: graphs.stream(waveforms, **call)
    from transformers import pipeline
    from transformers.utils import logging

    from .audio_citrinet import load_audio
    from .optimization import inference_arguments

    logging.disable_progress_bar()
    arguments = inference_arguments(model, options.precision, options.device)
    recognizer: Any = pipeline("automatic-speech-recognition", model=model, device=options.device, **arguments)
    extractor = recognizer.feature_extractor
    return (
        lambda source: extractor.check(load_audio(source, extractor.sampling_rate)),
        lambda waveforms: recognizer(waveforms, **call),
    )


def _sources(path: str) -> list[str]:
    """The audio files that a command-line argument stands for."""
    if path.startswith(("http://", "https://")):
        return [path]
    place = Path(path)
    if place.is_dir():
        files = sorted(str(file) for file in place.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
        if not files:
            raise ValueError(f"{path}: no audio files in this folder.")
        return files
    if place.suffix.lower() not in manifest.SUFFIXES:
        return [path]
    return [str(entry.audio) for entry in manifest.read_manifest(place)]


def _line(name: str, result: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps({"audio": name, **result}, ensure_ascii=False)
    lines = [f"{name}: {result['transcript']}"]
    lines += [
        f"  {chunk['timestamp'][0]:8.2f} {chunk['timestamp'][1]:8.2f}  {chunk['text']}"
        for chunk in result.get("chunks", ())
    ]
    for entity in result["entities"]:
        start, end = entity["timestamp"]
        lines.append(f"  {entity['type']}: {entity['text']} ({start:.2f}-{end:.2f} s)")
    if result["tags"]:
        tags = (
            f"{category} {tag['label']} ({tag['score']:.0%}, {tag['source']})"
            for category, tag in result["tags"].items()
        )
        lines.append("  " + ", ".join(tags))
    return "\n".join(lines)


def _info(options: argparse.Namespace) -> int:
    if options.model.endswith(".nemo") and Path(options.model).is_file():
        from .convert import read_nemo

        print(read_nemo(options.model).report)
    else:
        from .information import describe

        print(describe(options.model))
    return 0


def _tokenizer(options: argparse.Namespace) -> int:
    from .tokenizer_training import save_tokenizer, train_sentencepiece

    texts = [
        manifest.target_text(entry.text or "", options.keep_tags, not options.drop_entities)
        for path in options.manifests
        for entry in manifest.read_manifest(path)
    ]
    model = train_sentencepiece(
        texts,
        options.vocab_size,
        options.model_type,
        add_dummy_prefix=not options.no_dummy_prefix,
        user_defined_symbols=options.user_defined_symbols,
    )
    tokenizer = save_tokenizer(options.output, model)
    print(f"{options.output}: {len(tokenizer)} tokens, the blank included")
    return 0


def _train(options: argparse.Namespace) -> int:
    from .training import is_main_process, read_recipe, train

    metrics = train(read_recipe(options.recipe, options.changes), resume=options.resume)
    if is_main_process():
        print(json.dumps(metrics, indent=2))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from . import evaluation
    from .default import default_model

    logging.disable_progress_bar()
    if options.output:  # before hours of work
        Path(options.output).mkdir(parents=True, exist_ok=True)
    models = options.model or [default_model()]
    report = evaluation.evaluate(
        models, options.manifest, options.batch_size, options.device, precision=options.precision
    )
    for recording in report.failed:
        _fail(f"{recording['audio']}: {recording['error']}")
    if options.output:
        evaluation.write_report(report, options.output)
    print(json.dumps(report.to_dict(), ensure_ascii=False) if options.json else evaluation.format_report(report))
    return 1 if report.failed else 0


def _bench(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from .bench import bench, plot
    from .default import default_model

    if options.plot and find_spec("matplotlib") is None:  # before minutes of work
        return _fail('a plot needs matplotlib: pip install "citrinet[evaluate]"')
    logging.disable_progress_bar()
    model = options.model or default_model()
    benchmark = bench(model, options.against, options.rounds, options.nemo_python, options.device)
    print(json.dumps(benchmark.to_dict()) if options.json else benchmark)
    if options.plot:
        plot(benchmark, options.plot)
    return 0


def _export_nemo(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    from .convert import export_nemo

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    print(export_nemo(options.model, options.output, tag_heads=not options.without_tag_heads, force=options.force))
    return 0


def _export_onnx(options: argparse.Namespace) -> int:
    from transformers.utils import logging

    try:
        from .convert.hf_to_onnx import export_onnx
    except ImportError as error:
        return _fail(f'{error}. ONNX needs more packages: pip install "citrinet[onnx]"')
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    print(export_onnx(options.model, options.output, dtype=options.dtype, opset=options.opset, force=options.force))
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _fail(message: str) -> int:
    tqdm.write(f"citrinet: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
