"""The model that comes with the package."""

from pathlib import Path


def default_model() -> str:
    """
    Folder of the small Mandarin model that is part of the package, for `from_pretrained` and `pipeline`.

    It learned from synthetic speech and a few real speakers; its model card, `README.md` there, has its error rates.
    """
    return str(Path(__file__).parent / "mandarin_small")
