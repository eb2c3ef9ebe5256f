"""The documentation site; `.ci/run` builds it with warnings as errors."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCTC, AutoProcessor

import citrinet

DOCS = Path(__file__).parents[1] / "docs"
PARTS = (
    "alignment bench convert evaluation formats language_model optimized ray recognition registration serving training"
)
PUBLIC = ["citrinet", *(f"citrinet.{part}" for part in PARTS.split())]


@pytest.fixture(scope="module")
def extension():
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("site_extension")
    sys.path.remove(str(DOCS))


def resolve(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.fixture(scope="module")
def documented():
    """Names in the pages of the reference, and what they stand for."""
    pytest.importorskip("prometheus_client", reason="the server is in the reference too, and needs Python 3.11")
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    names = re.findall(r"^   (citrinet\.[\w.]+)", pages, re.MULTILINE)
    assert len(names) == len(set(names))
    return {name: resolve(name) for name in names}


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module, documented):
    for name in importlib.import_module(module).__all__:
        value = resolve(f"{module}.{name}")
        if isinstance(value, ModuleType):
            continue
        is_there = (
            any(other is value for other in documented.values())
            if callable(value)
            else f"{module}.{name}" in documented
        )
        assert is_there, f"docs/reference lacks {module}.{name}"


def test_docstrings_become_restructured_text(extension):
    lines = ["See [`load`] and `a: b`.", "", "```python", ">>> load(`x`)", "```", "A :class:`B` stays."]
    assert extension.markdown_to_rst(lines) == [
        "See :py:obj:`.load` and ``a: b``.",
        "",
        ".. code-block:: python",
        "",
        "   >>> load(`x`)",
        "",
        "",
        "A :class:`B` stays.",
    ]


def test_members_are_those_of_the_package(extension):
    from citrinet import CitrinetForCTC, CitrinetOnnx, Recognizer

    assert "with_decoder" in extension._members(Recognizer)
    assert "with_decoder" not in extension._members(CitrinetOnnx)
    members = extension._members(CitrinetForCTC)
    assert {"forward", "load_adapter"} <= set(members)
    assert "save_pretrained" not in members


def test_commands_are_those_of_the_parsers(extension):
    from citrinet.cli import _parser

    text = "\n".join(extension._describe(_parser()))
    assert "## citrinet transcribe\n" in text
    assert "## citrinet export onnx\n" in text
    assert ".. option:: --precision {float32,float16,bfloat16,int8}\n" in text


def test_chinese_is_searched_by_character(extension):
    assert extension.SearchByCharacter({}).split("去北山 by bus_2") == ["去", "北", "山", "by", "bus_2"]


def test_pictures_are_as_the_script_draws_them(tmp_path):
    spec = importlib.util.spec_from_file_location("draw", DOCS / "images/draw.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (DOCS / "images").glob("*.svg")}
    for path in tmp_path.iterdir():
        assert path.read_text(encoding="utf-8") == (DOCS / "images" / path.name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_shapes_in_the_picture_are_those_of_the_clip():
    picture = (DOCS / "images/way.svg").read_text(encoding="utf-8")
    model = AutoModelForCTC.from_pretrained(citrinet.default_model()).eval()
    processor = AutoProcessor.from_pretrained(citrinet.default_model())
    samples = citrinet.load_audio(DOCS.parent / "examples/bus.flac")
    inputs = processor(samples, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    arrays = (samples, inputs["input_features"][0], output.last_hidden_state[0], output.logits[0])
    tokens = processor.tokenizer.ctc_tokens(output.logits[0].argmax(-1))
    heads = " + ".join(str(logits.shape[-1]) for logits in output.tag_logits.values())
    padding = int((inputs["attention_mask"] == 0).sum())
    facts = [
        *(str(tuple(array.shape)) for array in arrays),
        f"{len(tokens)} tokens",
        f"{heads} logits",
        f"{padding} of padding",
    ]
    assert not [fact for fact in facts if fact not in picture]
