"""The page about troubleshooting has every message of the package, and no other."""

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/troubleshooting.md"
SOURCES = [*(ROOT / "src/citrinet").rglob("*.py"), *(ROOT / "convert").glob("*.py")]
# Functions that tell the user something, beside the classes of exceptions and warnings.
TELLING = {"parsing", "warn", "warning", "warning_once", "error", "fail", "HTTPException"}
# The package catches these itself: tables lack a key, an archive is not to be read on.
CAUGHT = {"KeyError", "ReadError"}
# A message that the package replaces by another, and the other one.
INSIDE = {"the n-grams are not in order": "… is no language model of this package, or damaged."}


def messages(source: str) -> Iterator[str]:
    """Messages of a module, each with "…" for what varies."""
    tree = ast.parse(source)
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and is_telling(called(node)) and called(node) not in CAUGHT:
            for argument in node.args[:2]:  # the second of an HTTPException is its message
                for text in texts(argument, named, functions):
                    message = " ".join(re.sub("…( *…)+", "…", text).split())
                    if re.search(r"[a-z]{2,}.*[a-z]{2,}", message):
                        yield message


def called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    return ast.unparse(node.func).split(".")[-1].lstrip("_")


def is_telling(name: str) -> bool:
    return name.endswith(("Error", "Warning")) or name in TELLING


def texts(node: ast.expr, named: dict[str, ast.expr], functions: dict[str, ast.FunctionDef]) -> list[str]:
    """What an expression can say, with "…" for what is not known."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else ["…"]
    if isinstance(node, ast.JoinedStr):
        return ["".join(parts) for parts in product(*(texts(part, named, functions) for part in node.values))]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = (texts(side, named, functions) for side in (node.left, node.right))
        return ["".join(parts) for parts in product(*sides)]
    if isinstance(node, ast.FormattedValue):
        return texts(node.value, named, functions)
    if isinstance(node, ast.IfExp) and isinstance(node.body, (ast.Constant, ast.JoinedStr)):
        return texts(node.body, named, functions) + texts(node.orelse, named, functions)
    if isinstance(node, ast.Name) and isinstance(named.get(node.id), (ast.Constant, ast.JoinedStr)):
        return texts(named[node.id], named, functions)
    if isinstance(node, ast.Call) and (function := functions.get(ast.unparse(node.func).split(".")[-1])):
        returned = [part.value for part in ast.walk(function) if isinstance(part, ast.Return) and part.value]
        return [text for value in returned for text in texts(value, named, functions)]
    return ["…"]


def on_page() -> list[str]:
    """Lines of the page's blocks of messages."""
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def test_the_page_has_every_message_and_no_other():
    said = {message for source in SOURCES for message in messages(source.read_text(encoding="utf-8"))}
    listed = on_page()
    assert len(said) > 300  # it finds them
    differences = {
        "not on the page": said - set(listed) - INSIDE.keys(),
        "no message of the package": {*listed, *INSIDE} - said,
    }
    assert not any(differences.values()), "\n".join(f"{why}: {line}" for why in differences for line in differences[why])
    assert len(listed) == len(set(listed)), "twice on the page"


def test_what_varies_becomes_an_ellipsis():
    source = """
LIMIT, WHERE = 3, "elsewhere"
PLACE = "the disk"
def full():
    return ValueError(f"no room on {PLACE}: {1 + 2} of {x!r}{y}.")
def explain():
    return "first reason" if x else f"other reason {z}"
def work():
    raise OSError(explain())
    warnings.warn("both " + name, stacklevel=2)
    raise HTTPException(400, f"may be {'this' if x else 'that'}")
    raise KeyError("inside of it")
    print("no message at all")
"""
    assert list(messages(source)) == [
        "no room on the disk: … of ….",
        "first reason",
        "other reason …",
        "both …",
        "may be this",
        "may be that",
    ]
