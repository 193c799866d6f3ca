"""What a settings dataclass says of its fields: `key=value` lines with their meaning, and values as they are typed."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from itertools import pairwise
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*")


def field_lines(settings: Any, prefix: str = "") -> Iterator[str]:
    """Yield `key=value` and, under it, the string that follows the field in its dataclass."""
    about = field_docs(type(settings))
    for field in typed(settings):
        value = getattr(settings, field.name)
        key = prefix + field.name
        if is_dataclass(value):
            yield from field_lines(value, key + ".")
            continue
        yield f"  {key}={as_text(value)}"
        if field.name in about:
            yield from textwrap.wrap(about[field.name], 110, initial_indent="      ", subsequent_indent="      ")


def typed(settings: Any) -> list[Field[Any]]:
    """Return the fields that a command line may set; the others say what it amounts to."""
    return [field for field in fields(settings) if not field.metadata.get("omegaconf_ignore")]


def unknown_fields(
    told: Any, cls: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield what stands in mappings and lists but in no field of a settings dataclass: its path, and the class it is
    no field of.

    Args:
        told: what a file says; `cls` the type that it is of.
    """
    if get_origin(cls) in (Union, UnionType):
        classes = [one for one in get_args(cls) if is_dataclass(one) or get_origin(one) in (list, dict)]
        cls = classes[0] if len(classes) == 1 else object
    if is_dataclass(cls) and isinstance(told, dict):
        hints = get_type_hints(cls)
        for name, value in told.items():
            if name in hints:
                yield from unknown_fields(value, hints[name], (*path, name))
            else:
                yield (*path, name), cls
    elif get_origin(cls) in (list, dict) and isinstance(told, list | dict):
        each = get_args(cls)[-1]
        for place, value in told.items() if isinstance(told, dict) else enumerate(told):
            yield from unknown_fields(value, each, (*path, place))


def field_docs(cls: type) -> dict[str, str]:
    """Return the string that follows each field of a settings dataclass, those that it inherits included."""
    docs: dict[str, str] = {}
    for one in reversed([base for base in cls.__mro__ if is_dataclass(base)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
                if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                    docs[field.target.id] = " ".join(after.value.value.split())
    return docs


def as_text(value: Any) -> str:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {as_text(v)}' for k, v in value.items())}}}"
    return str(value)


def as_argument(key: str, value: Any) -> str:
    """Return `key=value` as the command line reads it back: text that could be read as something else is quoted."""
    return f"{key}={_quoted(value)}"


def _quoted(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_quoted, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_quoted(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str) and (
        not _PLAIN.fullmatch(value) or value.lower() in ("true", "false", "null", "nan", "inf")
    ):
        # backslashes count only before a quote, the closing one included
        escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
        return f"'{escaped}'"
    return as_text(value)
