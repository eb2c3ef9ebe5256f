"""Train a Citrinet with Transformers' `Trainer`."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torchaudio.functional import edit_distance
from transformers import AutoModelForCTC, AutoProcessor, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..configuration_citrinet import CitrinetConfig
from ..feature_extraction_citrinet import CitrinetFeatureExtractor
from ..modeling_citrinet import CitrinetForCTC
from ..processing_citrinet import CitrinetProcessor
from ..tokenizer.training import train_tokenizer
from ..transcript_citrinet import parse_transcript
from .augmentation import Augmentation
from .data import UNKNOWN, Collator, EpochSampler, Selection, SpeechDataset, feasible, read_source, select, tag_labels
from .recipe import Recipe, Source


def train(recipe: Recipe, resume: bool = False) -> dict[str, float]:
    """
    Train as a recipe says, and save model and processor in its `output_dir`; a new adapter on its own as well.

    Runs under `accelerate launch` as well. `Trainer` writes checkpoints as `TrainingArguments` say; the one with the
    lowest character error rate on the validation data is kept in the end, unless the recipe asks for an average.

    Args:
        recipe: what to do.
        resume: whether to go on from the last checkpoint in `output_dir`, if there is one.

    Returns:
        The last evaluation: `eval_cer`, `eval_loss`, and `eval_<category>_accuracy` for each tag category.

    Raises:
        ValueError: if nothing is left to train on, the parts of the recipe do not fit one another, or the checkpoint to
            go on from is of another network.
    """
    torch.manual_seed(recipe.training.get("seed", 42))
    selection = _select(recipe, recipe.data.train)
    _tell("training", selection)
    if not selection.examples:
        raise ValueError("nothing is left to train on: see the reasons above.")
    labels = tag_labels(selection.examples, recipe.data.tag_categories)
    processor = _processor(recipe, [example.text for example in selection.examples])
    model = _model(recipe, processor, labels)
    ratio = model.config.inputs_to_logits_ratio
    selection = feasible(selection, processor, ratio)
    validation = feasible(_select(recipe, recipe.data.validation), processor, ratio)
    _tell("fit for CTC", selection)
    if validation.examples:
        _tell("validation", validation)

    arguments = _arguments(recipe, bool(validation.examples), bool(model.config.tag_labels))
    augmentation = Augmentation(**recipe.data.augmentation)
    training_data = SpeechDataset(
        selection.examples,
        processor,
        model.config.tag_labels,
        augmentation,
        arguments.seed,
        recipe.data.variants,
        recipe.data.cache,
    )
    validation_data = SpeechDataset(validation.examples, processor, model.config.tag_labels, variants=1)
    trainer = SpeechTrainer(
        model=model,
        args=arguments,
        train_dataset=training_data,
        eval_dataset=validation_data if validation.examples else None,
        data_collator=Collator(processor),
        processing_class=processor,
        compute_metrics=Metrics(processor, sorted(model.config.tag_labels)),
        preprocess_logits_for_metrics=_best_classes,
    )
    output = recipe.training["output_dir"]
    last = get_last_checkpoint(output) if resume and Path(output).is_dir() else None
    if last:
        _check_same_network(last, model.config)
    trainer.train(resume_from_checkpoint=last)
    if recipe.average_checkpoints:
        average_checkpoints(model, _checkpoints(output)[-recipe.average_checkpoints :])
    metrics = trainer.evaluate() if validation.examples else {}
    trainer.save_model()
    if recipe.model.adapter is not None and is_main_process():
        model.save_adapter(output, recipe.model.adapter["name"], tokenizer=processor.tokenizer)
    if arguments.push_to_hub:
        trainer.push_to_hub()
    return metrics


class SpeechTrainer(Trainer):
    """[`Trainer`] whose batches hold utterances of similar length, in an order that a resumed run repeats."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        batch_size = self.args.train_batch_size * self.args.world_size
        self._sampler = EpochSampler(batch_size, self.train_dataset.examples, self.args.seed)
        self.add_callback(_EpochCallback(self._sampler, self.train_dataset))

    def _get_train_sampler(self, train_dataset=None):
        return self._sampler


class _EpochCallback(TrainerCallback):
    """Tells sampler and data which pass it is, before either is asked for it."""

    def __init__(self, *listeners: Any):
        self.listeners = listeners

    def on_epoch_begin(self, args, state, control, **kwargs):
        for listener in self.listeners:
            listener.epoch = int(state.epoch + 1e-6)


class Metrics:
    """Character error rate without markers, and tag accuracy, on the validation data, for [`Trainer`]."""

    def __init__(self, processor: CitrinetProcessor, categories: list[str]):
        self.tokenizer = processor.tokenizer
        self.categories = categories

    def __call__(self, prediction) -> dict[str, float]:
        """Predicted classes and labels -> `cer`, and `<category>_accuracy` over the utterances with a label."""
        best, labels = prediction.predictions, prediction.label_ids
        tags, tag_labels = {}, {}
        if self.categories:
            (best, tags), (labels, tag_labels) = best, labels
        errors = total = 0
        for row, target in zip(best, labels, strict=True):
            reference = self._transcript(target, group_tokens=False)
            errors += edit_distance(self._transcript(row), reference)
            total += len(reference)
        metrics = {"cer": errors / max(total, 1)}
        for category in self.categories:
            known = tag_labels[category] >= 0
            if known.any():
                metrics[f"{category}_accuracy"] = float(np.mean((tags[category] == tag_labels[category])[known]))
        return metrics

    def _transcript(self, ids: np.ndarray, group_tokens: bool = True) -> str:
        return parse_transcript(self.tokenizer.decode(ids[ids >= 0], group_tokens=group_tokens)).transcript


def _best_classes(outputs, labels):
    """What an evaluation keeps of the logits of a batch: the best token of each frame and the best tag labels."""
    logits, tag_logits = outputs if isinstance(outputs, tuple) else (outputs, None)
    # Frames that Trainer added to make the batches of several processes equally long say -100 for every token.
    best = logits.argmax(dim=-1).masked_fill((logits == UNKNOWN).all(dim=-1), UNKNOWN)
    if tag_logits is None:
        return best
    return best, {category: values.argmax(dim=-1) for category, values in tag_logits.items()}


def _check_same_network(checkpoint: str, config) -> None:
    stored = CitrinetConfig.from_pretrained(checkpoint)
    parts = ("hidden_sizes", "num_repeats", "kernel_sizes", "vocab_size", "adapters", "tag_labels")
    if other := [name for name in parts if getattr(stored, name) != getattr(config, name)]:
        raise ValueError(
            f"{checkpoint} is of another network than the recipe's ({', '.join(other)}): choose another `output_dir`, "
            "or start anew without resuming."
        )


def average_checkpoints(model: CitrinetForCTC, folders: list[Path]) -> None:
    """
    Give a model the mean of the weights of several checkpoints.

    Args:
        model: the model, changed in place.
        folders: checkpoints that `Trainer` wrote.
    """
    states = [load_file(folder / "model.safetensors") for folder in folders]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(first.dtype)
        if first.is_floating_point()
        else states[-1][name]
        for name, first in states[0].items()
    }
    model.load_state_dict(mean)


def _checkpoints(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))


def _select(recipe: Recipe, sources: list[Source]) -> Selection:
    data = recipe.data
    return select(
        (entry for source in sources for entry in read_source(source)),
        data.tag_categories,
        data.min_duration,
        data.max_duration,
        data.keep_tags,
        data.keep_entities,
    )


def is_main_process() -> bool:
    """Whether this is the process that speaks for all, under `accelerate launch` or `torchrun`."""
    return int(os.environ.get("RANK", "0")) == 0


def _tell(name: str, selection: Selection) -> None:
    if is_main_process():
        print(f"{name}: {selection}")


def _processor(recipe: Recipe, texts: list[str]) -> CitrinetProcessor:
    """The front end of the pretrained model if there is one, and the tokenizer that the recipe asks for."""
    pretrained = AutoProcessor.from_pretrained(recipe.model.pretrained) if recipe.model.pretrained else None
    extractor = pretrained.feature_extractor if pretrained else CitrinetFeatureExtractor()
    if recipe.tokenizer.train is not None:
        tokenizer = train_tokenizer(texts, **recipe.tokenizer.train)
    elif recipe.tokenizer.pretrained:
        tokenizer = AutoTokenizer.from_pretrained(recipe.tokenizer.pretrained)  # type: ignore[assignment]
    else:
        assert pretrained is not None  # read_recipe made sure
        tokenizer = pretrained.tokenizer
    return CitrinetProcessor(extractor, tokenizer)


def _model(recipe: Recipe, processor: CitrinetProcessor, labels: dict[str, list[str]]) -> CitrinetForCTC:
    vocabulary = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    if not recipe.model.pretrained:
        return CitrinetForCTC(CitrinetConfig(**vocabulary, tag_labels=labels, **recipe.model.config))
    model = AutoModelForCTC.from_pretrained(recipe.model.pretrained, dtype=torch.float32, **recipe.model.config)
    old = AutoTokenizer.from_pretrained(recipe.model.pretrained).get_vocab()
    known = model.config.tag_labels
    if labels.keys() <= known.keys() and all(set(labels[category]) <= set(known[category]) for category in labels):
        labels = known  # the heads that are there know every label, and perhaps more
    if old != processor.tokenizer.get_vocab() or labels != known:
        replace_heads(model, old, processor, labels)
    if recipe.model.adapter is not None:
        model.new_adapter(recipe.model.adapter)
        model.freeze_base()
    return model


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


def _arguments(recipe: Recipe, validates: bool, has_tags: bool) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "remove_unused_columns": False,
        "label_names": ["labels", "tag_labels"] if has_tags else ["labels"],
        "report_to": "none",
        "lr_scheduler_type": "cosine",
    }
    if validates:
        defaults |= {"eval_strategy": "epoch", "metric_for_best_model": "cer", "greater_is_better": False}
        defaults |= {"load_best_model_at_end": not recipe.average_checkpoints}
    # The best checkpoint is known only if there is one for every evaluation.
    evaluates = {**defaults, **recipe.training}.get("eval_strategy", "no")
    defaults["save_strategy"] = "epoch" if evaluates == "no" else evaluates
    return TrainingArguments(**{**defaults, **recipe.training})
