"""What the source says of the fields of a dataclass, in the docstrings below them."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import sys


@functools.cache
def texts_of(section: type) -> dict[str, str]:
    """The docstrings that stand below the fields of a dataclass, by the fields' names."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        name = cls.__name__
        for node in _class_nodes(cls.__module__):
            if node.name == name and dataclasses.is_dataclass(cls):
                for field, text in itertools.pairwise(node.body):
                    if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                        found[ast.unparse(field.target)] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


@functools.cache
def _class_nodes(module: str) -> list[ast.ClassDef]:
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError, KeyError):  # built in, or typed into a console
        return []
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
