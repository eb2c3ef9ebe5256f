"""What a checkpoint is, in a few lines."""

from collections.abc import Iterable

from transformers import AutoConfig, AutoTokenizer

from .configuration_citrinet import CitrinetConfig
from .transcript_citrinet import ENTITY_PREFIX


def describe(model: str) -> str:
    """
    Describe a converted checkpoint.

    Args:
        model: a folder or a Hub repository.

    Returns:
        A text of a few lines.

    Raises:
        ValueError: if it is not a Citrinet checkpoint.
        OSError: if it cannot be found.
    """
    config = AutoConfig.from_pretrained(model)
    if not isinstance(config, CitrinetConfig):
        raise ValueError(f"{model} is a {config.model_type} model, not a Citrinet.")
    lines = describe_network(config, entity_types(AutoTokenizer.from_pretrained(model).get_vocab()))
    rate = f"one output each {config.inputs_to_logits_ratio} samples, weights of {config.dtype or 'float32'}"
    return "\n".join([lines[0], f"  {rate}", *lines[1:]])


def describe_network(config: CitrinetConfig, entities: list[str]) -> list[str]:
    """Lines on the size of a network, its adapters, its tag labels and the entity types of its vocabulary."""
    lines = [f"Citrinet: {config.num_hidden_layers} blocks, {config.hidden_size} channels, {config.vocab_size} outputs"]
    for adapter in config.adapters:
        lines.append(f"  adapter {adapter['name']} (dim {adapter['dim']}{'' if adapter['enabled'] else ', disabled'})")
    lines += [f"  {category}: {', '.join(labels)}" for category, labels in sorted(config.tag_labels.items())]
    return lines + ([f"  entities: {', '.join(entities)}"] if entities else [])


def entity_types(vocabulary: Iterable[str]) -> list[str]:
    """Types of the entity markers in a vocabulary, sorted."""
    pieces = (token.lstrip("▁") for token in vocabulary)
    return sorted({piece.removeprefix(ENTITY_PREFIX) for piece in pieces if piece.startswith(ENTITY_PREFIX)})
