"""What a checkpoint is, in a few lines."""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from .configuration_citrinet import CitrinetConfig
from .transcript_citrinet import ENTITY_PREFIX


def describe(model: str) -> str:
    """
    Describe a checkpoint.

    Args:
        model: a converted folder, a Hub repository or a `.nemo` file.

    Returns:
        A text of a few lines.

    Raises:
        ValueError: if it is not a Citrinet checkpoint.
        OSError: if it cannot be found.
    """
    if model.endswith(".nemo") and Path(model).is_file():
        from .convert import read_nemo

        return str(read_nemo(model).report)
    config = AutoConfig.from_pretrained(model)
    if not isinstance(config, CitrinetConfig):
        raise ValueError(f"{model} is a {config.model_type} model, not a Citrinet.")
    tokenizer = AutoTokenizer.from_pretrained(model)
    entities = sorted(
        {token.lstrip("▁").removeprefix(ENTITY_PREFIX) for token in tokenizer.get_vocab() if ENTITY_PREFIX in token}
    )
    lines = [
        f"Citrinet: {config.num_hidden_layers} blocks, {config.hidden_size} channels, "
        f"{config.vocab_size} outputs, one each {config.inputs_to_logits_ratio} samples, {config.dtype or 'float32'}",
    ]
    for adapter in config.adapters:
        lines.append(f"  adapter {adapter['name']}: dim {adapter['dim']}{'' if adapter['enabled'] else ', disabled'}")
    lines += [f"  {category}: {', '.join(labels)}" for category, labels in sorted(config.tag_labels.items())]
    if entities:
        lines.append(f"  entities: {', '.join(entities)}")
    return "\n".join(lines)
