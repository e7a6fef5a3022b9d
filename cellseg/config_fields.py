"""Configs as plain dicts for JSON, and as dotted names for the command line and MLflow; both ways."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from cellseg.config import RunConfig

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain dicts, lists, numbers and strings, ready for JSON."""
    listed: dict[str, Any] = _listed(dataclasses.asdict(config))
    return listed


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """The inverse of to_dict; missing fields keep their defaults.

    Raises ValueError for a field that the config does not have, or a value of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{where}: unknown field {', '.join(unknown)}; expected {', '.join(hints)}")
    return kind(**{name: _parsed(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A config as one dict of dotted names, as the command line and MLflow show it."""
    pairs: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            pairs |= flat(value, f"{prefix}{item.name}.")
        else:
            pairs[prefix + item.name] = value
    return pairs


def replaced(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config with dotted fields set, such as {"train.learning_rate": 1e-3}.

    Raises ValueError for a name that is not a field.
    """
    nested = to_dict(config)
    for name, value in values.items():
        *groups, last = name.split(".")
        place = nested
        for group in groups:
            place = place.get(group, {})
        if last not in place:
            raise ValueError(f"config: unknown field {name}; expected one of {', '.join(flat(config))}")
        place[last] = value
    return from_dict(RunConfig, nested)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_listed(item) for item in value]
    return value


def _parsed(hint: Any, value: Any, where: str) -> Any:
    """A JSON value as the type that a field's annotation names."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _parsed(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_dict(hint, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_parsed(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if origin is Literal and value in arguments:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    expected = " or ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise ValueError(f"{where}: expected {expected}, got {value!r}")
