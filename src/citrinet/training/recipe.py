"""Recipes: training runs described by YAML files."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BeforeValidator, Field

from .augmentation import Augmentation

Source = str | dict[str, Any]
Item = TypeVar("Item")
# A single value where a list is expected becomes a list of one; a string is not a list of letters.
ListOf = Annotated[list[Item], BeforeValidator(lambda value: [value] if isinstance(value, (str, dict)) else value)]
Category = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class _Loader(yaml.SafeLoader):
    """Safe YAML loader that reads `1e-3` as a number; in YAML 1.1 it is a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class DataRecipe:
    """
    The section `data` of a recipe: data, their selection and augmentation.

    Args:
        train: NeMo manifests, or datasets as keywords of `datasets.load_dataset` with `audio_column` and `text_column`.
        validation: the same, for the choice of the best checkpoint.
        min_duration: seconds; shorter utterances are dropped. Like `max_duration`, it refers to the recording before
            any change of speed.
        max_duration: seconds; longer utterances are dropped.
        tag_categories: categories whose labels the tag heads learn, from columns of that name or from the text.
        keep_tags: whether to keep speaker tags in the target of the CTC head.
        keep_entities: whether to keep entity markers in it.
        augmentation: augmentation of the waveforms in training.
        variants: number of augmented versions of each utterance to cache; 0 makes a new one every time.
        cache: folder of the cache, shared by processes and later runs. By default it lasts for one run: in memory, or
            with `training.dataloader_num_workers` in a temporary folder.
    """

    train: ListOf[Source]
    validation: ListOf[Source] = field(default_factory=list)
    min_duration: Annotated[float, Field(ge=0)] = 0.1
    max_duration: Annotated[float, Field(gt=0)] = 16.0
    tag_categories: ListOf[Category] = field(default_factory=list)
    keep_tags: bool = False
    keep_entities: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    variants: Annotated[int, Field(ge=0)] = 0
    cache: str | None = None


@dataclass
class AuxiliaryRecipe:
    """
    Auxiliary CTC heads on intermediate blocks, which are dropped after training.

    Args:
        blocks: indices of the blocks, from 0 as in the lists of [`CitrinetConfig`].
        weight: weight of the mean of their losses, added to the CTC loss, at the start of training.
        final_weight: weight at the end of training, by default the same; in between it changes linearly.
        units: JSON file, token -> coarser unit such as character -> syllable, for the heads to predict; tokens that are
            not in it are left out. By default the heads predict tokens.
    """

    blocks: list[int]
    weight: Annotated[float, Field(ge=0)] = 0.5
    final_weight: Annotated[float, Field(ge=0)] | None = None
    units: str | None = None

    def weight_at(self, progress: float) -> float:
        """The weight after a fraction `progress` of training, from 0 to 1."""
        final = self.weight if self.final_weight is None else self.final_weight
        return self.weight + (final - self.weight) * progress


@dataclass
class ModelRecipe:
    """
    The section `model` of a recipe: the network. Give `pretrained` or `config`.

    Args:
        pretrained: converted folder or Hub repository to fine-tune.
        config: keywords of [`CitrinetConfig`] for a new network, or changes to the configuration of `pretrained`.
        adapter: keywords of a new adapter (`name`, `dim`, ...). With one, the encoder and its batch normalisation are
            frozen, and the adapter, the CTC head and the tag heads are trained.
        frame_ms: milliseconds for each frame of logits, such as 40: the last strides of the network are removed to get
            it. By default the strides do not change.
        auxiliary_ctc: auxiliary CTC heads for training.
    """

    pretrained: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] | None = None
    frame_ms: Annotated[float, Field(gt=0)] | None = None
    auxiliary_ctc: AuxiliaryRecipe | None = None


@dataclass
class TokenizerRecipe:
    """
    The section `tokenizer` of a recipe; by default the tokenizer of the pretrained model.

    Args:
        pretrained: folder or Hub repository with a tokenizer.
        train: keywords of [`train_tokenizer`] (`vocab_size`, `model_type`, ...), to train one on the training texts.
    """

    pretrained: str | None = None
    train: dict[str, Any] | None = None


@dataclass
class Recipe:
    """
    A training run.

    Args:
        data: data to train and validate on.
        model: the network.
        tokenizer: the tokenizer.
        training: keywords of [`transformers.TrainingArguments`].
        average_checkpoints: number of last checkpoints to average at the end; 0 keeps the best checkpoint.
        ema_decay: decay per step of an exponential moving average of the weights, such as 0.999, which is used in
            evaluations and checkpoints; 0 for no average.
    """

    data: DataRecipe
    model: ModelRecipe
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    training: dict[str, Any] = field(default_factory=dict)
    average_checkpoints: Annotated[int, Field(ge=0)] = 0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0


def read_recipe(path: str | Path, changes: list[str] | None = None) -> Recipe:
    """
    Read a recipe. Paths in it are relative to the current folder.

    Args:
        path: YAML file with the sections `data`, `model`, `tokenizer` and `training`, see [`Recipe`].
        changes: values that replace those of the file, such as `training.learning_rate=1e-3`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not YAML, or a key is unknown, missing, or has a value of a wrong type; the message names
            file, section and key, and says what is expected.
    """
    from .recipe_check import check_content

    file = Path(path)
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), _Loader)
        for change in changes or []:
            _change(content, change)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not YAML: it is no text in UTF-8.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    recipe = check_content(content, str(file))
    _check(recipe, file)
    return recipe


def _change(content: Any, change: str) -> None:
    """Apply a change `a.b=value` to the content of a recipe."""
    key, equals, value = change.partition("=")
    *sections, name = key.split(".")
    if not equals or not all((*sections, name)):
        raise ValueError(f"{change!r} is no change of a recipe: write it like training.learning_rate=1e-3.")
    try:
        parsed = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{change!r} is no change of a recipe: the value is not YAML.") from error
    for section in sections:
        if isinstance(content, dict) and content.get(section) is None:
            content[section] = {}
        content = content[section] if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise ValueError(f"{change!r} is no change of this recipe: {'.'.join(sections) or 'it'} has no keys.")
    content[name] = parsed


def _check(recipe: Recipe, file: Path) -> None:
    """Check conditions that involve several keys."""
    data, model = recipe.data, recipe.model
    if not data.train:
        raise ValueError(f"{file}, section `data`: `train` names no manifest or dataset.")
    if data.min_duration > data.max_duration:
        raise ValueError(f"{file}, section `data`: `min_duration` is above `max_duration`, which drops everything.")
    if not model.pretrained and not model.config:
        raise ValueError(f"{file}, section `model`: give `pretrained` or `config`.")
    if not model.pretrained and not (recipe.tokenizer.pretrained or recipe.tokenizer.train):
        raise ValueError(f"{file}, section `tokenizer`: a new network needs `pretrained` or `train`.")
    if recipe.tokenizer.pretrained and recipe.tokenizer.train is not None:
        raise ValueError(f"{file}, section `tokenizer`: give `pretrained` or `train`, not both.")
    if model.adapter is not None and not model.pretrained:
        raise ValueError(f"{file}, section `model`: an adapter needs a `pretrained` network to adapt.")
    if recipe.average_checkpoints and recipe.ema_decay:
        raise ValueError(f"{file}: give `average_checkpoints` or `ema_decay`, not both.")
    if not recipe.training.get("output_dir"):
        raise ValueError(f"{file}, section `training`: give `output_dir`.")
