"""The network and the processor that a recipe asks for."""

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
from .recipe import Recipe


def check_network(recipe: Recipe) -> None:
    """
    Make sure that the recipe's network can be made, without loading or making any weights.

    Raises:
        OSError: if the pretrained model cannot be found.
        ValueError: if it is no Citrinet, or no network can be as the recipe says.
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
    Leave out the last strides of a network until its frames are as short as wanted.

    Its weights stay as they are: a block's fit any stride.

    Args:
        config: of the network.
        frame_ms: milliseconds of a frame of logits.
        sampling_rate: Hz.

    Returns:
        `strides` of the configuration.

    Raises:
        ValueError: if no such frame can be made of its strides.
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
    Make the front end of the pretrained model if there is one, and the tokenizer that the recipe asks for.

    Args:
        recipe: what to do.
        texts: what a new tokenizer is trained on.

    Raises:
        OSError: if a model or tokenizer cannot be found.
        ValueError: if it is of another kind, or no tokenizer can be made of the texts.
    """
    pretrained = load_processor(recipe.model.pretrained) if recipe.model.pretrained else None
    extractor = pretrained.feature_extractor if pretrained else CitrinetFeatureExtractor()
    if recipe.tokenizer.train is not None:
        tokenizer = train_tokenizer(texts, **recipe.tokenizer.train)
    elif recipe.tokenizer.pretrained:
        tokenizer = load_tokenizer(recipe.tokenizer.pretrained)
    else:
        assert pretrained is not None  # read_recipe made sure
        tokenizer = pretrained.tokenizer
    return CitrinetProcessor(extractor, tokenizer)


def make_network(recipe: Recipe, processor: CitrinetProcessor, labels: dict[str, list[str]]) -> CitrinetForCTC:
    """
    Make the network to be trained.

    Args:
        recipe: what to do.
        processor: holds the tokenizer, whose tokens are the CTC head's outputs.
        labels: labels of the tag heads, by category.

    Raises:
        OSError: if the pretrained model cannot be found.
        ValueError: if it is no Citrinet, or the recipe's changes do not fit it.
    """
    vocabulary = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    stored = load_citrinet_config(recipe.model.pretrained).to_dict() if recipe.model.pretrained else {}
    changes: dict[str, Any] = dict(recipe.model.config)
    if recipe.model.frame_ms is not None:
        config = CitrinetConfig.from_dict({**stored, **changes})
        changes["strides"] = strides_for(config, recipe.model.frame_ms, processor.feature_extractor.sampling_rate)
    if not recipe.model.pretrained:
        return CitrinetForCTC(CitrinetConfig(**vocabulary, tag_labels=labels, **changes))
    model = load_network(recipe.model.pretrained, dtype=torch.float32, **changes)
    old = load_processor(recipe.model.pretrained).tokenizer.get_vocab()
    known = model.config.tag_labels
    if labels.keys() <= known.keys() and all(set(labels[category]) <= set(known[category]) for category in labels):
        labels = known  # the heads that are there know every label, and perhaps more
    if old != processor.tokenizer.get_vocab() or labels != known:
        replace_heads(model, old, processor, labels)
    if recipe.model.adapter is not None:
        model.new_adapter(dict(recipe.model.adapter))
        model.freeze_base()
    return model


def make_auxiliary_heads(
    recipe: Recipe, model: CitrinetForCTC, processor: CitrinetProcessor
) -> tuple[AuxiliaryHeads, torch.Tensor] | None:
    """
    Make the heads that the recipe asks for in the middle of the network.

    Args:
        recipe: what to do.
        model: the network, which stays as it is.
        processor: holds the tokenizer, whose tokens have units.

    Returns:
        The heads and the unit of each token, see [`unit_ids`]; none if the recipe asks for none.

    Raises:
        OSError: if the table of units cannot be read.
        ValueError: if it is none, or has none of the tokens.
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
    Give a model a CTC head for another tokenizer.

    Tokens that were known keep their weights, and so do tag heads whose labels stay the same.

    Args:
        model: the model, changed in place.
        old: its vocabulary so far, token -> row of the head.
        processor: holds the new tokenizer.
        labels: labels of the new tag heads, by category.
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
