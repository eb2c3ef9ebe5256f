"""Training from recipes with Transformers' `Trainer`. Needs `pip install "citrinet[train]"`."""

try:
    from .augmentation import Augmentation
    from .recipe import DataRecipe, ModelRecipe, Recipe, TokenizerRecipe, read_recipe
    from .train import is_main_process, train
except ModuleNotFoundError as error:
    if error.name not in ("accelerate", "datasets", "jiwer", "pydantic"):
        raise
    raise ImportError(f'training needs the package {error.name}: pip install "citrinet[train]"') from error

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
