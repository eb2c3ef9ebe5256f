"""Check that the keys of a recipe exist and that values have the right type, with one-line errors."""

import difflib
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from transformers import TrainingArguments
from transformers.activations import ACT2FN
from typing_extensions import Required, TypedDict

from ..tokenizer.training import train_tokenizer
from .augmentation import Augmentation
from .recipe import AuxiliaryRecipe, DataRecipe, ModelRecipe, Recipe, TokenizerRecipe

_CONFIG = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
SHOWN = 80  # characters of a wrong value to show
# The types of pydantic's errors, and what is expected instead, in the words of a recipe.
_MISSING = ("missing", "missing_argument")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "keys with values",
    "dict_type": "keys with values",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "keys with values",
    "sequence_type": "a list",
    "string_pattern_mismatch": "letters, digits, '_' and '-'",
    "string_type": "a text",
    "tuple_type": "a list",
    "too_long": "a shorter list",
    "too_short": "a longer list",
}


def _known_activation(name: str) -> str:
    if name not in ACT2FN:
        raise ValueError(f"there is no activation {name!r}; there are {', '.join(sorted(ACT2FN))}.")
    return name


Activation = Annotated[str, AfterValidator(_known_activation)]


class NetworkKeywords(TypedDict, total=False):
    """Keywords of [`CitrinetConfig`], without those that the tokenizer and the data determine."""

    num_mel_bins: int
    hop_length: int
    hidden_sizes: list[int]
    num_repeats: list[int]
    kernel_sizes: list[int]
    strides: list[int]
    residuals: list[bool]
    dropouts: list[float]
    hidden_act: Activation
    se_reduction_ratio: int
    se_context_size: int
    ctc_loss_reduction: Literal["mean_batch", "mean", "sum"]
    ctc_zero_infinity: bool
    tag_loss_weight: float
    freq_masks: int
    freq_width: int
    time_masks: int
    time_width: int | float


class AdapterKeywords(TypedDict, total=False):
    """Keywords of an adapter in [`CitrinetConfig`]."""

    name: Required[str]
    dim: Required[Annotated[int, Field(gt=0)]]
    activation: Activation
    norm_position: Literal["pre", "post"]
    dropout: Annotated[float, Field(ge=0, lt=1)]


def _typed_dict(name: str, types: dict[str, Any]) -> Any:
    """Make a `TypedDict` whose keys are known only at run time, none required."""
    make: Any = TypedDict
    return make(name, types, total=False)


def _keywords(function: Callable[..., Any], leave_out: tuple[str, ...]) -> Any:
    """The keywords of a function as a `TypedDict`."""
    hints = get_type_hints(function)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", *leave_out)]
    types = {p.name: Required[hints[p.name]] if p.default is p.empty else hints[p.name] for p in parameters}
    return _typed_dict("Keywords", types)


# Sections that are keywords of a class or function, and sections that are dataclasses of this package.
_KEYWORDS: dict[tuple[str, ...], Any] = {
    ("model", "config"): NetworkKeywords,
    ("model", "adapter"): AdapterKeywords,
    ("tokenizer", "train"): _keywords(train_tokenizer, leave_out=("texts",)),
    ("training",): _typed_dict("TrainingKeywords", get_type_hints(TrainingArguments)),
}
_SECTIONS: dict[tuple[str, ...], Any] = {
    (): Recipe,
    ("data",): DataRecipe,
    ("data", "augmentation"): Augmentation,
    ("model",): ModelRecipe,
    ("model", "auxiliary_ctc"): AuxiliaryRecipe,
    ("tokenizer",): TokenizerRecipe,
    **_KEYWORDS,
}
for _kind in _SECTIONS.values():
    with_config(_CONFIG)(_kind)


def check_content(content: Any, file: str) -> Recipe:
    """
    Make a recipe from the content of a YAML file.

    Args:
        content: the parsed content.
        file: name of the file, for error messages.

    Raises:
        ValueError: if a key is unknown, missing, or has a value of a wrong type.
    """
    content = _with_strategies_that_are_off(content)
    recipe: Recipe = _validate(Recipe, content, (), file)
    for section, kind in _KEYWORDS.items():
        values = content
        for name in section:
            values = values.get(name) if values else None
        if values is not None:
            _validate(kind, values, section, file)
    return recipe


def _with_strategies_that_are_off(content: Any) -> Any:
    """Turn false into `no` in strategies: YAML reads Transformers' value `no` as false."""
    training = content.get("training") if isinstance(content, dict) else None
    if isinstance(training, dict):
        for name in [name for name in training if str(name).endswith("_strategy") and training[name] is False]:
            training[name] = "no"
    return content


def _validate(kind: Any, values: Any, section: tuple[str, ...], file: str) -> Any:
    # As JSON, where a list is accepted for a tuple; all else is strict.
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise ValueError(_explain(error, values, section, file)) from error


def _explain(error: ValidationError, values: Any, section: tuple[str, ...], file: str) -> str:
    """Describe the first mistake in one line, unknown keys before all others."""
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] not in _UNKNOWN)
    first = problems[0]
    if first["type"] in _UNKNOWN or first["type"] in _MISSING:
        *inside, key = (str(part) for part in (*section, *first["loc"]))
        where = f"{file}, section `{'.'.join(inside)}`" if inside else file
        if first["type"] in _MISSING:
            return f"{where}: the key `{key}` is missing."
        return f"{where}: unknown key `{key}`{_known_keys(key, tuple(inside))}."
    place = _place(first["loc"], values)
    name = ".".join(map(str, (*section, *place)))
    what = f"{file}: `{name}`" if name else file
    given = json.dumps(first["input"], ensure_ascii=False, default=str)
    given = given if len(given) < SHOWN else f"{given[:SHOWN]}..."
    if first["type"] == "value_error":  # raised by a class of this package
        return f"{what}: {first['ctx']['error']}"
    expected = dict.fromkeys(_expectation(p) for p in problems if _place(p["loc"], values) == place)
    return f"{what} should be {' or '.join(expected)}, not {given}."


def _known_keys(key: str, section: tuple[str, ...]) -> str:
    keys = list(get_type_hints(_SECTIONS[section])) if section in _SECTIONS else []
    close = difflib.get_close_matches(key, keys, n=1)
    question = f"; did you mean `{close[0]}`? There are " if close else "; there are "
    if section == ("training",):
        return f"{question}those of transformers.TrainingArguments"
    return f"{question}{', '.join(keys)}" if keys else ""


def _place(location: tuple[int | str, ...], values: Any) -> tuple[int | str, ...]:
    """The part of pydantic's location that exists in the recipe; pydantic adds the alternatives of a type."""
    place: list[int | str] = []
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            continue
        place.append(part)
    return tuple(place)


def _expectation(problem: Any) -> str:
    """The value that a key expects, in plain words if known, otherwise in pydantic's."""
    message: str = problem["msg"]
    return _EXPECTED.get(problem["type"], message.removeprefix("Input should be "))
