"""Numbers of one's own: a YAML file in the form of conf/world/*.yaml, laid over a preset."""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import msgspec

from playbill.errors import ConfigError
from playbill.world.parameters import Parameters, field_names

_PREAMBLE = ["parameters_schema", "_self_"]  # what a preset of conf/world/ begins with; means nothing here


def overlay(parameters: Parameters, path: Path | str) -> Parameters:
    """Return the parameters with the numbers of a file in place of theirs; `parameters` stays as it is.

    What the file does not name keeps its value, inside mappings too: `device: {tv: 0.5}` changes the one device. Lists
    are replaced whole.

    Raises:
        ConfigError: the file cannot be read or is no mapping, a key is unknown (the nearest is named), a value is of
            the wrong type or out of range.
    """
    path = Path(path)
    try:
        given = msgspec.yaml.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"parameters={path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"parameters={path} must be a mapping such as `clicks: {{taste: 1.5}}`, got {given!r}")
    if given.get("defaults") == _PREAMBLE:
        del given["defaults"]
    flat = [f.name for f in fields(parameters) if is_dataclass(getattr(parameters, f.name))]
    flat = [name for name in flat if not isinstance(given.get(name, {}), dict)]
    if flat:
        raise ConfigError(f"parameters={path}: {flat[0]} must be a mapping of its fields, got {given[flat[0]]!r}")
    unknown = [name for name in _given_names(parameters, given) if name not in field_names(parameters)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], field_names(parameters), n=1, cutoff=0.0)[0]
        raise ConfigError(f"parameters={path}: no field {', '.join(map(repr, unknown))}; nearest is {near!r}")
    merged = _merged(msgspec.to_builtins(parameters), given)
    return parse_parameters(merged, f"parameters={path}")


def parse_parameters(given: dict[str, Any], where: str) -> Parameters:
    """Return the parameters of nested mappings; `where` begins the message of an error.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """
    try:
        return msgspec.convert(given, Parameters)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def _given_names(settings: Any, given: Any, prefix: str = "") -> list[str]:
    """Return the dotted names that a file gives; an entry of a mapping counts as the mapping."""
    if not isinstance(given, dict) or not is_dataclass(settings):
        return [prefix]
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    names = []
    for key, value in given.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        names += _given_names(known[key], value, dotted) if key in known else [dotted]
    return names


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}
