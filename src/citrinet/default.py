"""The model that comes with the package."""

from pathlib import Path


def default_model() -> str:
    """
    Path of the small Mandarin model that is part of the package, for `from_pretrained` and `pipeline`.

    It was trained on synthetic speech and a few real speakers. Its model card, `README.md` in that folder, gives its
    error rates.
    """
    return str(Path(__file__).parent / "mandarin_small")
