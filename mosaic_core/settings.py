"""Settings: frozen dataclasses read from YAML, unknown keys refused with the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from mosaic_core.errors import ConfigurationError

T = TypeVar("T")


def build(cls: type[T], mapping: object, where: str) -> T:
    """Make the dataclass `cls` of a mapping read from a file.

    Nested dataclasses, tuples, mappings, `Literal`, `X | None` and plain scalars are checked;
    nothing is converted except int to float. `where` names the file in messages.

    Raises:
        ConfigurationError: an unknown or missing key, or a value of another type.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(
            f"{where}: {mapping!r}", f"keys and values of {cls.__name__}", "indent them below"
        )
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            raise ConfigurationError(
                f"{where}: unknown key {key!r}",
                f"one of {', '.join(fields)}",
                f"did you mean {near[0]!r}?" if near else "remove it",
            )
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in mapping.items()}
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in values:
            raise ConfigurationError(f"{where}: no value for {name!r}", "one", f"add `{name}:`")
    return cls(**values)


def _value(hint: Any, value: object, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [option for option in args if option is not type(None)]
        failures = []
        for option in options:
            try:
                return _value(option, value, where)
            except ConfigurationError as error:
                failures.append(error)
        raise failures[0]
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        return build(typing.cast(type, hint), value, where)
    if origin is Literal:
        if value not in args:
            near = difflib.get_close_matches(str(value), [str(a) for a in args], n=1)
            raise ConfigurationError(
                f"{where}: {value!r}",
                f"one of {', '.join(map(str, args))}",
                f"did you mean {near[0]!r}?" if near else "",
            )
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigurationError(f"{where}: {value!r}", "a list")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(args) != len(value):
            raise ConfigurationError(f"{where}: {value!r}", f"a list of {len(args)}")
        return tuple(
            _value(arg, item, f"{where}[{i}]")
            for i, (arg, item) in enumerate(zip(args, value, strict=True))
        )
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{where}: {value!r}", "keys and values")
        return {
            _value(args[0], k, where): _value(args[1], v, f"{where}: {k}") for k, v in value.items()
        }
    if hint is Any or hint is object:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigurationError(f"{where}: {value!r}", f"a value of type {hint.__name__}")
    return value


def override(content: dict[str, Any], text: str) -> None:
    """Put `key=value`, `outer.key=value` or `list.0.key=value` into `content`; values are YAML.

    Raises:
        ConfigurationError: no such form, or a way through something that has no keys.
    """
    import yaml

    path, sign, given = text.partition("=")
    if not sign or not path:
        raise ConfigurationError(f"--set {text!r}", "key=value, as in members=8")
    try:
        value = yaml.safe_load(given)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--set {text!r}: {error}", "a value in YAML") from error
    *outer, last = path.split(".")
    inner: Any = content
    for part in outer:
        if isinstance(inner, dict):
            inner = inner.setdefault(part, {})
        else:
            inner = inner[_place(inner, part, text)]
    if isinstance(inner, dict):
        inner[last] = value
    else:
        inner[_place(inner, last, text)] = value


def _place(items: object, part: str, text: str) -> int:
    """The position in a list that a part of a key stands for."""
    if not isinstance(items, list):
        raise ConfigurationError(f"--set {text!r}: nothing has a key {part!r} there", "a mapping")
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigurationError(
            f"--set {text!r}: {part!r} in a list of {len(items)}", f"0 to {len(items) - 1}"
        )
    return int(part)


def config_folder() -> Path:
    """The folder with `models/` and `profiles/`.

    `MOSAIC_CONFIG` names another one; a checkout uses its own `config/`, an installed wheel the
    copy inside the package.
    """
    named = os.environ.get("MOSAIC_CONFIG")
    if named:
        folder = Path(named)
        if not folder.is_dir():
            raise ConfigurationError(
                f"MOSAIC_CONFIG={named} is not a folder", "a folder with models/ and profiles/"
            )
        return folder
    installed = Path(__file__).parent / "_config"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "config"


def read_config(kind: str, name: str) -> tuple[dict[str, Any], Path]:
    """Read `config/<kind>/<name>.yaml`, or the file that `name` is a path of.

    Args:
        kind: the folder: `models` or `profiles`; empty for `config/` itself.

    Raises:
        ConfigurationError: no such file (the nearest name is given), or it is not YAML.
    """
    import yaml

    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        known: list[str] = []
    else:
        folder = config_folder() / kind
        path = folder / f"{name}.yaml"
        known = sorted(p.stem for p in folder.glob("*.yaml"))
    if not path.is_file():
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise ConfigurationError(
            f"no {kind.rstrip('s') or 'configuration'} {name!r} ({path})",
            f"one of {', '.join(known)}" if known else "a YAML file",
            f"did you mean {near[0]!r}?" if near else "",
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {error}", "a YAML mapping") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds {type(content).__name__}", "a YAML mapping")
    return content, path
