"""What a training run shall do, as a YAML file says it."""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from .augmentation import Augmentation

Source = str | dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Plain YAML in which `1e-3` is a number, as people expect; YAML 1.1 takes it for a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class DataRecipe:
    """
    Which data, and what of it.

    Args:
        train: NeMo manifests, or Hub datasets as keywords of `datasets.load_dataset` with `audio_column` and
            `text_column`.
        validation: the same; checkpoints are chosen on it.
        min_duration: seconds; shorter utterances are dropped.
        max_duration: seconds; longer ones are dropped.
        tag_categories: categories whose labels the tag heads learn, from columns of that name or from the text.
        keep_tags: whether speaker tags stay in the target of the CTC head.
        keep_entities: whether entity markers stay in it.
        augmentation: keywords of [`Augmentation`].
        variants: augmented versions of each utterance to keep; 0 makes a new one every time.
        cache: a folder to keep them in, shared by processes and later runs; in memory if not given.
    """

    train: list[Source]
    validation: list[Source] = field(default_factory=list)
    min_duration: float = 0.1
    max_duration: float = 16.0
    tag_categories: list[str] = field(default_factory=list)
    keep_tags: bool = False
    keep_entities: bool = True
    augmentation: dict[str, Any] = field(default_factory=dict)
    variants: int = 0
    cache: str | None = None


@dataclass
class ModelRecipe:
    """
    Where the network comes from. Give `pretrained` or `config`.

    Args:
        pretrained: a converted folder or Hub repository to go on from.
        config: keywords of [`CitrinetConfig`] for a new network, or changes to that of `pretrained`.
        adapter: keywords of a new adapter (`name`, `dim`, ...). With one, encoder and its batch normalisation are
            frozen, and the adapter, the CTC head and the tag heads are trained.
    """

    pretrained: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] | None = None


@dataclass
class TokenizerRecipe:
    """
    Where the tokenizer comes from; with neither, from the pretrained model.

    Args:
        pretrained: a folder or Hub repository that has one.
        train: keywords of [`train_tokenizer`] (`vocab_size`, `model_type`, ...), to make one of the training texts.
    """

    pretrained: str | None = None
    train: dict[str, Any] | None = None


@dataclass
class Recipe:
    """
    A training run.

    Args:
        data: which data.
        model: where the network comes from.
        tokenizer: where the tokenizer comes from.
        training: keywords of [`transformers.TrainingArguments`].
        average_checkpoints: how many of the last checkpoints to average in the end; 0 keeps the best one.
    """

    data: DataRecipe
    model: ModelRecipe
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    training: dict[str, Any] = field(default_factory=dict)
    average_checkpoints: int = 0


_SECTIONS = {"data": DataRecipe, "model": ModelRecipe, "tokenizer": TokenizerRecipe}


def read_recipe(path: str | Path, changes: list[str] | None = None) -> Recipe:
    """
    Read a recipe. Paths in it start at the current folder.

    Args:
        path: a YAML file with the sections `data`, `model`, `tokenizer` and `training`, see [`Recipe`].
        changes: values to put in place of the file's, such as `training.learning_rate=1e-3`.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not YAML, or holds a key that does not exist; the message lists those that do.
    """
    file = Path(path)
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)
        for change in changes or []:
            _change(content, change)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    sections = _keywords(Recipe, content, f"{file}")
    for name, kind in _SECTIONS.items():
        if name in sections:
            sections[name] = kind(**_keywords(kind, sections[name], f"{file}, section `{name}`"))
    recipe = Recipe(**sections)
    _check(recipe, file)
    return recipe


def _change(content: dict[str, Any], change: str) -> None:
    """Set `a.b=value` in the content of a recipe."""
    key, equals, value = change.partition("=")
    *sections, name = key.split(".")
    if not equals or not name:
        raise ValueError(f"{change!r} is no change of a recipe: write it like training.learning_rate=1e-3.")
    for section in sections:
        content = content.setdefault(section, {})
    content[name] = yaml.load(value, _Loader)


def _keywords(kind: type, values: Any, place: str) -> dict[str, Any]:
    known = [entry.name for entry in fields(kind)]
    required = [name for name in ("data", "model", "train") if name in known and kind is not TokenizerRecipe]
    if not isinstance(values, dict):
        raise ValueError(f"{place}: expected the keys {known}.")
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{place}: unknown keys {unknown}; there are {known}.")
    if missing := sorted(set(required) - set(values)):
        raise ValueError(f"{place}: missing keys {missing}.")
    return values


def _check(recipe: Recipe, file: Path) -> None:
    if not recipe.model.pretrained and not recipe.model.config:
        raise ValueError(f"{file}, section `model`: give `pretrained` or `config`.")
    if not recipe.model.pretrained and not (recipe.tokenizer.pretrained or recipe.tokenizer.train):
        raise ValueError(f"{file}, section `tokenizer`: a new network needs `pretrained` or `train`.")
    if recipe.model.adapter is not None and not recipe.model.pretrained:
        raise ValueError(f"{file}, section `model`: an adapter needs a `pretrained` network to adapt.")
    if "output_dir" not in recipe.training:
        raise ValueError(f"{file}, section `training`: give `output_dir`.")
    augmentation = [entry.name for entry in fields(Augmentation)]
    if unknown := sorted(set(recipe.data.augmentation) - set(augmentation)):
        raise ValueError(f"{file}, `data.augmentation`: unknown keys {unknown}; there are {augmentation}.")
