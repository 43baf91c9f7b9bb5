"""Checks whose failure says what verl changed and where we rely on it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def holds(condition: object, what: str, *, used_by: str) -> None:
    """One statement about verl that must stay true.

    Args:
        condition: whether it does.
        what: the statement, in the present tense.
        used_by: our file and function that rely on it.
    """
    assert condition, f"no longer true of the installed verl: {what}. {used_by} relies on it."


def takes(function: Callable[..., Any], *parameters: str, used_by: str) -> None:
    """A function has exactly these parameters (``self`` and ``cls`` left out), in this order."""
    found = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    name = f"{function.__module__}.{function.__qualname__}"
    holds(
        found == list(parameters),
        f"{name} takes ({', '.join(parameters)}); it takes ({', '.join(found)})",
        used_by=used_by,
    )


@cache
def source_of(module: str) -> ast.Module:
    """A module's syntax tree, without importing it or more than its top package's folder."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    assert spec is not None, f"{top} is not installed"
    assert spec.submodule_search_locations, f"{top} is no package"
    path = Path(spec.submodule_search_locations[0], *rest).with_suffix(".py")
    assert path.is_file(), f"{module} is gone from the installed {top}: {path}"
    return ast.parse(path.read_text())


def function_in(tree: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """A function of a module or of one of its classes (``Class.method``)."""
    body: list[ast.stmt] = tree.body
    *classes, function = name.split(".")
    for owner in classes:
        found = next((node for node in body if isinstance(node, ast.ClassDef) and node.name == owner), None)
        assert found is not None, f"class {owner} is gone"
        body = found.body
    node = next(
        (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function),
        None,
    )
    assert node is not None, f"{name} is gone"
    return node


def text_of(module: str, function: str | None = None) -> str:
    """The code of a module, or of one of its functions, without comments and evenly spaced."""
    tree = source_of(module)
    return ast.unparse(tree if function is None else function_in(tree, function))


def calls_in(node: ast.AST) -> list[str]:
    """What is called inside a function, in the order of the text: ``self.step``, ``run_ppo``."""
    calls = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return [ast.unparse(call.func) for call in calls]
