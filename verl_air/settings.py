"""The base of every group of settings that a recipe holds: frozen, typed, and refused with the key's name if wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from verl_air.errors import ConfigError

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Subclass it and declare the fields; ``prefix`` is the recipe's key, and begins every message.

    Raises:
        ConfigError: a key is unknown or missing, or a value cannot be used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
    prefix: ClassVar[str]

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(self._message(error)) from None

    @classmethod
    def from_mapping(cls: type[S], values: Any) -> S:
        """Read a section of a recipe; ``_target_`` is Hydra's and is passed over.

        Raises:
            ConfigError: it holds no keys and values, or see the class.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.prefix}: expected keys and values, got {values!r}")
        return cls(**{str(key): value for key, value in values.items() if key != "_target_"})

    @model_validator(mode="before")
    @classmethod
    def _read_numbers(cls, values: Any) -> Any:
        """YAML 1.1 reads ``8e-4`` as a string; accept it where a number is meant."""
        floats = {name for name, field in cls.model_fields.items() if field.annotation is float}
        return {key: _as_number(value) if key in floats else value for key, value in values.items()}

    @classmethod
    def _message(cls, error: ValidationError) -> str:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:  # a validator of the whole section
            return f"{cls.prefix}: {first['msg'].removeprefix('Value error, ')}"
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(cls.model_fields)
            return f"{cls.prefix}.{name}: unknown key{closest(name, cls.model_fields)}; known: {known}"
        if first["type"] == "missing":
            return f"{cls.prefix}.{name}: missing"
        what = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        return f"{cls.prefix}.{name}: {first['input']!r} {what}"


def closest(name: str, known: Iterable[str]) -> str:
    """A hint at names that look alike, for messages about a name that is not among the known ones."""
    matches = difflib.get_close_matches(name, list(known), n=2)
    return f" (did you mean {' or '.join(repr(match) for match in matches)}?)" if matches else ""


def _as_number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
