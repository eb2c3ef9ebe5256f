"""Only this folder's tests need Transformers' markers, which `--strict-markers` would otherwise refuse."""

from .sdist import markers


def pytest_configure(config):
    for marker in markers():
        config.addinivalue_line("markers", f"{marker}: of Transformers' own tests")
