"""Training: recipes, data, augmentation, and Transformers' `Trainer` round them. Needs `pip install "citrinet[train]"`."""

from .augmentation import Augmentation
from .recipe import DataRecipe, ModelRecipe, Recipe, TokenizerRecipe, read_recipe
from .train import train

__all__ = ["Augmentation", "DataRecipe", "ModelRecipe", "Recipe", "TokenizerRecipe", "read_recipe", "train"]
