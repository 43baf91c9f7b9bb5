"""``format``: the format alone, for an anchor that asks for nothing else."""

from verl_air.rewards import Sample, Verdict, register_reward


@register_reward("format", gold=lambda sample: "\\boxed{yes}")
def format_only(sample: Sample, *, right: float = 1.25, wrong: float = -1.0) -> Verdict:
    """Right if the response is well-formatted, whatever it says."""
    return Verdict(right if sample.format_ok else wrong, sample.format_ok)
