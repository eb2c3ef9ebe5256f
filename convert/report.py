"""Report of a conversion, for the command line and the model card."""

from dataclasses import dataclass, field
from pathlib import Path

from citrinet import CitrinetConfig, CitrinetForCTC
from citrinet.information import describe_network


@dataclass
class ConversionReport:
    """
    Report of a conversion or an export.

    Args:
        config: configuration of the model.
        parameters: part of the network -> number of parameters.
        mapped: number of converted tensors.
        ignored: tensors and members of the file that are not part of the model.
        checked: comparisons with this implementation or with PyTorch, and their differences.
        entities: entity types in the vocabulary.
        sampling_rate: sampling rate in Hz.
        language: language as an ISO code, if known.
        output: path of the output.
        notes: notes for users of the output.
    """

    config: CitrinetConfig
    parameters: dict[str, int]
    mapped: int
    ignored: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    entities: list[str] = field(default_factory=list)
    sampling_rate: int = 16000
    language: str | None = None
    output: Path | None = None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        network = describe_network(self.config, self.entities)
        lines = [
            network[0],
            *(f"  {part}: {count:,} parameters" for part, count in self.parameters.items()),
            *network[1:],
            f"mapped: {self.mapped} tensors",
            *(f"ignored: {item}" for item in self.ignored),
            *(f"checked: {item}" for item in self.checked),
            *(f"note: {note}" for note in self.notes),
            *([f"written: {self.output}"] if self.output else []),
        ]
        return "\n".join(lines)


def count_parameters(model: CitrinetForCTC) -> dict[str, int]:
    """Count parameters: part of the network -> number; `total` is last."""
    parts = {"encoder": 0, "adapters": 0, "CTC head": 0, "tag heads": 0}
    for name, parameter in model.named_parameters():
        top = name.split(".")[0]
        inside = "adapters" if ".adapters." in name else "encoder"
        parts[{"ctc_head": "CTC head", "tag_heads": "tag heads"}.get(top, inside)] += parameter.numel()
    return {**{part: count for part, count in parts.items() if count}, "total": sum(parts.values())}
