"""Settings of the documentation site; `python -m sphinx -W --keep-going docs build/docs` builds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `site_extension`

import citrinet

project = "citrinet"
version = release = citrinet.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "site_extension",
]

html_theme = "furo"
html_title = f"citrinet {version}"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False

highlight_language = "none"  # of blocks that name none
smartquotes_action = "D"  # dashes; quotes stay as they are written
myst_heading_anchors = 3  # `page.md#a-heading`, as on GitHub

autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
