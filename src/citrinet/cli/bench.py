"""`citrinet bench`."""

import argparse
import json
import sys
from importlib.util import find_spec
from typing import Any

from .options import add_device, add_json, add_model, fail, positive, quiet


def add_parser(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "bench",
        help="measure how fast a model is on this machine",
        description="Measure a model in every precision, from waveform to text, beside this machine's ceiling of "
        "matrix products. Contestants are processes of their own and take turns; medians, least and most are printed.",
    )
    add_model(parser)
    parser.add_argument(
        "--against", action="append", default=[], choices=["eager", "nemo", "onnxruntime"],
        help="measure others too; may be repeated; `eager`, the model as it is, is always there",
    )  # fmt: skip
    parser.add_argument(
        "--nemo-python", default=sys.executable, metavar="PATH", help="interpreter of an environment with NeMo"
    )
    add_device(parser)
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="default 5")
    add_json(parser, "all figures as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw a picture (.png, .svg); needs matplotlib")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..bench import bench, plot
    from ..default import default_model

    if options.plot and find_spec("matplotlib") is None:  # before minutes of work
        return fail('a plot needs matplotlib: pip install "citrinet[evaluate]"')
    quiet()
    model = options.model or default_model()
    benchmark = bench(model, options.against, options.rounds, options.nemo_python, options.device)
    print(json.dumps(benchmark.to_dict()) if options.json else benchmark)
    if options.plot:
        plot(benchmark, options.plot)
    return 0
