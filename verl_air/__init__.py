"""verl-air: Anchor Invariance Regularization (arXiv 2605.20994) for verl.

Importing this package is light: no torch, no verl, and no pydantic until an option is read, since every process of verl
does it. See ``verl_air.plugin`` for what is registered with verl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verl_air.errors import AirError, ConfigError, DataError, RewardError

if TYPE_CHECKING:
    from verl_air.config import AirConfig

__version__ = "0.1.0"

__all__ = ["AirConfig", "AirError", "ConfigError", "DataError", "RewardError", "__version__"]


def __getattr__(name: str) -> Any:
    if name != "AirConfig":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from verl_air.config import AirConfig

    return AirConfig
