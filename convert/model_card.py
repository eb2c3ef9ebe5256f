"""The model card (`README.md`) of a converted repository."""

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .report import ConversionReport
from .source import NemoSource

ORIGIN = "converted from NeMo's"  # marks a converted repository
_USAGE = """```python
import citrinet  # {install}or leave this out and pass trust_remote_code=True
from transformers import pipeline

recognizer = pipeline("automatic-speech-recognition", "{repository}")
print(recognizer("speech.wav"))
```"""


def write_model_card(folder: Path, report: ConversionReport, source: NemoSource, repository: str) -> None:
    """
    Write `README.md`; language and licence are stated only if known.

    Args:
        folder: folder of the repository.
        report: report of the conversion.
        source: source of the `.nemo` file.
        repository: name of the repository, `owner/name` if it will be uploaded to the Hub.
    """
    config = report.config
    title = _plain(repository.rsplit("/", 1)[-1])
    address = _address()
    package = f"[citrinet]({address})" if address else "citrinet"
    install = f"pip install git+{address}; " if address else ""
    sections = [
        _front_matter(report, source),
        f"# {title}\n\nA {config.num_hidden_layers}-block Citrinet speech recogniser with "
        f"a CTC head, {ORIGIN} `{_plain(source.name)}`{_origin(source)} with {package}.",
        "## Usage\n\n"
        + _USAGE.format(install=install, repository=repository if "/" in repository else f"path/to/{repository}"),
        "The result holds `text` (what the CTC head wrote), `transcript` (without tags), `entities`, `tags`, and "
        '`chunks` with `return_timestamps="char"` or `"word"`. Audio of any sampling rate is resampled to '
        f"{report.sampling_rate / 1000:g} kHz mono.",
        "## Architecture\n\n" + _architecture(report),
    ]
    labels = dict(sorted(config.tag_labels.items()))
    if report.entities:
        labels["entities in the text"] = report.entities
    if labels:
        rows = [[_plain(kind), ", ".join(f"`{_plain(name)}`" for name in names)] for kind, names in labels.items()]
        sections.append("## Labels\n\n" + _table(["category", "labels"], rows))
    sections.append("## Licence\n\n" + _licence(source))
    (folder / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _address() -> str | None:
    """Of the package's repository, if the package was installed and not only put on the path."""
    try:
        urls = importlib.metadata.metadata("citrinet").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((url.removeprefix("Repository, ") for url in urls if url.startswith("Repository, ")), None)


def _origin(source: NemoSource) -> str:
    return f" of [{source.repository}](https://huggingface.co/{source.repository})" if source.repository else ""


def _licence(source: NemoSource) -> str:
    if licence := source.card.get("license"):
        named = source.card.get("license_name", licence)
        return f"The weights have the licence of the original checkpoint{_origin(source)}: `{_plain(str(named))}`."
    return (
        "The licence of the weights is that of the original checkpoint, which it does not state. "
        "State it in the metadata above (`license:`) before you publish this repository."
    )


def _front_matter(report: ConversionReport, source: NemoSource) -> str:
    metadata = dict(source.card) | ({"language": report.language} if report.language else {})
    metadata |= {"base_model": source.repository} if source.repository else {}
    metadata |= {"library_name": "transformers", "pipeline_tag": "automatic-speech-recognition"}
    metadata["tags"] = ["citrinet", "ctc", "speech", "nemo"]
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---"


def _architecture(report: ConversionReport) -> str:
    config = report.config
    adapters = [f"{a['name']} ({a['dim']}{'' if a['enabled'] else ', disabled'})" for a in config.adapters]
    facts = {
        "input": f"{config.num_mel_bins} mel bins, one frame each {config.hop_length} samples",
        "blocks": config.num_hidden_layers,
        "channels": _runs(config.hidden_sizes),
        "convolutions in a block": _runs(config.num_repeats),
        "kernels": _runs(config.kernel_sizes),
        "strides": _runs(config.strides),
        "adapters": ", ".join(adapters) or "none",
        "outputs of the CTC head": f"{config.vocab_size} with the blank",
    }
    parameters = [[part, f"{count:,}"] for part, count in report.parameters.items()]
    return _table(["", ""], facts.items()) + "\n\n" + _table(["part", "parameters"], parameters)


def _table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _plain(name: str) -> str:
    """Escape a name from the file, so that it cannot end a table cell or a code span."""
    return " ".join(name.split()).replace("`", "'").replace("|", "\\|")


def _runs(values: list[Any]) -> str:
    """Abbreviate runs of equal values: `5 3 3 3` as `5, 3 x 3`."""
    runs: list[list[Any]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return ", ".join(f"{value} x {count}" if count > 1 else f"{value}" for value, count in runs)
