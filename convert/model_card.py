"""The README of a converted repository."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nemo_to_hf import ConversionReport

_USAGE = '''```python
import citrinet  # pip install citrinet; or leave this out and pass trust_remote_code=True
from transformers import pipeline

recognizer = pipeline("automatic-speech-recognition", "{repository}")
print(recognizer("speech.wav"))
```'''


def write_model_card(folder: Path, report: "ConversionReport", source: str, name: str) -> None:
    """Write `README.md`; language and licence are stated only where they are known."""
    config = report.config
    sections = [
        _front_matter(report),
        f"# {name}\n\nA {config.num_hidden_layers}-block Citrinet speech recogniser with a CTC head, converted from "
        f"NeMo's `{source}` with [citrinet](https://pypi.org/project/citrinet/).",
        "## Usage\n\n" + _USAGE.format(repository=f"path/to/{name}"),
        "The result holds `text` (what the CTC head wrote), `transcript` (without tags), `entities`, `tags`, and "
        '`chunks` with `return_timestamps="char"` or `"word"`. Audio of any sampling rate is resampled to '
        "16 kHz mono.",
        "## Architecture\n\n" + _architecture(report),
    ]
    if config.tag_labels:
        rows = [f"| {category} | {', '.join(f'`{label}`' for label in labels)} |" for category, labels in sorted(config.tag_labels.items())]
        sections.append("## Labels\n\n| category | labels |\n|---|---|\n" + "\n".join(rows))
    sections.append(
        "## Licence\n\nThe licence of the weights is that of the original checkpoint, which the file does not state. "
        "State it in the metadata above (`license:`) before you publish this repository."
    )
    (folder / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _front_matter(report: "ConversionReport") -> str:
    language = [f"language: {report.language}"] if report.language else []
    tags = ["tags:", "- citrinet", "- ctc", "- speech", "- nemo"]
    return "\n".join(["---", *language, "library_name: transformers", "pipeline_tag: automatic-speech-recognition", *tags, "---"])


def _architecture(report: "ConversionReport") -> str:
    config = report.config
    facts = {
        "input": f"{config.num_mel_bins} mel bins, one frame each {config.hop_length} samples",
        "blocks": config.num_hidden_layers,
        "channels": _runs(config.hidden_sizes),
        "convolutions in a block": _runs(config.num_repeats),
        "kernels": _runs(config.kernel_sizes),
        "strides": _runs(config.strides),
        "adapters": ", ".join(f"{a['name']} ({a['dim']}{'' if a['enabled'] else ', disabled'})" for a in config.adapters) or "none",
        "outputs of the CTC head": f"{config.vocab_size} with the blank",
    }
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    parameters = ["| part | parameters |", "|---|---|", *(f"| {part} | {n:,} |" for part, n in report.parameters.items())]
    return "\n".join(table) + "\n\n" + "\n".join(parameters)


def _runs(values: list) -> str:
    """`5 3 3 3` as `5, 3 x 3`."""
    runs: list[list] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return ", ".join(f"{value} x {count}" if count > 1 else f"{value}" for value, count in runs)
