"""Flags that are the fields of a dataclass. Does not import TensorFlow."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from absl import flags

flags.disclaim_key_flags()  # flags defined here count as the calling program's, so that its --help lists them

groups: dict[str, str] = {}
"""Headings in --help by the name of the first flag below them."""

Config = TypeVar("Config")


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    minimum: float | None = None,
    group: str | None = None,
    repeated: bool = False,
    on_resume: str = "refuse",
) -> Any:
    """A field of a configuration, which `define_flags` turns into a flag.

    Args:
        default: the default value; `dataclasses.MISSING` if the flag is required.
        help: the flag's help.
        choices: the values that are allowed.
        minimum: the smallest number that is allowed.
        group: heading in --help of this flag and those after it.
        repeated: whether the flag of a tuple is given once for each item.
        on_resume: what happens when a run is resumed with another value; see `training.config.TrainConfig`.
    """
    metadata = {"help": help, "choices": choices, "minimum": minimum, "group": group, "repeated": repeated}
    metadata["on_resume"] = on_resume
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def define_flags(config: type) -> None:
    """Defines a flag for each field of a dataclass of `option`s. The flag's type follows from the field's annotation:

    * `bool`, `int`, `float` and `str`, also with `| None`: a flag of that type;
    * `tuple[str, ...]`: A,B,C, or with `repeated` a flag that is given once for each item;
    * `tuple[int, int]` or `tuple[float, float]`: FIRST,LAST; tuples of three numbers likewise;
    * `Mapping[str, float]`: NAME=NUMBER,NAME=NUMBER.
    """
    kinds = _kinds(config)
    # Inherited fields are last.
    for field in sorted(dataclasses.fields(config), key=lambda field: field.name not in config.__annotations__):
        kind, limits, help = kinds[field.name], field.metadata, field.metadata["help"]
        if limits["group"]:
            groups[field.name] = limits["group"]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = None if field.default is dataclasses.MISSING else field.default
        if limits["choices"]:
            flags.DEFINE_enum(field.name, default, limits["choices"], help, required=required)
        elif kind in (int, float):
            define = flags.DEFINE_integer if kind is int else flags.DEFINE_float
            define(field.name, default, help, lower_bound=limits["minimum"], required=required)
        elif kind in (bool, str):
            define = flags.DEFINE_bool if kind is bool else flags.DEFINE_string
            define(field.name, default, help, required=required)
        else:
            define = flags.DEFINE_multi_string if limits["repeated"] else flags.DEFINE_list
            define(field.name, default or [], help, required=required)


def read_flags(config: type[Config]) -> Config:
    """The configuration that the flags give. Raises ValueError if a value is not of its field's type."""
    return config(**{name: _parse(name, kind, flags.FLAGS[name].value) for name, kind in _kinds(config).items()})


def _kinds(config) -> dict[str, Any]:
    """The type of each field, without `| None`."""
    hints = typing.get_type_hints(config)
    return {name: hint.__args__[0] if isinstance(hint, types.UnionType) else hint for name, hint in hints.items()}


def _parse(name, kind, value):
    if kind == tuple[str, ...]:
        return tuple(value)
    if kind == Mapping[str, float]:
        return parse_numbers_by_name(name, value)
    if typing.get_origin(kind) is not tuple:
        return value
    if not value:
        return None
    kinds = typing.get_args(kind)
    try:
        return tuple(number(item) for number, item in zip(kinds, value, strict=True))
    except ValueError as error:
        example = ",".join("123"[: len(kinds)])
        raise ValueError(
            f"`{name}` must be {len(kinds)} numbers such as {example}. Received: {','.join(value)}"
        ) from error


def parse_numbers_by_name(argument: str, items: Sequence[str]) -> dict[str, float]:
    """{"conv1": 0.1, "fc8": 2.0} for ["conv1=0.1", "fc8=2"].

    Raises:
        ValueError: if an item is not of that form, or two have the same name.
    """
    numbers: dict[str, float] = {}
    for item in items:
        name, _, text = item.partition("=")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number):
            raise ValueError(f"`{argument}` must be a list such as NAME=0.1,OTHER=2. Received: {item!r}")
        if name in numbers:
            raise ValueError(f"`{argument}` must have each name only once. Received: {','.join(items)}")
        numbers[name] = number
    return numbers
