"""Recipes: every mistake in one line before any work, and what follows from what a recipe says."""

import inspect
from typing import get_type_hints

import pytest
import yaml

from citrinet import CitrinetConfig
from citrinet.cli import _parser, main
from citrinet.training import Augmentation, read_recipe
from citrinet.training.arguments import training_arguments
from citrinet.training.recipe_check import NetworkKeywords

RECIPE = {
    "data": {"train": ["train.jsonl"], "validation": ["valid.jsonl"]},
    "model": {"pretrained": "base"},
    "training": {"output_dir": "out", "use_cpu": True},
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return path


# What is wrong: the section and the key, what is expected, a key that is meant perhaps
@pytest.mark.parametrize(
    ("change", "place", "expected"),
    [
        # keys that do not exist
        ("dta={}", "unknown key `dta`", "did you mean `data`?"),
        ("data.validaton=[a]", "section `data`: unknown key `validaton`", "did you mean `validation`?"),
        ("data.augmentation.speed=[1.0]", "section `data.augmentation`: unknown key `speed`", "`speeds`"),
        ("model.adaptor={name: a, dim: 8}", "section `model`: unknown key `adaptor`", "`adapter`"),
        ("model.adapter={name: a, dim: 8, activatoin: relu}", "section `model.adapter`", "`activation`"),
        ("model.auxiliary_ctc={blocks: [2], final: 1}", "section `model.auxiliary_ctc`: unknown key `final`", "final_weight"),
        ("data.augmentation.pitches=[1, 1]", "section `data.augmentation`: unknown key `pitches`", "`pitch`"),
        ("emadecay=0.9", "unknown key `emadecay`", "did you mean `ema_decay`?"),
        ("model.config={freq_mask: 1}", "section `model.config`: unknown key `freq_mask`", "`freq_masks`"),
        ("model.config={tag_labels: {}}", "section `model.config`: unknown key `tag_labels`", "there are num_mel_bins"),
        ("tokenizer={trian: {vocab_size: 9}}", "section `tokenizer`: unknown key `trian`", "`train`"),
        ("tokenizer.train={vocabsize: 9}", "section `tokenizer.train`: unknown key `vocabsize`", "`vocab_size`"),
        ("training.warmup=3", "section `training`: unknown key `warmup`", "transformers.TrainingArguments"),
        ("training.num_epochs=3", "section `training`: unknown key `num_epochs`", "`num_train_epochs`"),
        # keys that are missing
        ("data={validation: [a]}", "section `data`", "the key `train` is missing"),
        ("model.adapter={dim: 8}", "section `model.adapter`", "the key `name` is missing"),
        ("model.auxiliary_ctc={weight: 1}", "section `model.auxiliary_ctc`", "the key `blocks` is missing"),
        ("tokenizer.train={model_type: char}", "section `tokenizer.train`", "the key `vocab_size` is missing"),
        # values of a wrong type
        ("data.train=7", "`data.train`", "a list, not 7"),
        ("data.train=[[a]]", "`data.train.0`", "a text or keys with values"),
        ("data.max_duration=long", "`data.max_duration`", "a number, not \"long\""),
        ("data.keep_entities=some", "`data.keep_entities`", "true or false"),
        ("data.variants=1.5", "`data.variants`", "a whole number"),
        ("data.variants=-1", "`data.variants`", "greater than or equal to 0"),
        ("data.cache=[a]", "`data.cache`", "a text"),
        ("data.tag_categories=[AGE, 3]", "`data.tag_categories.1`", "a text"),
        ("data.tag_categories='AGE, GENDER'", "`data.tag_categories.0`", "letters, digits"),
        ("data.augmentation.speeds=fast", "`data.augmentation.speeds`", "a list"),
        ("data.augmentation.noise_snr_db=[5]", "`data.augmentation.noise_snr_db", ""),
        ("data.augmentation.speeds=[-1.0]", "`data.augmentation`", "positive factors"),
        ("data.augmentation.pitch=[0.9]", "`data.augmentation.pitch", ""),
        ("data.augmentation.pitch=1.1", "`data.augmentation.pitch`", "a list"),
        ("data.augmentation.formants=[1.1, 0.9]", "`data.augmentation`", "`formants` must be a range of factors"),
        ("data.augmentation.tempo=[0.1, 1]", "`data.augmentation`", "from 0.5 to 2.0"),
        ("data.augmentation.voice_probability=2", "`data.augmentation.voice_probability`", "less than or equal to 1"),
        ("data=train.jsonl", "`data`", "keys with values"),
        ("model.pretrained=1", "`model.pretrained`", "a text"),
        ("model.adapter={name: a, dim: large}", "`model.adapter.dim`", "a whole number"),
        ("model.adapter={name: a, dim: 8, norm_position: after}", "`model.adapter.norm_position`", "'pre' or 'post'"),
        ("model.adapter={name: a, dim: 8, activation: tanhh}", "`model.adapter.activation`", "no activation 'tanhh'"),
        ("model.adapter={name: a, dim: 0}", "`model.adapter.dim`", "greater than 0"),
        ("model.frame_ms=short", "`model.frame_ms`", "a number"),
        ("model.frame_ms=0", "`model.frame_ms`", "greater than 0"),
        ("model.auxiliary_ctc=[2]", "`model.auxiliary_ctc`", "keys with values"),
        ("model.auxiliary_ctc={blocks: 2}", "`model.auxiliary_ctc.blocks`", "a list"),
        ("model.auxiliary_ctc={blocks: [a]}", "`model.auxiliary_ctc.blocks.0`", "a whole number"),
        ("model.auxiliary_ctc={blocks: [2], weight: -1}", "`model.auxiliary_ctc.weight`", "greater than or equal to 0"),
        ("model.auxiliary_ctc={blocks: [2], final_weight: low}", "`model.auxiliary_ctc.final_weight`", "a number"),
        ("model.auxiliary_ctc={blocks: [2], units: 3}", "`model.auxiliary_ctc.units`", "a text"),
        ("model.adapter=mandarin", "`model.adapter`", "keys with values"),
        ("model.config={kernel_sizes: [3, x]}", "`model.config.kernel_sizes.1`", "a whole number"),
        ("model.config={ctc_loss_reduction: none}", "`model.config.ctc_loss_reduction`", "'mean'"),
        ("tokenizer.train={vocab_size: many}", "`tokenizer.train.vocab_size`", "a whole number"),
        ("tokenizer.train={vocab_size: 9, add_dummy_prefix: 1}", "`tokenizer.train.add_dummy_prefix`", "true or false"),
        ("tokenizer=char", "`tokenizer`", "keys with values"),
        ("training.max_steps=many", "`training.max_steps`", "a whole number, not \"many\""),
        ("training.learning_rate=1e-3x", "`training.learning_rate`", "a number"),
        ("training.fp16=1", "`training.fp16`", "true or false"),
        ("training.save_total_limit=all", "`training.save_total_limit`", "a whole number"),
        ("training=[a]", "`training`", "keys with values"),
        ("average_checkpoints=last", "`average_checkpoints`", "a whole number"),
        ("ema_decay=1", "`ema_decay`", "less than 1"),
        ("ema_decay=slow", "`ema_decay`", "a number"),
        # values that do not go together
        ("data.train=[]", "section `data`", "names no manifest"),
        ("data.min_duration=20", "section `data`", "above `max_duration`"),
        ("training.output_dir=", "section `training`", "give `output_dir`"),
        ("tokenizer={pretrained: a, train: {vocab_size: 9}}", "section `tokenizer`", "not both"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_file_section_and_key(recipe, change, place, expected):
    with pytest.raises(ValueError) as caught:
        read_recipe(recipe, [change])
    message = str(caught.value)
    assert message.startswith(str(recipe)) and place in message and expected in message
    assert "\n" not in message and "pydantic" not in message


@pytest.mark.parametrize("change", ["training.output_dir.x=1", "data.train.0=a", "=1", "data..train=a", "data.train=["])
def test_a_change_that_is_none(recipe, change):
    with pytest.raises(ValueError, match="is no change of"):
        read_recipe(recipe, [change])


@pytest.mark.parametrize("content", [b"", b"- a\n", b"text", b"a: [", b"\xff\xfe\x00"])
def test_a_file_that_is_no_recipe(tmp_path, content, capsys):
    (tmp_path / "r.yaml").write_bytes(content)
    assert main(["train", str(tmp_path / "r.yaml")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "r.yaml" in lines[0]


def test_one_thing_is_a_list_of_one(recipe):
    read = read_recipe(recipe, ["data.train=a.jsonl", "data.validation={path: d}", "data.tag_categories=GENDER"])
    assert read.data.train == ["a.jsonl"] and read.data.validation == [{"path": "d"}]
    assert read.data.tag_categories == ["GENDER"]


def test_values_become_what_they_are(recipe):
    read = read_recipe(recipe, ["data.augmentation={speeds: [0.9, 1]}", "training.learning_rate=1", "training.seed=7"])
    assert read.data.augmentation == Augmentation(speeds=(0.9, 1.0))
    assert (read.training["learning_rate"], read.training["seed"]) == (1, 7)


def test_the_checked_keys_are_those_of_the_configuration():
    parameters = inspect.signature(CitrinetConfig.__init__).parameters
    others = {"self", "kwargs", "vocab_size", "pad_token_id", "tag_labels", "adapters"}  # made of other sections
    others.add("confidence_temperature")  # found after training
    assert get_type_hints(NetworkKeywords).keys() == parameters.keys() - others


@pytest.mark.parametrize(
    "words",
    [
        ["R", "a.b=1", "c.d=2", "--resume"],
        ["R", "--resume", "a.b=1", "c.d=2"],
        ["--resume", "R", "a.b=1", "c.d=2"],
        ["R", "a.b=1", "--resume", "c.d=2"],
    ],
)
def test_resume_may_stand_anywhere(words):
    options = _parser().parse_args(["train", *words])
    assert (options.recipe, options.changes, options.resume) == ("R", ["a.b=1", "c.d=2"], True)
    assert not _parser().parse_args(["train", "R"]).resume


def test_words_that_are_wrong_are_still_refused(capsys):
    for words in ([], ["--resume"], ["R", "--resum", "--nosuch"]):
        with pytest.raises(SystemExit):
            _parser().parse_args(["train", *words])


# When it is evaluated and saved


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ("epoch", "epoch", None, 500, True)),
        (["eval_steps=3"], ("steps", "steps", 3, 3, True)),
        (["eval_strategy=steps", "eval_steps=3"], ("steps", "steps", 3, 3, True)),
        (["eval_strategy=steps"], ("steps", "steps", 500, 500, True)),
        (["eval_strategy=steps", "logging_steps=7"], ("steps", "steps", 7, 7, True)),
        (["save_steps=40"], ("steps", "steps", 40, 40, True)),
        (["save_strategy=steps", "save_steps=40"], ("steps", "steps", 40, 40, True)),
        (["eval_steps=0.25"], ("steps", "steps", 0.25, 0.25, True)),
        (["save_strategy=best", "eval_steps=3"], ("steps", "best", 3, 3, True)),
        (["save_strategy=no"], ("epoch", "no", None, 500, False)),
        (["eval_strategy=no"], ("no", "epoch", None, 500, False)),
        (["save_strategy=epoch", "eval_strategy=steps", "load_best_model_at_end=false"], ("steps", "epoch", 500, 500, False)),
        (["eval_steps=2", "save_steps=4", "load_best_model_at_end=false"], ("steps", "steps", 2, 4, False)),
    ],
)  # fmt: skip
def test_every_evaluation_has_a_checkpoint(recipe, given, expected):
    arguments = training_arguments(read_recipe(recipe, [f"training.{change}" for change in given]))
    found = (arguments.eval_strategy, arguments.save_strategy, arguments.eval_steps, arguments.save_steps)
    assert (*found, arguments.load_best_model_at_end) == expected
    assert arguments.metric_for_best_model == "cer" and arguments.greater_is_better is False


@pytest.mark.parametrize("pins", [True, False])
def test_batches_in_pinned_memory_are_copied_without_waiting(recipe, pins):
    arguments = training_arguments(read_recipe(recipe, [f"training.dataloader_pin_memory={str(pins).lower()}"]))
    assert arguments.accelerator_config.non_blocking is pins


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["training.eval_steps=2", "training.save_steps=4"], "`training.save_steps` is 4 and `training.eval_steps` 2"),
        (["training.eval_steps=2", "training.save_strategy=epoch"], "`training.save_strategy` is epoch"),
        (["data.validation=[]", "training.eval_strategy=epoch"], "needs `data.validation`"),
        (["average_checkpoints=3", "training.save_total_limit=2"], "`training.save_total_limit` keeps 2"),
        (["average_checkpoints=3", "training.save_strategy=no"], "needs checkpoints"),
        (["training.lr_scheduler_type=nosuch"], "nosuch"),
        (["training.metric_for_best_model=wer"], "there are cer, loss"),
        (["training.metric_for_best_model=AGE_accuracy", "data.tag_categories=GENDER"], "GENDER_accuracy"),
        (["training.prediction_loss_only=true"], "no transcripts"),
    ],
)
def test_what_cannot_keep_the_best_is_refused(recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        training_arguments(read_recipe(recipe, changes))


def test_without_validation_checkpoints_follow_what_is_said_of_them(recipe):
    for given, expected in (([], "epoch"), (["training.save_steps=5"], "steps"), (["training.save_strategy=no"], "no")):
        arguments = training_arguments(read_recipe(recipe, ["data.validation=[]", *given]))
        assert (arguments.save_strategy, arguments.eval_strategy) == (expected, "no")
        assert not arguments.load_best_model_at_end


def test_another_metric_says_itself_which_way_is_better(recipe):
    for metric, greater in (("GENDER_accuracy", True), ("loss", False), ("eval_cer", False)):
        arguments = training_arguments(
            read_recipe(recipe, [f"training.metric_for_best_model={metric}", "data.tag_categories=GENDER"])
        )
        assert arguments.greater_is_better is greater


def test_two_ways_to_average_are_one_too_many(recipe):
    with pytest.raises(ValueError, match="give `average_checkpoints` or `ema_decay`, not both"):
        read_recipe(recipe, ["average_checkpoints=3", "ema_decay=0.99"])


def test_the_auxiliary_weight_falls_in_a_straight_line(recipe):
    auxiliary = "model.auxiliary_ctc={blocks: [2, 5], weight: 0.5, final_weight: 0.1}"
    falling = read_recipe(recipe, [auxiliary]).model.auxiliary_ctc
    assert [falling.weight_at(part) for part in (0, 0.25, 1)] == pytest.approx([0.5, 0.4, 0.1])
    constant = read_recipe(recipe, ["model.auxiliary_ctc={blocks: [2]}"]).model.auxiliary_ctc
    assert constant.weight_at(0) == constant.weight_at(1) == 0.5
