"""From a recipe to the arguments of Transformers' `Trainer`."""

from typing import Any

from transformers import TrainingArguments

from .recipe import Recipe


def training_arguments(recipe: Recipe) -> TrainingArguments:
    """
    Make [`transformers.TrainingArguments`] from a recipe, with defaults that keep the best checkpoint.

    Keeping the best checkpoint needs one for every evaluation, so if the recipe sets only when to save or only when to
    evaluate, the same is used for the other.

    Args:
        recipe: the recipe.

    Raises:
        ValueError: for values that contradict each other.
    """
    given = recipe.training
    defaults: dict[str, Any] = {
        "remove_unused_columns": False,
        "report_to": "none",
        "lr_scheduler_type": "cosine",
        "metric_for_best_model": "cer",
        # The CPU prepares a step while the GPU works on the one before: it reads no loss, and waits for no copy.
        "logging_nan_inf_filter": False,
        "accelerator_config": {"non_blocking": given.get("dataloader_pin_memory", True)},
    }
    if given.get("metric_for_best_model", "cer").removeprefix("eval_") == "cer":
        defaults["greater_is_better"] = False
    arguments = TrainingArguments(**{**defaults, **_schedule(recipe), **given})
    _check_averaging(recipe, arguments)
    if recipe.data.validation:
        _check_metric(recipe, arguments)
    return arguments


def _schedule(recipe: Recipe) -> dict[str, Any]:
    """Defaults for when to evaluate and save; raises an error for settings that cannot keep the best checkpoint."""
    given = recipe.training
    if not recipe.data.validation:
        if given.get("eval_strategy", "no") != "no":
            raise ValueError("`training.eval_strategy` needs `data.validation`, which names nothing.")
        return {"save_strategy": "steps" if "save_steps" in given else "epoch"}
    saves = given.get("save_strategy")
    evaluates = given.get("eval_strategy")
    if evaluates is None and saves in ("steps", "epoch") and "eval_steps" not in given:
        evaluates = saves
    elif evaluates is None:
        evaluates = "steps" if {"eval_steps", "save_steps"} & given.keys() else "epoch"
    keeps_best = evaluates != "no" and saves != "no" and not recipe.average_checkpoints
    schedule: dict[str, Any] = {
        "eval_strategy": evaluates,
        "save_strategy": "epoch" if evaluates == "no" else evaluates,
        "load_best_model_at_end": keeps_best,
    }
    if evaluates == "steps":
        steps = given.get("eval_steps", given.get("save_steps", given.get("logging_steps", 500)))
        schedule |= {"eval_steps": steps, "save_steps": steps}
    if given.get("load_best_model_at_end", keeps_best) and saves != "best":
        _check_every_evaluation_is_saved({**schedule, **given})
    return schedule


def _check_every_evaluation_is_saved(values: dict[str, Any]) -> None:
    pairs = [("save_strategy", "eval_strategy")]
    pairs += [("save_steps", "eval_steps")] if values["eval_strategy"] == "steps" else []
    for saved, evaluated in pairs:
        if values[saved] != values[evaluated]:
            raise ValueError(
                f"`training.{saved}` is {values[saved]} and `training.{evaluated}` {values[evaluated]}: the best "
                "checkpoint is kept only if each evaluation has one. Make them equal, leave one out, or set "
                "`training.load_best_model_at_end=false` to keep the last."
            )


def _check_averaging(recipe: Recipe, arguments: TrainingArguments) -> None:
    wanted, limit = recipe.average_checkpoints, arguments.save_total_limit
    if wanted and arguments.save_strategy == "no":
        raise ValueError("`average_checkpoints` needs checkpoints, and `training.save_strategy` is no.")
    if wanted and limit is not None and limit < wanted:
        raise ValueError(
            f"`average_checkpoints` is {wanted}, and `training.save_total_limit` keeps {limit}: make the limit as "
            "large."
        )


def _check_metric(recipe: Recipe, arguments: TrainingArguments) -> None:
    for name in ("prediction_loss_only", "batch_eval_metrics"):
        if getattr(arguments, name):
            raise ValueError(f"`training.{name}` leaves no transcripts to count errors in: take it out.")
    known = ["cer", "loss", *(f"{category}_accuracy" for category in recipe.data.tag_categories)]
    if (arguments.metric_for_best_model or "").removeprefix("eval_") not in known:
        raise ValueError(
            f"`training.metric_for_best_model` is {arguments.metric_for_best_model}; there are {', '.join(known)}."
        )
