"""Make the network and the processor of a recipe."""

import itertools
import math
import operator
from typing import Any

import torch

from ..checkpoint import load_citrinet_config, load_network, load_processor, load_tokenizer
from ..configuration_citrinet import CitrinetConfig
from ..feature_extraction_citrinet import CitrinetFeatureExtractor
from ..modeling_citrinet import CitrinetForCTC
from ..processing_citrinet import CitrinetProcessor
from ..tokenizer.training import train_tokenizer
from .auxiliary import AuxiliaryHeads, read_units, unit_ids
from .depthwise import use_triton
from .recipe import Recipe


def check_network(recipe: Recipe) -> None:
    """
    Check that the recipe's network can be made, without loading or initialising weights.

    Raises:
        OSError: if the pretrained model cannot be found.
        ValueError: if it is not a Citrinet, or the recipe's settings do not make a valid network.
    """
    stored = load_citrinet_config(recipe.model.pretrained).to_dict() if recipe.model.pretrained else {}
    config = CitrinetConfig.from_dict({**stored, **recipe.model.config})
    if recipe.model.frame_ms is not None:
        known = load_processor(recipe.model.pretrained).feature_extractor if recipe.model.pretrained else None
        strides_for(config, recipe.model.frame_ms, (known or CitrinetFeatureExtractor()).sampling_rate)
    auxiliary = recipe.model.auxiliary_ctc
    if auxiliary is not None:
        AuxiliaryHeads(config, auxiliary.blocks, vocab_size=2)
        if auxiliary.units is not None:
            read_units(auxiliary.units)


def strides_for(config: CitrinetConfig, frame_ms: float, sampling_rate: int) -> list[int]:
    """
    Remove the last strides of a network until its frames have the given length.

    Weights do not change: they fit any stride.

    Args:
        config: configuration of the network.
        frame_ms: milliseconds for each frame of logits.
        sampling_rate: sampling rate in Hz.

    Returns:
        `strides` for the configuration.

    Raises:
        ValueError: if the strides of the network cannot give this frame length.
    """
    factors = list(itertools.accumulate(config.strides, operator.mul))
    frames = {factor: 1000 * config.hop_length * factor / sampling_rate for factor in sorted({1, *factors})}
    fitting = [factor for factor, ms in frames.items() if math.isclose(ms, frame_ms)]
    if not fitting:
        possible = " or ".join(f"{ms:g}" for ms in frames.values())
        raise ValueError(f"`model.frame_ms` is {frame_ms:g}; with this network's strides it can be {possible}.")
    return [stride if factor <= fitting[0] else 1 for stride, factor in zip(config.strides, factors, strict=True)]


def make_processor(recipe: Recipe, texts: list[str]) -> CitrinetProcessor:
    """
    Make the processor: the front end of the pretrained model if there is one, and the recipe's tokenizer.

    Args:
        recipe: the recipe.
        texts: texts to train a new tokenizer on.

    Raises:
        OSError: if a model or tokenizer cannot be found.
        ValueError: if it is of another kind, or a tokenizer cannot be trained on the texts.
    """
    pretrained = load_processor(recipe.model.pretrained) if recipe.model.pretrained else None
    extractor = pretrained.feature_extractor if pretrained else CitrinetFeatureExtractor()
    if recipe.tokenizer.train is not None:
        tokenizer = train_tokenizer(texts, **recipe.tokenizer.train)
    elif recipe.tokenizer.pretrained:
        tokenizer = load_tokenizer(recipe.tokenizer.pretrained)
    else:
        assert pretrained is not None  # read_recipe checks it
        tokenizer = pretrained.tokenizer
    return CitrinetProcessor(extractor, tokenizer)


def make_network(recipe: Recipe, processor: CitrinetProcessor, labels: dict[str, list[str]]) -> CitrinetForCTC:
    """
    Make the network to train.

    Args:
        recipe: the recipe.
        processor: processor with the tokenizer, whose tokens are the CTC head's outputs.
        labels: category -> labels of its tag head.

    Raises:
        OSError: if the pretrained model cannot be found.
        ValueError: if it is not a Citrinet, or the recipe's changes do not fit it.
    """
    vocabulary = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    stored = load_citrinet_config(recipe.model.pretrained).to_dict() if recipe.model.pretrained else {}
    changes: dict[str, Any] = dict(recipe.model.config)
    if recipe.model.frame_ms is not None:
        config = CitrinetConfig.from_dict({**stored, **changes})
        changes["strides"] = strides_for(config, recipe.model.frame_ms, processor.feature_extractor.sampling_rate)
    if not recipe.model.pretrained:
        network = CitrinetForCTC(CitrinetConfig(**vocabulary, tag_labels=labels, **changes))
        use_triton(network)
        return network
    model = load_network(recipe.model.pretrained, dtype=torch.float32, **changes)
    old = load_processor(recipe.model.pretrained).tokenizer.get_vocab()
    known = model.config.tag_labels
    if labels.keys() <= known.keys() and all(set(labels[category]) <= set(known[category]) for category in labels):
        labels = known  # the existing heads have every label, and perhaps more
    if old != processor.tokenizer.get_vocab() or labels != known:
        replace_heads(model, old, processor, labels)
    if recipe.model.adapter is not None:
        model.new_adapter(dict(recipe.model.adapter))
        model.freeze_base()
    use_triton(model)
    return model


def make_auxiliary_heads(
    recipe: Recipe, model: CitrinetForCTC, processor: CitrinetProcessor
) -> tuple[AuxiliaryHeads, torch.Tensor] | None:
    """
    Make the auxiliary CTC heads of the recipe.

    Args:
        recipe: the recipe.
        model: the network, which is not changed.
        processor: processor with the tokenizer, whose tokens have units.

    Returns:
        The heads and the unit of each token, see [`unit_ids`]; `None` if the recipe has no auxiliary heads.

    Raises:
        OSError: if the table of units cannot be read.
        ValueError: if it is not a table of units, or has none of the tokens.
    """
    wanted, tokenizer = recipe.model.auxiliary_ctc, processor.tokenizer
    if wanted is None:
        return None
    table = None if wanted.units is None else read_units(wanted.units)
    units = unit_ids(tokenizer.get_vocab(), tokenizer.pad_token_id, table)
    return AuxiliaryHeads(model.config, wanted.blocks, vocab_size=int(units.max()) + 2), units


def replace_heads(
    model: CitrinetForCTC, old: dict[str, int], processor: CitrinetProcessor, labels: dict[str, list[str]]
) -> None:
    """
    Replace the CTC head for another tokenizer, and the tag heads.

    Tokens in both vocabularies keep their weights, and so do tag heads whose labels stay the same.

    Args:
        model: the model, changed in place.
        old: the previous vocabulary, token -> row of the head.
        processor: processor with the new tokenizer.
        labels: category -> labels of its new tag head.
    """
    tokenizer = processor.tokenizer
    previous, previous_tags, previous_labels = model.ctc_head, model.tag_heads, model.config.tag_labels
    model.new_heads(len(tokenizer), tokenizer.pad_token_id, labels)
    for category in labels:
        if labels[category] == previous_labels.get(category):
            model.tag_heads[category] = previous_tags[category]
    kept = {row: old[token] for token, row in tokenizer.get_vocab().items() if token in old}
    with torch.no_grad():
        model.ctc_head.weight[list(kept)] = previous.weight[list(kept.values())]
        model.ctc_head.bias[list(kept)] = previous.bias[list(kept.values())]
