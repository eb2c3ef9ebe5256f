"""A short description of a network."""

from .configuration_citrinet import CitrinetConfig


def describe_network(config: CitrinetConfig, entities: list[str]) -> list[str]:
    """Describe a network: its size, adapters, tag labels and the entity types of its vocabulary, one line each."""
    lines = [f"Citrinet: {config.num_hidden_layers} blocks, {config.hidden_size} channels, {config.vocab_size} outputs"]
    for adapter in config.adapters:
        lines.append(f"  adapter {adapter['name']} (dim {adapter['dim']}{'' if adapter['enabled'] else ', disabled'})")
    lines += [f"  {category}: {', '.join(labels)}" for category, labels in sorted(config.tag_labels.items())]
    return lines + ([f"  entities: {', '.join(entities)}"] if entities else [])
