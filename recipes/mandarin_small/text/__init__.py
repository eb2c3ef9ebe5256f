"""Step 1: sentences, how they are pronounced, and who says them."""

from .build import run

__all__ = ["run"]
