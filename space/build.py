"""
Make the folder of a Hugging Face Space: this folder, the package and the example clips.

    python space/build.py FOLDER
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(folder: Path) -> None:
    """
    Write the folder.

    Raises:
        FileExistsError: if the folder exists.
    """
    ignored = shutil.ignore_patterns("__pycache__", "build.py", "browser")
    shutil.copytree(ROOT / "space", folder, ignore=ignored)
    shutil.copytree(ROOT / "src" / "citrinet", folder / "citrinet", ignore=ignored)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=ignored)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
