"""
What the site needs beside Sphinx and MyST.

Pages link to what is outside `docs/`. Docstrings are Markdown, as in Transformers, and autodoc wants reStructuredText.
The command line is described by its parsers. Sphinx's search takes a run of Chinese for one word.
"""

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
# [`Name`], `code`, or what is reStructuredText already: napoleon writes some.
_CODE = re.compile(r"\[`(?P<name>[^`]+)`\]|:[\w:]+:`[^`]+`|``[^`]+``|`(?P<code>[^`]+)`")
_CHINESE = r"\u3400-\u9fff"


class OutsideLinks(SphinxPostTransform):
    """Links to pages and folders outside `docs/`, such as model cards, go to the repository's address."""

    default_priority = 8  # before MyST looks for pages

    def run(self, **kwargs: Any) -> None:
        """Exchange them."""
        for node in list(self.document.findall(pending_xref)):
            path = self._outside(node) if node["reftype"] == "myst" else None
            if path is not None and path.exists() and path.is_relative_to(ROOT) and not path.is_relative_to(DOCS):
                address = f"{_repository()}/blob/main/{path.relative_to(ROOT).as_posix()}"
                node.replace_self(nodes.reference("", "", *node.children, refuri=address))

    def _outside(self, node: pending_xref) -> Path | None:
        """What a link names, if it is none of the site's pages."""
        target = node["reftarget"]
        if node.get("refdomain") == "doc":
            return None if target in self.env.all_docs else Path(self.env.srcdir, f"{target}.md").resolve()
        return Path(self.env.doc2path(self.env.docname)).parent.joinpath(target).resolve()


def _repository() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Repository"])


class Reference(SphinxDirective):
    """
    Names of the package: a table with the first line of each, then each in full, without what it has of Transformers.

    A name is a line. A constant, which has no docstring, is followed by a colon and what it is.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Write them as autosummary's and autodoc's directives."""
        lines = [line.strip() for line in self.content if line.strip()]
        table = [".. autosummary::", "   :nosignatures:", "", *(f"   {line}" for line in lines if ":" not in line), ""]
        return self.parse_text_to_nodes("\n".join(table + [line for name in lines for line in _entry(name)]))


def _entry(line: str) -> list[str]:
    name, _, words = line.partition(": ")
    if words:
        return [f".. py:data:: {name}", "", f"   {words}", ""]
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    if not inspect.isclass(value):
        return [f".. autofunction:: {name}", ""]
    members = ", ".join(_members(value))
    return [f".. autoclass:: {name}", *([f"   :members: {members}"] if members else []), ""]


def _members(value: type) -> list[str]:
    """Methods and properties that the package itself describes, but for those of a protocol that a class follows."""
    names: dict[str, None] = {}
    for base in value.__mro__:
        if not base.__module__.startswith("citrinet") or (base is not value and getattr(base, "_is_protocol", False)):
            continue
        for name, member in vars(base).items():
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if (name == "__call__" or name[0] != "_") and inspect.isfunction(function) and function.__doc__:
                names[name] = None
    return list(names)


def markdown_to_rst(lines: list[str]) -> list[str]:
    """Write a docstring's Markdown as reStructuredText: fences, code, and names in brackets, which become links."""
    result: list[str] = []
    inside = False
    for line in lines:
        fence = re.fullmatch(r"( *)```(\w*)", line.rstrip())
        if fence:
            inside = not inside
            result += [f"{fence[1]}.. code-block:: {fence[2]}" if inside else "", ""]
        elif inside:
            result.append(f"   {line}")
        else:
            result.append(_CODE.sub(_code_to_rst, line))
    return result


def _code_to_rst(match: re.Match[str]) -> str:
    if match["name"]:
        return f":py:obj:`.{match['name']}`"
    return f"``{match['code']}``" if match["code"] else match[0]


def _process_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = markdown_to_rst(lines)


class SearchByCharacter(SearchEnglish):
    """English, and each Chinese character as a word of its own, in the index as in what is searched for."""

    js_splitter_code = rf"""
var splitQuery = (query) => query.match(/[{_CHINESE}]|(?:(?![{_CHINESE}])[\p{{L}}\p{{N}}_])+/gu) ?? [];
"""

    def split(self, input: str) -> list[str]:
        """Words and characters of a text."""
        return re.findall(rf"[{_CHINESE}]|[^\W{_CHINESE}]+", input)


def _process_signature(app: Sphinx, what: str, name: str, value: Any, options: Any, arguments: str, result: str) -> Any:
    """A protocol or a typed dictionary is not made by calling it."""
    return ("", None) if what == "class" and arguments == "(*args, **kwargs)" else None


def _list_decisions(app: Sphinx, page: str, source: list[str]) -> None:
    """The index of decisions is a table, for GitHub; the navigation wants them too."""
    if page == "decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n"


def _write_commands(app: Sphinx, page: str, source: list[str]) -> None:
    """The reference of the command line is made of its parsers."""
    if page == "reference/command-line":
        from citrinet.cli import _parser

        source[0] += "".join(f"\n{part}" for part in _describe(_parser()))


def _describe(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A section in Markdown for a parser that does something, and those of the parsers below."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in nested:
        for command in action.choices.values():
            yield from _describe(command)
    if nested:
        return
    formatter = argparse.HelpFormatter(parser.prog, width=100)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    yield f"## {parser.prog}\n\n{_with_code(parser.description)}\n\n```\n{formatter.format_help().strip()}\n```\n"
    yield f"```{{eval-rst}}\n.. program:: {parser.prog}\n"
    for action in parser._actions:
        if action.help not in (None, argparse.SUPPRESS) and action.dest not in ("help", "traceback"):
            words = markdown_to_rst([_with_code(formatter._expand_help(action))])
            yield f".. option:: {formatter._format_action_invocation(action)}\n\n   {words[0]}\n"
    yield "```\n"


def _with_code(text: str | None) -> str:
    """Options in a text as code."""
    return re.sub(r"(?<![`\w-])--[a-z][\w-]*", r"`\g<0>`", text or "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx."""
    app.add_directive("reference", Reference)
    app.add_post_transform(OutsideLinks)
    app.add_search_language(SearchByCharacter)
    app.connect("autodoc-process-docstring", _process_docstring, priority=900)  # after napoleon
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("source-read", _list_decisions)
    app.connect("source-read", _write_commands)
    return {"parallel_read_safe": True}
