"""The contract of ``trajectory_weights``: a straightforward calculation, invariances, and hostile input."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from verl_air.errors import ConfigError
from verl_air.objective import register_regularizer, trajectory_weights, unit_scale


def plain_air(reward, prompt, intent, anchor, valid, estimator):
    """The definition, row by row, in plain Python."""
    weights = []
    for i in range(len(reward)):
        same_intent = [j for j in range(len(reward)) if valid[j] and intent[j] == intent[i]]
        anchors = {prompt[j] for j in same_intent if anchor[j]}
        opens = {prompt[j] for j in same_intent if not anchor[j]}
        mates = [j for j in same_intent if prompt[j] == prompt[i]]
        if not valid[i] or anchor[i] or not anchors or not opens:
            weights.append(0.0)
            continue
        if estimator == "loo":
            mates = [j for j in mates if j != i]
            if not mates:
                weights.append(0.0)
                continue

        def mean(rows: list[int]) -> float:
            return sum(reward[j] for j in rows) / len(rows)

        anchor_mean = sum(mean([j for j in same_intent if prompt[j] == p]) for p in anchors) / len(anchors)
        weights.append((anchor_mean - mean(mates)) * reward[i])
    return weights


@st.composite
def batches(draw):
    rows = []
    for intent in range(draw(st.integers(1, 4))):
        for context in range(draw(st.integers(1, 4))):
            anchor = draw(st.booleans())
            for _ in range(draw(st.integers(1, 4))):
                rows.append(
                    (
                        draw(st.floats(-4, 4, width=32)),
                        intent * 100 - context * 7,  # neither contiguous nor ordered nor positive
                        -13 * intent + 5,
                        anchor,
                        draw(st.integers(0, 5)) > 0,
                        draw(st.booleans()),
                    )
                )
    order = draw(st.permutations(range(len(rows))))
    return [rows[i] for i in order]


ARGUMENTS = ("reward_N", "prompt_N", "intent_N", "is_anchor_N", "valid_N", "right_N")
REGULARIZERS = st.sampled_from(["air", "vrex", "group_accuracy", "group_accuracy_open"])


def as_tensors(rows):
    return {name: torch.tensor(column) for name, column in zip(ARGUMENTS, zip(*rows, strict=True), strict=True)}


def weights(columns, **options):
    return trajectory_weights(**columns, **options)


@given(batches(), st.sampled_from(["paper", "loo"]))
@settings(max_examples=300, deadline=None)
def test_equals_the_definition(rows, estimator) -> None:
    got = weights(as_tensors(rows), estimator=estimator)
    reward, prompt, intent, anchor, valid, _ = zip(*rows, strict=True)
    want = plain_air(reward, prompt, intent, anchor, valid, estimator)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float32), atol=1e-5, rtol=1e-5)


@given(batches(), st.sampled_from(["paper", "loo"]), st.sampled_from([0.0, 1.0]))
@settings(max_examples=200, deadline=None)
def test_group_accuracy_equals_the_definition(rows, estimator, prior) -> None:
    """Row by row: whether it was right, less the mean of its prompt, times the accuracies of the other prompts."""
    got = weights(as_tensors(rows), regularizer="group_accuracy", estimator=estimator, accuracy_prior=prior)
    want = []
    for _, prompt, intent, _, valid, right in rows:
        group = [row for row in rows if row[2] == intent]
        by_prompt = {p: [row[5] for row in group if row[1] == p and row[4]] for p in {row[1] for row in group}}
        roles = {row[3] for row in group if row[4]}
        own = by_prompt[prompt]
        if not valid or len(roles) < 2 or not all(by_prompt.values()) or (estimator == "loo" and len(own) < 2):
            want.append(0.0)
            continue
        others = [(sum(v) + prior / 2) / (len(v) + prior) for p, v in by_prompt.items() if p != prompt]
        mean = (sum(own) - right) / (len(own) - 1) if estimator == "loo" else sum(own) / len(own)
        want.append((right - mean) * math.prod(others))
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float32), atol=1e-6, rtol=1e-5)


@given(batches(), REGULARIZERS, st.sampled_from(["paper", "loo"]), st.randoms())
@settings(max_examples=200, deadline=None)
def test_order_and_names_of_rows_do_not_matter(rows, regularizer, estimator, random) -> None:
    columns, options = as_tensors(rows), {"regularizer": regularizer, "estimator": estimator}
    want = weights(columns, **options)
    order = list(range(len(rows)))
    random.shuffle(order)
    moved = {name: column[order] for name, column in columns.items()}
    renamed = {"prompt_N": moved["prompt_N"] * -3 + 11, "intent_N": moved["intent_N"] * 1000}
    got = weights(moved | renamed, **options)
    torch.testing.assert_close(got, want[order], atol=1e-6, rtol=1e-6)


@given(batches(), REGULARIZERS)
@settings(max_examples=100, deadline=None)
def test_invalid_rows_change_nothing(rows, regularizer) -> None:
    """Leaving invalid rows out and handing them in, with NaN for a reward, give the same weights.

    Of group accuracy, only while each prompt keeps a verdict: without one its meta-group's product is not known.
    """
    columns = as_tensors(rows)
    valid = columns["valid_N"]
    whole = weights(
        columns | {"reward_N": torch.where(valid, columns["reward_N"], float("nan"))}, regularizer=regularizer
    )
    assert torch.equal(whole[~valid], torch.zeros(int((~valid).sum())))
    lost = {row[2] for row in rows if not any(other[4] for other in rows if other[1] == row[1])}
    if regularizer.startswith("group_accuracy"):
        valid = valid & torch.tensor([row[2] not in lost for row in rows])
    if valid.any():
        part = weights({name: column[valid] for name, column in columns.items()}, regularizer=regularizer)
        torch.testing.assert_close(whole[valid], part)


def group(anchor_rewards, *open_rewards):
    """One intent: the rewards of one anchor prompt and of each open prompt."""
    reward = torch.tensor([r for rewards in (anchor_rewards, *open_rewards) for r in rewards])
    prompt = torch.tensor([s for s, rewards in enumerate((anchor_rewards, *open_rewards)) for _ in rewards])
    return reward, prompt, torch.zeros_like(prompt), prompt == 0


def test_a_prompt_without_variance_still_has_a_weight() -> None:
    """Where GRPO's advantage is zero: all completions wrong and the anchor right pushes them down."""
    weight = trajectory_weights(*group([1.25] * 3, [-1.0] * 3))
    assert (weight[3:] < 0).all()
    assert (weight[:3] == 0).all()


def test_hacked_open_rewards_are_suppressed() -> None:
    """The proxy pays more than the anchor does: the gap, and with it the weight, turns negative."""
    weight = trajectory_weights(*group([0.0] * 3, [2.5] * 3))
    assert (weight[3:] < 0).all()


def test_a_positive_gap_leaves_better_paid_variants_alone() -> None:
    assert (trajectory_weights(*group([0.0] * 3, [2.5] * 3), gap="positive") == 0).all()
    signed = trajectory_weights(*group([1.0] * 3, [0.5] * 3))
    assert torch.equal(trajectory_weights(*group([1.0] * 3, [0.5] * 3), gap="positive"), signed)


def test_shrinkage_keeps_a_certain_gap_and_removes_a_noisy_one() -> None:
    certain = group([1.0] * 3, [0.5] * 3)
    torch.testing.assert_close(trajectory_weights(*certain, shrinkage=1.0), trajectory_weights(*certain))
    noisy = group([1.0, -1.0, 0.4], [1.0, -1.0, 0.2])
    assert (trajectory_weights(*noisy, shrinkage=1.0) == 0).all()
    assert (trajectory_weights(*noisy)[3:] != 0).any()


def test_loo_is_undefined_for_one_completion_and_zero() -> None:
    assert (trajectory_weights(*group([1.0], [0.5]), estimator="loo") == 0).all()
    assert trajectory_weights(*group([1.0], [0.5]), estimator="paper")[1] == pytest.approx(0.25)


def test_intents_without_a_valid_anchor_have_no_weight() -> None:
    reward, prompt, intent, anchor = group([1.0] * 3, [0.5] * 3)
    weight = trajectory_weights(reward, prompt, intent, anchor, valid_N=~anchor)
    assert (weight == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_valid_reward_must_be_finite(bad: float) -> None:
    reward, prompt, intent, anchor = group([1.0] * 3, [0.5, bad, 0.5])
    with pytest.raises(ValueError, match=r"1 of 6 valid rewards are NaN or infinite"):
        trajectory_weights(reward, prompt, intent, anchor)


def test_a_prompt_of_two_intents_is_rejected() -> None:
    reward, prompt, intent, anchor = group([1.0] * 3, [0.5] * 3)
    with pytest.raises(ValueError, match="more than one intent"):
        trajectory_weights(reward, prompt, torch.arange(6), anchor)
    with pytest.raises(ValueError, match="more than one role"):
        trajectory_weights(reward, prompt, intent, torch.tensor([True, False] * 3))


def test_shapes_must_agree() -> None:
    reward, prompt, intent, anchor = group([1.0], [0.5])
    with pytest.raises(ValueError, match="one shape"):
        trajectory_weights(reward, prompt[:1], intent, anchor)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    batch = group([1.0], [0.5])
    with pytest.raises(ConfigError, match=r"'airr' is not registered \(did you mean 'air'"):
        trajectory_weights(*batch, regularizer="airr")
    with pytest.raises(ValueError, match="estimator"):
        trajectory_weights(*batch, estimator="looo")
    with pytest.raises(ValueError, match="gap"):
        trajectory_weights(*batch, gap="negative")


def test_group_accuracy_needs_verdicts_that_are_none_or_bool() -> None:
    batch = group([1.0] * 2, [0.5] * 2)
    with pytest.raises(ValueError, match=r"group_accuracy needs right_N, .* the key 'acc'"):
        trajectory_weights(*batch, regularizer="group_accuracy")
    with pytest.raises(ValueError, match=r"right_N must be bool, got torch\.float32"):
        trajectory_weights(*batch, right_N=torch.ones(4), regularizer="group_accuracy")
    with pytest.raises(ValueError, match="one shape"):
        trajectory_weights(*batch, right_N=torch.ones(3, dtype=torch.bool), regularizer="group_accuracy")


def test_third_parties_can_register() -> None:
    @register_regularizer("test_constant")
    def constant(groups, options):
        return torch.ones_like(groups.reward_N)

    weight = trajectory_weights(*group([1.0], [0.5]), regularizer="test_constant")
    assert weight.tolist() == [1.0, 1.0]  # it is the weight itself
    with pytest.raises(ConfigError, match="registered already"):
        register_regularizer("test_constant")(lambda groups, options: groups.reward_N)


def test_unit_scale() -> None:
    got = unit_scale(torch.tensor([-1.0, 2.5, 0.75]), torch.full((3,), -1.0), torch.full((3,), 2.5))
    assert got.tolist() == [-1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="above its minimum"):
        unit_scale(torch.zeros(1), torch.ones(1), torch.ones(1))
