"""verl-air: Anchor Invariance Regularization (arXiv 2605.20994) for verl.

Importing this package is light: no torch, no verl. See ``verl_air.plugin`` for what is registered with verl.
"""

from verl_air.config import AirConfig
from verl_air.errors import AirError, ConfigError, DataError, RewardError

__version__ = "0.1.0"

__all__ = ["AirConfig", "AirError", "ConfigError", "DataError", "RewardError", "__version__"]
