"""Step 1: sentences with their pronunciation and speakers."""

from .build import run

__all__ = ["run"]
