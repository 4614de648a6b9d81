"""Building objects from configuration sections, restricted to an allow-list."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from typing_extensions import Unpack

from gancli.config.settings import SIGNED
from gancli.errors import ConfigError, suggestion

T = TypeVar("T")

LARGEST_WHOLE, LARGEST = 2**63 - 1, 3.4e38  # limits of int64 and float32

# The package and base class that each section of the configuration, or of an untrusted checkpoint, may build.
SECTIONS = {
    "model": ("gancli.nets.", "torch.nn.Module"),
    "game": ("gancli.games.", "gancli.games.game.Game"),
    "loss": ("gancli.losses.", "gancli.losses.adversarial.AdversarialLoss"),
    "penalty": ("gancli.losses.", "gancli.losses.penalties.Penalty"),
    "augment": ("gancli.augment.", "gancli.augment.augment.Augment"),
    "dataset": ("gancli.data.", "gancli.data.source.DataSet"),
    "observers": ("gancli.observers.", "gancli.observers.observer.Observer"),
    "metrics": ("gancli.metrics.", "gancli.metrics.metric.Metric"),
    "pretrained": ("gancli.pretrained.", "gancli.pretrained.pretrained.Pretrained"),
    "extractor": ("gancli.metrics.", "gancli.metrics.extractor.Extractor"),
    "launcher": ("gancli.sweeps.", "gancli.sweeps.launchers.Launcher"),
    "search": ("gancli.sweeps.", "gancli.sweeps.search.Search"),
    "optimizer": ("torch.optim.", "torch.optim.Optimizer"),
}
# Exceptions that constructors raise for values of the right type.
UNBUILDABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
OPTIMIZERS = ("Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "SGD", "Adagrad", "Adamax")


def find(target: object, path: str) -> Callable[..., Any]:
    """Return the class or function that a section's `_target_` names.

    path: dotted path of the section; its first part selects the allowed targets. Raises ConfigError for other targets.
    """
    where = f"{path}._target_={shown(target)}"
    room, kind = SECTIONS[path.split(".")[0]]
    module, _, name = str(target).rpartition(".")
    if room == "torch.optim.":
        if module != "torch.optim" or name not in OPTIMIZERS:
            raise ConfigError(f"{where}: no such optimizer; {suggestion(name, OPTIMIZERS)}, each as torch.optim.NAME")
    elif not module.startswith(room) or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"{where}: only classes and functions of {room.rstrip('.')} are allowed here")
    try:
        thing = getattr(importlib.import_module(module), name)
    except ImportError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ConfigError(f"{where}: it does not exist") from None
        raise ConfigError(f"{where}: its file cannot be imported ({error})") from None
    except AttributeError:
        raise ConfigError(f"{where}: it does not exist") from None
    if name.startswith("_") or not _is_a(thing, module, kind):
        raise ConfigError(f"{where}: not allowed in {path.split('.')[0]}")
    return typing.cast(Callable[..., Any], thing)


def _is_a(thing: object, module: str, kind: str) -> bool:
    """Whether this is a subclass of `kind`, or a function annotated to return one, defined in `module`.

    If `kind` is a union, only functions are accepted.
    """
    home, _, name = kind.rpartition(".")
    wanted = getattr(importlib.import_module(home), name)
    if inspect.isfunction(thing):
        made = typing.get_type_hints(thing).get("return")
        return thing.__module__ == module and _kinds(made) <= _kinds(wanted)
    if isinstance(wanted, types.UnionType):
        return False
    own = module == "torch.optim" or getattr(thing, "__module__", None) == module
    return own and inspect.isclass(thing) and issubclass(thing, wanted) and not inspect.isabstract(thing)


def _kinds(hint: Any) -> set[Any]:
    """The members of a union, or the one type."""
    return set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}


def check(node: Mapping[str, Any], path: str, supplied: Sequence[str] = ()) -> None:
    """Check a `_target_` section's keys and types without building it. Raises ConfigError."""
    _bind(find(_section(node, path).get("_target_"), path), node, path, supplied)


def make(node: Mapping[str, Any], path: str, **supplied: Any) -> Any:
    """Build a `_target_` section; `supplied` are the arguments that do not come from the configuration."""
    target = find(_section(node, path).get("_target_"), path)
    values = _bind(target, node, path, tuple(supplied))
    try:
        return target(**supplied, **values)
    except UNBUILDABLE as error:
        # All types are right but the values are not: a width of -1, or more weights than memory.
        words = " ".join(str(error).split())[:200]
        if isinstance(error, MemoryError) or "allocate" in words:
            words = "not enough memory"
        raise ConfigError(f"{path}: cannot be built with these values: {words}") from error


def _section(node: object, path: str) -> Mapping[str, Any]:
    """Return the node if it is a section. Raises ConfigError for a plain value."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"{path}={shown(node)}: expected a section of keys")
    return node


def make_as(kind: Callable[..., T], node: Mapping[str, Any] | None, path: str) -> T:
    """Build a known class from a section without `_target_`."""
    return kind(**_bind(kind, node or {}, path, ()))


def _bind(target: Callable[..., Any], node: Mapping[str, Any], path: str, supplied: Sequence[str]) -> dict[str, Any]:
    """Return a section's values as validated and converted keyword arguments of `target`."""
    prefix = f"{path}." if path else ""
    _section(node, path)
    parameters = {name: default for name, default in defaults_of(target).items() if name not in supplied}
    hints = hints_of(target)
    values = {}
    for name, value in node.items():
        if name == "_target_":
            continue
        if name not in parameters:
            raise ConfigError(f"unknown key {prefix}{name}: {suggestion(str(name), parameters)}")
        default = parameters[name]
        if isinstance(default, tuple) and isinstance(value, list):
            _refuse_odd(value, hints.get(name, Any), f"{prefix}{name}")
            value = _like(default, value, f"{prefix}{name}")
        values[name] = convert(value, hints.get(name, Any), f"{prefix}{name}")
    for name, default in parameters.items():
        if default is inspect.Parameter.empty and name not in values:
            raise ConfigError(f"missing key {prefix}{name}")
    return values


def defaults_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword parameters of a constructor with their defaults; `inspect.Parameter.empty` for none.

    Keys of `**keys: Unpack[Keys]` are included, with None as default.
    """
    found, hints = dict[str, Any](), _hints(target)
    for name, p in inspect.signature(target).parameters.items():
        if p.kind is p.VAR_KEYWORD:
            found |= dict.fromkeys(_passed_on(hints.get(name)))
        elif p.kind is not p.VAR_POSITIONAL:
            found[name] = p.default
    return found


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parameters of `defaults_of`; empty if they cannot be resolved."""
    found = dict[str, Any]()
    for name, hint in _hints(target).items():
        found |= _passed_on(hint) or {name: hint}
    return found


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    owner = target if dataclasses.is_dataclass(target) else getattr(target, "__init__", target)
    try:
        return typing.get_type_hints(owner, include_extras=True) or typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError):  # names imported for type checkers only, as in some torch modules
        return {}


def _passed_on(hint: Any) -> dict[str, Any]:
    """Return the types of the keys of an `Unpack[Keys]`; empty for other hints."""
    if typing.get_origin(hint) is not Unpack:
        return {}
    return typing.get_type_hints(typing.get_args(hint)[0], include_extras=True)


def _like(default: tuple[Any, ...], value: list[Any], path: str) -> Any:
    """Convert a list to a tuple of the default's types: torch's Adam needs floats for both betas."""
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    if default and all(isinstance(d, float) for d in default):
        if not numbers or len(value) != len(default):
            raise ConfigError(f"{path}={value}: expected {len(default)} numbers, such as {list(default)}")
        return tuple(float(v) for v in value)
    return tuple(value)


def convert(value: Any, hint: Any, path: str) -> Any:
    """Convert a configuration value to the type of a signature. Raises ConfigError with the expected type.

    >>> convert(1000.0, int, "steps"), convert([3, 32, 32], tuple[int, ...], "size")
    (1000, (3, 32, 32))
    """
    _refuse_odd(value, hint, path)
    good, result = _fits(value, hint, path)
    if not good:
        raise ConfigError(f"{path}={shown(value)}: expected {_words(hint)}")
    return result


def shown(value: Any) -> str:
    """Format a value as on the command line; long values are truncated.

    >>> shown([1, None, True]), shown({"a": 0.5}), shown("x")
    ('[1,null,true]', '{a:0.5}', 'x')
    """
    text = str(value)
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, (list, tuple)):
        text = f"[{','.join(map(shown, value))}]"
    elif isinstance(value, Mapping):
        text = f"{{{','.join(f'{k}:{shown(v)}' for k, v in value.items())}}}"
    elif isinstance(value, int):
        text = _short(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _refuse_odd(value: Any, hint: Any, path: str) -> None:
    """Raise ConfigError for an empty string, or a number that is not finite or below 0.

    The type Signed allows negative numbers. Values inside sections are checked with their own keys.
    """
    if isinstance(value, (list, tuple)):
        for each in value:
            _refuse_odd(each, hint, path)
    elif isinstance(value, str) and not value.strip():
        raise ConfigError(f"{path}= is empty (an unset shell variable?): expected {_words(hint)}, or leave {path} out")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{path}={value}: expected a finite number")
        if value < 0 and not _signed(hint):
            raise ConfigError(f"{path}={_short(value)}: must be at least 0")
        if abs(value) > (LARGEST_WHOLE if isinstance(value, int) else LARGEST):
            raise ConfigError(f"{path}={_short(value)}: expected a number that int64 or float32 can hold")


def _signed(hint: Any) -> bool:
    """Whether a type, or one of its arguments, is Signed."""
    return SIGNED in getattr(hint, "__metadata__", ()) or any(map(_signed, typing.get_args(hint)))


def _short(value: float) -> str:
    """Format a number; very long integers in scientific notation."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if abs(value) < 10**30 else f"{'-' if value < 0 else ''}1e{math.floor(math.log10(abs(value)))}"


def _fits(value: Any, hint: Any, path: str) -> tuple[bool, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _fits(value, args[0], path)
    if origin in (Union, types.UnionType):
        return next((fit for fit in (_fits(value, arg, path) for arg in args) if fit[0]), (False, value))
    if origin is Literal:
        return value in args and type(value) in {type(a) for a in args}, value
    if hint is type(None):
        return value is None, value
    if hint is bool:
        return isinstance(value, bool), value
    if hint is int:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        whole = number and value == value // 1 and abs(value) <= LARGEST_WHOLE
        return whole, int(value) if whole else value
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number, float(value) if number else value
    if hint in (str, Path):
        text = isinstance(value, (str, int, float)) and not isinstance(value, bool)
        return text, hint(str(value)) if text else value
    if origin in (list, tuple) or (isinstance(origin, type) and origin is not dict and issubclass(origin, Sequence)):
        return _sequence_fits(value, origin, args, path)
    if hint is dict or origin is dict:
        return isinstance(value, dict), value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return isinstance(value, dict), make_as(hint, value, path) if isinstance(value, dict) else value
    # Foreign types: no YAML value is an instance of one (optimizers' `lr: float | Tensor`), and Any accepts all.
    return not isinstance(hint, type) or isinstance(value, hint), value


def _sequence_fits(value: Any, origin: Any, args: tuple[Any, ...], path: str) -> tuple[bool, Any]:
    if not isinstance(value, (list, tuple)):
        return False, value
    fixed = origin is tuple and args and args[-1] is not Ellipsis
    if fixed and len(args) != len(value):
        return False, value
    hints = args if fixed else [args[0] if args else Any] * len(value)
    fits = [_fits(v, h, path) for v, h in zip(value, hints, strict=True)]
    return all(good for good, _ in fits), (tuple if origin is tuple else list)(v for _, v in fits)


def _words(hint: Any) -> str:
    """Describe a type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _words(args[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(a) for a in args if getattr(a, "__name__", "") != "Tensor"))
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    simple = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a string",
        type(None): "null",
        Path: "a path",
    }
    if hint in simple:
        return simple[hint]
    if origin in (list, tuple) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        kinds = [part.removeprefix("a ") for part in _words(args[0]).split(" or ")] if args else []
        return f"a list of {' or '.join(f'{kind}s' for kind in kinds)}" if kinds else "a list"
    section = hint is dict or origin is dict or dataclasses.is_dataclass(hint)
    return "a section of keys" if section else getattr(hint, "__name__", str(hint))
