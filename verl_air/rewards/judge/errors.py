"""The one way in which a judge fails."""

from verl_air.errors import AirError


class JudgeError(AirError, RuntimeError):
    """The judge gave no verdict: no connection, no time, a refusal, or an answer that holds none. The row abstains."""
