"""The model that comes with the package."""

from pathlib import Path


def default_model() -> str:
    """
    Folder of the small Mandarin model that is part of the package, for `from_pretrained` and `pipeline`.

    It is small, trained on little speech, and says in its model card (`README.md` there) how well it does.
    """
    return str(Path(__file__).parent / "mandarin_small")
