"""Recipes, data, augmentation, and Transformers' `Trainer` round them. Needs `pip install "citrinet[train]"`."""

from .augmentation import Augmentation
from .recipe import DataRecipe, ModelRecipe, Recipe, TokenizerRecipe, read_recipe
from .train import is_main_process, train

__all__ = [
    "Augmentation",
    "DataRecipe",
    "ModelRecipe",
    "Recipe",
    "TokenizerRecipe",
    "is_main_process",
    "read_recipe",
    "train",
]
