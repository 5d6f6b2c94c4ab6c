"""What a recipe is: a frozen dataclass of options that loads from TOML, and how it is found by name."""

import dataclasses
import difflib
import importlib
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...hw.arch.errors import ModelError
from ...hw.arch.files import read_toml

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..frontend.graph import Graph
    from ..network import QuantizedNetwork

__all__ = ["RECIPE_NAMES", "Knob", "Progress", "Recipe", "load_recipe", "nearest", "recipe_class", "register",
           "require"]

Progress = Callable[[int, int, float], None]
"""Called after each epoch with its number from 1, the number of epochs, and the mean training loss."""


def require(where: str, name: str, value: object, kind: type, low: float | None = None,
            high: float | None = None) -> None:
    """Refuse an option of the wrong type or out of range; an integer passes for a float, a bool for nothing else."""
    kinds: tuple[type, ...] = (int, float) if kind is float else (kind,)
    fits = isinstance(value, kinds) and (kind is bool or not isinstance(value, bool))
    if fits and low is not None and high is not None and isinstance(value, (int, float)):
        fits = low <= value <= high
    if not fits:
        words = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}[kind]
        limits = "" if low is None else f" from {low} to {high}"
        raise ModelError(f"{where}: {name} must be {words}{limits}, not {value!r}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names what a mistyped name was probably meant for; empty when nothing is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


@dataclasses.dataclass(frozen=True)
class Knob:
    """The option of a recipe that trades accuracy for size and cycles.

    Parameters
    ----------
    option : str
        Its name.
    gentle, strong : float
        Its values at the accurate and at the small end; integers where it is one.
    law : str
        Between them it is spread evenly: ``"linear"``, itself; ``"log"``, its logarithm; ``"rest"``, the logarithm of
        what it leaves of 1.
    """

    option: str
    gentle: float
    strong: float
    law: str = "linear"

    def at(self, position: float) -> float:
        """Its value at a position from 0, gentle, to 1, strong."""
        laws: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
            "linear": (float, float), "log": (math.log, math.exp),
            "rest": (lambda value: math.log1p(-value), lambda value: -math.expm1(value))}
        to, back = laws[self.law]
        value = back(to(self.gentle) + position * (to(self.strong) - to(self.gentle)))
        return round(value) if isinstance(self.gentle, int) and isinstance(self.strong, int) else float(f"{value:.4g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to compress, with all its options. A subclass adds fields, checks them, and runs.

    Attributes
    ----------
    name : str
        Its name in :data:`RECIPE_NAMES` and on the command line.
    knob : Knob or None
        The option that a search for a target turns.
    trains : bool
        Whether there are epochs.
    """

    name: ClassVar[str]
    knob: ClassVar[Knob | None] = None
    trains: ClassVar[bool] = True

    def run(self, model: "torch.nn.Module", graph: "Graph", train_data: "Dataset", *, seed: int,
            progress: Progress | None) -> "QuantizedNetwork":
        """Compress a captured network; see :func:`~.api.compress`."""
        raise NotImplementedError

    def replace(self, **changes: Any) -> Self:
        """A copy with some options changed, checked anew."""
        return self.from_dict({**self.to_dict(), **changes}, source=f"recipe {self.name}")

    def to_dict(self) -> dict[str, Any]:
        """All options by name, fit for JSON; options that are None are left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str = "recipe") -> Self:
        """Build from a mapping; an unknown option is a :class:`ModelError` that names it."""
        common = {field.name for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)
                  for field in dataclasses.fields(base)}
        known = sorted((field.name for field in dataclasses.fields(cls)), key=common.__contains__)
        for name in values:
            if name not in known:
                raise ModelError(f"{source}: recipe {cls.name} has no option {name!r}{nearest(name, known)}; it has "
                                 f"{', '.join(known)}")
        return cls(**values)


RECIPE_NAMES = ("bqnet", "inq", "slq", "mlq", "seq", "lowbit", "deepcompression", "pq", "som", "ecsq", "universal",
                "soft2hard", "ptq", "best", "keep")
"""Each is a module of that name."""
_RECIPES: dict[str, type[Recipe]] = {}


def register(recipe: type[Recipe]) -> type[Recipe]:
    """Class decorator that enters a recipe under its name."""
    _RECIPES[recipe.name] = recipe
    return recipe


def recipe_class(name: str, *, source: str = "recipe") -> type[Recipe]:
    """Look a recipe up; an unknown name is a :class:`ModelError`."""
    if name not in RECIPE_NAMES:
        raise ModelError(f"{source}: unknown recipe {name!r}{nearest(name, RECIPE_NAMES)}; known are "
                         f"{', '.join(RECIPE_NAMES)}")
    importlib.import_module(f".{name}", __package__)
    return _RECIPES[name]


def load_recipe(name: str | None = None, *, file: str | Path | None = None, settings: Iterable[str] = ()) -> Recipe:
    """Make a recipe from its name, a TOML file and ``option=value`` settings, the later ones winning.

    Parameters
    ----------
    name : str, optional
        Name of the recipe; may be left out when the file says it.
    file : path, optional
        TOML with the options in a table ``[recipe]`` (or at top level), where ``name`` is the recipe's name.
    settings : iterable of str
        ``option=value`` with a TOML value; ``layers.fc1.levels=2`` reaches into tables.

    Raises
    ------
    ModelError
        If the file can't be read, the names disagree, or an option is unknown or out of range.
    """
    values: dict[str, Any] = {}
    source = "recipe" if file is None else str(file)
    if file is not None:
        values = read_toml(file, "recipe", ModelError)
        source = f"{file}, table recipe" if "recipe" in values else source
        values = values.get("recipe", values)
        if not isinstance(values, dict):
            raise ModelError(f"{file}: 'recipe' must be a table, not {values!r}")
        said = values.pop("name", name)
        if name is not None and said != name:
            raise ModelError(f"{file}: is for recipe {said!r}, not {name!r}; leave one of the two out")
        name = said
    if not isinstance(name, str):
        raise ModelError(f"{source}: the recipe's name is missing; write name = \"bqnet\" in the file or give --recipe")
    recipe = recipe_class(name, source=source)
    for setting in settings:
        _apply(values, setting)
    try:
        return recipe.from_dict(values, source=source)
    except ModelError as error:
        if file is None or str(error).startswith(str(file)):
            raise
        raise ModelError(f"{file}: {error}") from None


def _apply(values: dict[str, Any], setting: str) -> None:
    option, equals, text = setting.partition("=")
    if not equals or not option.strip():
        raise ModelError(f"setting {setting!r} must have the form option=value, as in levels=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *tables, last = option.strip().split(".")
    if len(tables) > 2:  # module paths have dots of their own
        tables = [tables[0], ".".join(tables[1:])]
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ModelError(f"setting {setting!r}: {table!r} is no table")
    values[last] = value
