"""The errors a user meets. Each message names the file, row or key at fault and says what to do."""


class AirError(Exception):
    """Base of all errors that verl-air raises on purpose."""


class ConfigError(AirError, ValueError):
    """A recipe asks for something that cannot work."""


class DataError(AirError, ValueError):
    """A data file is missing, malformed or holds incomplete meta-groups."""


class RewardError(AirError, RuntimeError):
    """A reward cannot be computed and the run must not continue."""


class RolloutError(AirError, RuntimeError):
    """Rollouts fail, and the run must not continue."""


class CheckpointError(AirError, RuntimeError):
    """A checkpoint cannot be written, and the run must not continue."""
