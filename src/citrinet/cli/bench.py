"""`citrinet bench`."""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .options import add_device, add_json, add_model, fail, positive, quiet


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "bench",
        help="measure the speed of a model on this machine",
        description="Measure the speed of a model in each precision, from waveform to text, and the peak speed of "
        "matrix products on this machine. Each contestant runs in its own process, in turn; median, minimum and "
        "maximum are printed. A contestant that fails is left out, and the report says why.",
    )
    add_model(
        parser,
        "; or a published size with random weights: citrinet_256, _384, _512 or _1024, each with or "
        "without _gamma_0_25, or stt_meta_zh_150m",
    )
    parser.add_argument(
        "--against", action="append", default=[], choices=["compiled", "eager", "nemo", "onnxruntime"],
        help="another implementation to measure, may be repeated; `eager`, the model as it is, is always included; "
        "`nemo` runs on the same device; `compiled` may take minutes to start",
    )  # fmt: skip
    parser.add_argument(
        "--nemo-python", default=sys.executable, metavar="PATH", help="Python interpreter of an environment with NeMo"
    )
    add_device(parser)
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="number of rounds (default 5)")
    add_json(parser, "all figures as JSON")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write all figures as JSON to FILE, updated after every round"
    )
    parser.add_argument("--plot", metavar="FILE", help="write a plot (.png, .svg); needs matplotlib")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..bench import Benchmark, bench, plot
    from ..default import default_model

    if options.plot and find_spec("matplotlib") is None:  # check before minutes of work
        return fail('a plot needs matplotlib: pip install "citrinet[evaluate]"')
    quiet()
    model = options.model or default_model()

    def write(so_far: Benchmark) -> None:
        if options.output:
            part = options.output.with_name(f"{options.output.name}.part")
            part.write_text(json.dumps(so_far.to_dict()), encoding="utf-8")
            part.replace(options.output)

    benchmark = bench(model, options.against, options.rounds, options.nemo_python, options.device, write)
    print(json.dumps(benchmark.to_dict()) if options.json else benchmark)
    if options.plot:
        plot(benchmark, options.plot)
    return 0
