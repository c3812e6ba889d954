"""Find a plug-in by its name: a reader, an objective, a cleaning rule.

A plain name is one of ours: the file `pipelines/readers/csv.py` is the reader `csv`. A dotted name is the user's own,
anything that Python can import: `my_package.my_reader`. A file whose name begins with an underscore is a helper of
plug-ins, and no plug-in itself.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from infra.errors import UserError, nearest


def names(package: ModuleType) -> list[str]:
    """The plug-ins of a folder, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


def find_module(kind: str, name: str, package: ModuleType, *, required: Mapping[str, str]) -> ModuleType:
    """The plug-in module of this name.

    kind: what to call it in messages, such as "reader". required: the names it must define -> how to write them.
    Raises UserError, which names the nearest, the cause, or what the module lacks.
    """
    if "." not in name and name not in names(package):
        folder = package.__name__.replace(".", "/")
        raise UserError(
            f"unknown {kind} {name!r}{nearest(name, names(package))}",
            why=f"a plain name is a module of {folder}, a dotted one a module of your own: my_package.my_{kind}",
        )
    module = _imported(kind, name, name if "." in name else f"{package.__name__}.{name}")
    for attribute, form in required.items():
        if not hasattr(module, attribute):
            raise UserError(f"the {kind} {name!r} does not define `{attribute}`", try_=f"define {form}")
    return module


def find_function(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """The plug-in function of this name: of `known`, or any `package.module.function`. Raises UserError."""
    if name in known:
        return known[name]
    module, _, function = name.replace(":", ".").rpartition(".")
    if not module:
        raise UserError(
            f"unknown {kind} {name!r}{nearest(name, known)}",
            why="a plain name is one of these, a dotted one a function of your own: my_package.my_module.my_function",
        )
    found = getattr(_imported(kind, name, module), function, None)
    if not callable(found):
        raise UserError(f"the {kind} {name!r} is not a function", why=f"{module} does not define `{function}`")
    return found


def _imported(kind: str, name: str, dotted: str) -> ModuleType:
    try:
        return importlib.import_module(dotted)
    except ImportError as error:
        raise UserError(
            f"cannot import the {kind} {name!r}", why=str(error), try_="put the folder of your package on PYTHONPATH"
        ) from error
