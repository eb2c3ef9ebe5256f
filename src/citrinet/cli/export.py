"""`citrinet export`."""

import argparse
from typing import Any

from .options import add_force, fail, positive, quiet


def add_parser(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "export", help="export a model to another format", description="Export a model to another format."
    )
    forms = parser.add_subparsers(title="forms", metavar="FORM", required=True)
    nemo = forms.add_parser(
        "nemo",
        help="a .nemo file",
        description="Write a model as a NeMo checkpoint, the inverse of `citrinet convert`. A model that NeMo cannot "
        "express is refused, and OUT.nemo appears only when it is complete.",
    )
    nemo.add_argument("model", metavar="DIR|REPO", help="a folder or a Hub repository")
    nemo.add_argument("output", metavar="OUT.nemo", help="the file to write")
    nemo.add_argument(
        "--without-tag-heads", action="store_true", help="leave out the tag heads, which NeMo rejects with strict=True"
    )
    add_force(nemo, "an earlier OUT.nemo")
    nemo.set_defaults(run=_export_nemo)
    onnx = forms.add_parser(
        "onnx",
        help="ONNX graphs",
        description="Write a model as ONNX graphs (front end, network, tag heads) with the other files that programs "
        "without PyTorch need. OUT_DIR appears only when it is complete, and is a model for `citrinet transcribe`. "
        'Needs `pip install "citrinet[onnx]"`.',
    )
    onnx.add_argument("model", metavar="DIR|REPO", help="a folder or a Hub repository")
    onnx.add_argument("output", metavar="OUT_DIR", help="the folder to write")
    onnx.add_argument(
        "--dtype", default="float32", choices=["float32", "float16", "int8"],
        help="dtype of the weights; int8 quantizes the matrix products (default float32)",
    )  # fmt: skip
    onnx.add_argument("--opset", type=positive, default=18, metavar="N", help="ONNX opset, at least 18 (default 18)")
    add_force(onnx, "an earlier export in OUT_DIR")
    onnx.set_defaults(run=_export_onnx)
    web = forms.add_parser(
        "web",
        help="a web page",
        description="Write a web page that transcribes speech in the visitor's browser, with int8 graphs, into a "
        "folder for any static file server. OUT_DIR appears only when it is complete. "
        'Needs `pip install "citrinet[onnx]"`.',
    )
    web.add_argument("model", metavar="DIR|REPO", help="a folder or a Hub repository")
    web.add_argument("output", metavar="OUT_DIR", help="the folder to write")
    web.add_argument(
        "--onnxruntime-web", metavar="DIR|TGZ",
        help="the npm package onnxruntime-web, unpacked or packed (default: downloaded from npm and cached)",
    )  # fmt: skip
    add_force(web, "an earlier page in OUT_DIR")
    web.set_defaults(run=_export_web)


def _export_nemo(options: argparse.Namespace) -> int:
    from ..convert import export_nemo

    quiet(unless_terminal=True)
    print(export_nemo(options.model, options.output, tag_heads=not options.without_tag_heads, force=options.force))
    return 0


def _export_onnx(options: argparse.Namespace) -> int:
    try:
        from ..convert.hf_to_onnx import export_onnx
    except ImportError as error:
        return fail(f'{error}. ONNX needs more packages: pip install "citrinet[onnx]"')
    quiet(unless_terminal=True)
    print(export_onnx(options.model, options.output, dtype=options.dtype, opset=options.opset, force=options.force))
    return 0


def _export_web(options: argparse.Namespace) -> int:
    try:
        from ..convert.hf_to_web import export_web
    except ImportError as error:
        return fail(f'{error}. ONNX needs more packages: pip install "citrinet[onnx]"')
    quiet(unless_terminal=True)
    print(export_web(options.model, options.output, onnxruntime_web=options.onnxruntime_web, force=options.force))
    return 0
