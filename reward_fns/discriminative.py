"""``discriminative``: a served reward model that scores a finished conversation with one number.

The number has no fixed scale, and rewards need one: ``graded`` maps it by a logistic curve around ``threshold``, with
the width ``temperature``, onto [wrong, right]; otherwise the threshold alone decides.
"""

from math import tanh

from verl_air.rewards import ConfigError, JudgeClient, Prompt, Sample, Verdict, register_reward

CONVERSATION: Prompt = ({"role": "user", "content": "{request}"}, {"role": "assistant", "content": "{response}"})


def _check(*, temperature: float, **_: object) -> None:
    if temperature <= 0:
        raise ConfigError(f"discriminative: temperature must be above 0, got {temperature}")


@register_reward("discriminative", check=_check)
async def discriminative(
    sample: Sample,
    judge: JudgeClient,
    *,
    conversation: Prompt = CONVERSATION,
    output: int = -1,
    threshold: float = 0.0,
    temperature: float = 1.0,
    graded: bool = True,
    right: float = 1.25,
    wrong: float = -1.0,
) -> Verdict:
    """Right if the model's output number ``output`` is above the threshold.

    Raises:
        ConfigError: the model has no such output.
    """
    outputs = await judge.classify(conversation, fields=sample.fields)
    if not -len(outputs) <= output < len(outputs):
        raise ConfigError(f"discriminative: output {output} is asked for, and the model has {len(outputs)}")
    value = outputs[output]
    logistic = 0.5 + 0.5 * tanh(0.5 * (value - threshold) / temperature)  # written so, no value overflows
    share = logistic if graded else float(value > threshold)
    return Verdict(wrong + (right - wrong) * share, value > threshold)
