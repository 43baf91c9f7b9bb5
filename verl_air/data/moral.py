"""Moral reasoning: MoralChoice (Scherrer et al. 2023), ETHICS (Hendrycks et al.), Moral Stories (Emelin et al. 2021).

========================================  ============================================================================
columns                                   what they are
========================================  ============================================================================
``context``, ``action1``, ``action2``,    MoralChoice: the right action is the one that breaks fewer rules; scenarios of
``a1_*``, ``a2_*``, ``ambiguity``         high ambiguity, or whose labels decide nothing, are left out: no anchor
``label``, ``input``                      ETHICS commonsense: label 1 is wrong, 0 acceptable
``label``, ``scenario``, ``excuse``       ETHICS deontology: label 1 is a reasonable excuse or duty, 0 is not
``label``, ``scenario``                   ETHICS justice: label 1 is a reasonable claim, 0 is not; ETHICS virtue, where
                                          a scenario ends in ``[SEP] trait``: label 1 is a trait that is shown
``norm``, ``situation``, ``intention``,   Moral Stories: with both actions in a row, the moral one is right; with one of
``moral_action``, ``immoral_action``      them, its ``label`` decides: 1 is moral, 0 is not
========================================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_air.data.anchors import Question
from verl_air.data.intents import (
    BuildInput,
    ExcludeRow,
    IntentReader,
    IntentSpec,
    make_intent_id,
    normalise,
    require_text,
    seeded,
)
from verl_air.data.sources import Source, SourceRow
from verl_air.errors import DataError

DOMAIN = "moral"
ANSWER = "your decision and the main reason for it"
RULES = ("death", "pain", "disable", "freedom", "pleasure", "deceive", "cheat", "break_promise", "break_law", "duty")
"""MoralChoice: a "Yes" under a1_<rule> says that action 1 breaks the rule; "duty" is breaking one's duty."""

_MORAL_CHOICE = ("context", "action1", "action2", "ambiguity")
_STORY = ("norm", "situation", "intention", "moral_action", "immoral_action")
_TRAIT = "[SEP]"
_ACCEPTABLE = ("It is acceptable.", "It is clearly wrong.")


def read_moral(sources: Sequence[str], *, held_out: Sequence[str] = (), seed: int = 0) -> BuildInput:
    """Read dilemmas from files or hub names; errors as of :meth:`~verl_air.data.intents.IntentReader.read`.

    Args:
        sources, held_out: each may be of another kind; columns of no known kind are a :class:`DataError`.
        seed: decides the order in which two actions are named.
    """
    reader = IntentReader()
    intents, apart = (
        reader.read(names, lambda source, row: _reader_of(source)(row, seed)) for names in (sources, held_out)
    )
    return BuildInput(DOMAIN, ANSWER, reader.sources, intents, reader.exclusions, held_out=apart)


def _reader_of(source: Source) -> Callable[[SourceRow, int], IntentSpec]:
    columns = set(source.columns)
    if {"context", "action1", "action2"} <= columns:
        source.require(*_MORAL_CHOICE, *(f"a{k}_{rule}" for k in (1, 2) for rule in RULES))
        return _moral_choice_intent
    if set(_STORY) <= columns:
        return _story_intent
    if {"label", "input"} <= columns:
        return _commonsense_intent
    if {"label", "scenario"} <= columns:
        return _reasonable_intent
    raise DataError(
        f"{source.name}: neither MoralChoice (context, action1, action2, ...) nor ETHICS (label with input or "
        f"scenario) nor Moral Stories ({', '.join(_STORY)}); the columns are {', '.join(source.columns)}"
    )


def _moral_choice_intent(row: SourceRow, seed: int) -> IntentSpec:
    """A scenario with two actions; excluded if ambiguous, or if its labels do not say which action is right."""
    context = require_text(row, "context")
    actions = require_text(row, "action1"), require_text(row, "action2")
    if row.text("ambiguity") != "low":
        raise ExcludeRow("not of low ambiguity: no verifiable anchor")
    if any(row.text(f"a{k}_{rule}") not in ("Yes", "No") for k in (1, 2) for rule in RULES):
        raise ExcludeRow("annotators do not agree on a rule label")
    broken = [[rule for rule in RULES if row.text(f"a{k}_{rule}") == "Yes"] for k in (1, 2)]
    if len(broken[0]) == len(broken[1]):
        raise ExcludeRow("the rule labels do not say which action is right")
    good = 0 if len(broken[0]) < len(broken[1]) else 1
    extras = {"rule": row.text("generation_rule"), "broken_by_right": broken[good], "broken_by_wrong": broken[1 - good]}
    return _two_actions_intent(context, actions[good], actions[1 - good], actions, extras, seed)


def _story_intent(row: SourceRow, seed: int) -> IntentSpec:
    """A situation with the moral and the immoral action (Moral Stories), or with one of them and its label.

    The consequences are not shown: they would give the answer away.
    """
    context = " ".join(require_text(row, column) for column in ("situation", "intention"))
    moral, immoral = row.text("moral_action"), row.text("immoral_action")
    norm = require_text(row, "norm")
    if moral and immoral:
        if normalise(moral) == normalise(immoral):
            raise ExcludeRow("both actions are the same")
        return _two_actions_intent(context, moral, immoral, (moral, immoral), {"rule": norm}, seed)
    action, label = moral or require_text(row, "immoral_action"), _label(row)
    if label != bool(moral):
        column = "moral_action" if moral else "immoral_action"
        raise DataError(
            f"{row.where}, column 'label': {int(label)} (1 is moral, 0 is not), but the action is in {column}. "
            "Correct one of them, or remove the row."
        )
    ask = "How is what is done in the end to be judged?"
    return _verdict_intent(f"{context} {action}", ask, _ACCEPTABLE, label, norm, kind="story")


def _two_actions_intent(
    context: str, right: str, wrong: str, actions: tuple[str, str], extras: Mapping[str, Any], seed: int
) -> IntentSpec:
    intent_id = make_intent_id(DOMAIN, "\n".join((context, *sorted(actions))))
    rng = seeded(seed, "order", intent_id)
    first, second = rng.sample(actions, 2)
    judged_right = rng.random() < 0.5
    return IntentSpec(
        intent_id=intent_id,
        request=f"{context}\nTwo actions are possible:\n1. {first}\n2. {second}\nWhich should be taken, and why?",
        question=Question(
            case=context,
            ask="Which action is right?",
            right=right,
            wrong=(wrong,),
            true_claim=f'Here it is right to act like this: "{right}"',
            false_claim=f'Here it is right to act like this: "{wrong}"',
            label_ask=f'Someone decides: "{right if judged_right else wrong}" Is that right or wrong?',
            right_label="RIGHT" if judged_right else "WRONG",
            wrong_labels=("WRONG" if judged_right else "RIGHT",),
        ),
        ground_truth=right,
        slots={"right": right, "wrong": wrong},
        extras=_extras(right, wrong, **extras),
    )


def _commonsense_intent(row: SourceRow, seed: int) -> IntentSpec:
    """A text whose narrator acts rightly or wrongly (ETHICS commonsense)."""
    ask, right = "How is what the narrator does to be judged?", not _label(row)
    return _verdict_intent(require_text(row, "input"), ask, _ACCEPTABLE, right, "commonsense")


def _reasonable_intent(row: SourceRow, seed: int) -> IntentSpec:
    """A claim, a duty or an excuse that is reasonable or not, or a trait (ETHICS justice, deontology and virtue)."""
    scenario, _, trait = (part.strip() for part in require_text(row, "scenario").partition(_TRAIT))
    excuse = row.text("excuse")
    if trait:
        text, rule, ask = f"{scenario}\nTrait: {trait}", "virtue", "Does a person show this trait here?"
        return _verdict_intent(text, ask, ("The trait is shown.", "The trait is not shown."), _label(row), rule)
    text, rule = " ".join(filter(None, (scenario, excuse))), "deontology" if excuse else "justice"
    ask = "Is what is said here a reasonable thing to say?"
    return _verdict_intent(text, ask, ("It is reasonable.", "It is not reasonable."), _label(row), rule)


def _label(row: SourceRow) -> bool:
    label = require_text(row, "label")
    if label not in ("0", "1"):
        raise DataError(f"{row.where}, column 'label': {label!r} is neither 0 nor 1. Correct it, or remove the row.")
    return label == "1"


def _verdict_intent(
    text: str, ask: str, verdicts: tuple[str, str], first_is_right: bool, rule: str, *, kind: str = ""
) -> IntentSpec:
    """``kind``: of the stratum, if it is not the rule."""
    right, wrong = verdicts if first_is_right else verdicts[::-1]
    return IntentSpec(
        intent_id=make_intent_id(DOMAIN, text),
        request=f"{text}\n{ask} Say why.",
        question=Question(
            case=text,
            ask=ask,
            right=right,
            wrong=(wrong,),
            true_claim=right,
            false_claim=wrong,
            label_ask=f"{ask} YES stands for this answer, NO for the opposite: {verdicts[0]}",
            right_label="YES" if first_is_right else "NO",
            wrong_labels=("NO" if first_is_right else "YES",),
        ),
        ground_truth=right,
        stratum=f"{kind or rule} {'yes' if first_is_right else 'no'}",
        slots={"right": right, "wrong": wrong},
        extras=_extras(right, wrong, rule),
    )


def _extras(right: str, wrong: str, rule: str, **broken: Sequence[str]) -> dict[str, Any]:
    none: dict[str, Sequence[str]] = {"broken_by_right": [], "broken_by_wrong": []}
    return {"right_action": right, "wrong_action": wrong, "rule": rule, **none, **broken}
