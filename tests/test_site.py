"""The documentation site; `.ci/run` builds it with warnings as errors."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PARTS = (
    "alignment bench convert evaluation formats language_model optimized ray recognition registration serving training"
)
PUBLIC = ["citrinet", *(f"citrinet.{part}" for part in PARTS.split())]


@pytest.fixture(scope="module")
def extension():
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("site_extension")
    sys.path.remove(str(DOCS))


def resolve(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.fixture(scope="module")
def documented():
    """Names in the pages of the reference, and what they stand for."""
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
