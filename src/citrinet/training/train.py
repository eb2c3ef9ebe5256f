"""Train a Citrinet with Transformers' `Trainer`."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments

from ..modeling_citrinet import CitrinetForCTC
from ..processing_citrinet import CitrinetProcessor
from .arguments import training_arguments
from .auxiliary import AuxiliaryHeads
from .checkpoints import average_checkpoints, check_same_network, checkpoints, set_aside
from .data import Collator, SpeechDataset, UnreadableRecordingError
from .labels import describe_unknown
from .metrics import Metrics, best_classes
from .network import check_network, make_auxiliary_heads, make_network, make_processor
from .recipe import Recipe, Source
from .selection import Example, Selection, feasible, select, tag_labels
from .sources import read_source
from .trainer import SpeechTrainer


def train(recipe: Recipe, resume: bool = False) -> dict[str, float]:
    """
    Train a model from a recipe, and save model and processor in its `output_dir`; a new adapter also separately.

    Also runs under `accelerate launch`. `Trainer` writes checkpoints according to `TrainingArguments`; the result is
    the checkpoint with the lowest character error rate on the validation data, unless the recipe averages checkpoints.
    Checkpoints of an earlier run in `output_dir` are moved into a subfolder, unless this run resumes from them.

    Args:
        recipe: the recipe.
        resume: whether to resume from the last checkpoint in `output_dir`, if there is one.

    Returns:
        The last evaluation: `eval_cer`, `eval_loss`, and `eval_<category>_accuracy` for each tag category.

    Raises:
        OSError: if data or a model cannot be found.
        ValueError: if no utterances are left to train on, the parts of the recipe do not fit together, the checkpoint
            to resume from is of another network, or a recording cannot be read.
    """
    arguments = training_arguments(recipe)
    run = _prepare(recipe, arguments.seed)
    arguments.label_names = ["labels", "tag_labels"] if run.model.config.tag_labels else ["labels"]
    output = recipe.training["output_dir"]
    found = checkpoints(output)
    last = str(found[-1]) if resume and found else None
    if last:
        check_same_network(last, run.model.config)
    else:
        _start_anew(output, arguments)
    with _feature_folder(recipe, arguments.dataloader_num_workers) as cache, _one_line_for_recordings():
        trainer = _trainer(recipe, arguments, run, cache)
        trainer.train(resume_from_checkpoint=last)
        if recipe.average_checkpoints:
            trainer.accelerator.wait_for_everyone()
            _average(run.model, checkpoints(output)[-recipe.average_checkpoints :], recipe.average_checkpoints)
        metrics = trainer.evaluate() if run.validation else {}
    trainer.save_model()
    if recipe.model.adapter is not None and is_main_process():
        run.model.save_adapter(output, recipe.model.adapter["name"], tokenizer=run.processor.tokenizer)
    if arguments.push_to_hub:
        trainer.push_to_hub()
    return metrics


@dataclass(frozen=True)
class _Run:
    """The parts of a run: the network, its processor, the selected utterances, and auxiliary heads."""

    model: CitrinetForCTC
    processor: CitrinetProcessor
    training: list[Example]
    validation: list[Example]
    heads: tuple[AuxiliaryHeads, torch.Tensor] | None


def _prepare(recipe: Recipe, seed: int) -> _Run:
    """Select the data and make the network; print what is dropped or unknown."""
    check_network(recipe)  # before reading the data
    torch.manual_seed(seed)
    training = _select(recipe, "training", recipe.data.train)
    validation = _select(recipe, "validation", recipe.data.validation) if recipe.data.validation else Selection([])
    labels = tag_labels(training.examples, recipe.data.tag_categories)
    for category in [category for category, names in labels.items() if len(names) == 1]:
        _tell(f"warning: no training utterance has a label of the tag category {category}")
    processor = make_processor(recipe, [example.text for example in training.examples])
    for name, selection in (("training", training), ("validation", validation)):
        for line in describe_unknown(processor.tokenizer, [example.text for example in selection.examples]):
            _tell(f"{name}: {line}")
    model = make_network(recipe, processor, labels)
    max_speed = recipe.data.augmentation.max_tempo
    fit = feasible(training, processor, model.config.inputs_to_logits_ratio, max_speed)
    _refuse_nothing("train on", fit)
    _tell(f"fit for CTC: {fit}")
    heads = make_auxiliary_heads(recipe, model, processor)
    return _Run(model, processor, fit.examples, validation.examples, heads)


def _trainer(recipe: Recipe, arguments: TrainingArguments, run: _Run, cache: str | None) -> SpeechTrainer:
    data, processor, labels = recipe.data, run.processor, run.model.config.tag_labels
    training = SpeechDataset(run.training, processor, labels, data.augmentation, arguments.seed, data.variants, cache)
    validation = SpeechDataset(run.validation, processor, labels, variants=1, cache=cache)
    return SpeechTrainer(
        ema_decay=recipe.ema_decay,
        auxiliary=recipe.model.auxiliary_ctc,
        heads=run.heads,
        model=run.model,
        args=arguments,
        train_dataset=training,
        eval_dataset=validation if run.validation else None,
        data_collator=Collator(processor),
        processing_class=processor,
        compute_metrics=Metrics(processor, run.validation, labels),
        preprocess_logits_for_metrics=best_classes,
    )


def is_main_process() -> bool:
    """Whether this is the process that prints, under `accelerate launch` or `torchrun`."""
    return int(os.environ.get("RANK", "0")) == 0


def _tell(line: str) -> None:
    if is_main_process():
        print(line)


def _select(recipe: Recipe, name: str, sources: list[Source]) -> Selection:
    """Select the utterances of some sources and print their number; raises an error if there are none."""
    data = recipe.data
    selection = select(
        (entry for source in sources for entry in read_source(source)),
        data.tag_categories,
        data.min_duration,
        data.max_duration,
        data.keep_tags,
        data.keep_entities,
    )
    _tell(f"{name}: {selection}")
    _refuse_nothing("train on" if name == "training" else "validate on", selection)
    return selection


def _refuse_nothing(purpose: str, selection: Selection) -> None:
    if not selection.examples:
        reasons = "; ".join(f"dropped {reason}" for reason in selection.reasons()) or "the data are empty"
        raise ValueError(f"nothing is left to {purpose} ({reasons}).")


def _start_anew(output: str, arguments: TrainingArguments) -> None:
    """Separate the checkpoints of an earlier run in `output_dir` from this one."""
    with arguments.main_process_first(local=False):
        aside = set_aside(output) if is_main_process() else None
    if aside:
        _tell(
            f"warning: {output} held checkpoints of an earlier run; they are in {aside} now "
            "(`--resume` would have gone on from the last)"
        )


@contextmanager
def _feature_folder(recipe: Recipe, workers: int) -> Iterator[str | None]:
    """Folder of cached features, which workers need because their memory is freed after each epoch; else `None`."""
    keeps = recipe.data.variants or recipe.data.validation
    if recipe.data.cache or not workers or not keeps:
        yield recipe.data.cache
        return
    output = Path(recipe.training["output_dir"])
    output.mkdir(parents=True, exist_ok=True)
    # Trainer does not upload files that start with `_`.
    with tempfile.TemporaryDirectory(dir=output, prefix="_features-") as folder:
        yield folder


@contextmanager
def _one_line_for_recordings() -> Iterator[None]:
    """Reduce a worker's error, which has its traceback in the message, to the recording and the reason."""
    try:
        yield
    except UnreadableRecordingError as error:
        line = str(error).strip().splitlines()[-1]
        reason = line.partition(f"{UnreadableRecordingError.__name__}: ")[2] or line
        raise UnreadableRecordingError(f"{reason} Mend or leave out this recording, then resume the run.") from error


def _average(model: CitrinetForCTC, folders: list[Path], wanted: int) -> None:
    """Replace the last weights by the mean of the last checkpoints."""
    fewer = "" if len(folders) == wanted else f" (the recipe asks for {wanted}; there are no more)"
    _tell(f"average of {', '.join(folder.name for folder in folders)}{fewer}")
    average_checkpoints(model, folders)
