"""labcode: the shared package of *Learning without Labels*.

``import labcode as lab`` is cheap: every submodule is imported when it is first used.
"""

import importlib

__version__ = "0.1.0"

_SUBMODULES = {
    "augment", "cluster", "course", "data", "evaluate", "nets", "pairwise", "parallel", "plots", "train", "transport",
}  # fmt: skip
_SHORTCUTS = {"start": "course.run", "papers": "course.cards", "card": "course.cards", "show": "course.show"}

__all__ = sorted(_SUBMODULES | _SHORTCUTS.keys())


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"labcode.{name}")
    if name in _SHORTCUTS:
        return getattr(importlib.import_module(f"labcode.{_SHORTCUTS[name]}"), name)
    raise AttributeError(f"module 'labcode' has no attribute {name!r}")


def __dir__():
    return [*globals(), *__all__]
