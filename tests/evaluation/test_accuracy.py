"""The numbers compared with a calculation written out the long way, on random tables."""

import json
import math
import random
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.support import record, rows_of
from verl_air.evaluation import ScoredRollout, accuracy_of, breakdown, meta_groups
from verl_air.evaluation.breakdown import estimate
from verl_air.evaluation.metrics import rollout_metrics

VERDICTS = st.sampled_from([1.0, 0.0, None])


@st.composite
def tables(draw: st.DrawFn, completions: int = 1) -> list[ScoredRollout]:
    """Any number of meta-groups over two domains and two splits, shuffled."""
    records = []
    for domain, split, z in product(("safety", "moral"), ("id", "ood"), range(draw(st.integers(0, 4)))):
        for s in range(draw(st.integers(1, 4))):
            role, family = ("anchor", "multiple_choice") if s == 0 else ("open", f"framing {s}")
            columns = dict(domain=domain, split=split, intent_id=f"z{z}", role=role, index=s)
            for _ in range(completions):
                acc = draw(VERDICTS if completions == 1 else st.sampled_from([1.0, 0.0]))
                records.append(record(**columns, context=family, family=family, acc=acc))
    return draw(st.permutations(records))


def long_way(records: Sequence[ScoredRollout]) -> dict[str, float | None]:
    verdicts = [r.acc for r in records if not math.isnan(r.acc)]
    right = same = 0
    names = {(r.domain, r.split, r.intent_id) for r in records}
    for name in names:
        accs = [r.acc for r in records if (r.domain, r.split, r.intent_id) == name]
        right += accs == [1.0] * len(accs)
        same += accs in ([1.0] * len(accs), [0.0] * len(accs))
    return {
        "prompts": sum(verdicts) / len(verdicts) if verdicts else None,
        "groups": right / len(names) if names else None,
        "consistent": same / len(names) if names else None,
        "abstained": (len(records) - len(verdicts)) / len(records) if records else None,
    }


@settings(deadline=None, max_examples=40)
@given(tables())
def test_every_line_of_the_table_is_what_the_long_way_gives(records: list[ScoredRollout]) -> None:
    expected, accuracy = long_way(records), accuracy_of(records)
    assert accuracy.prompts == pytest.approx(expected["prompts"])
    assert accuracy.groups == pytest.approx(expected["groups"])
    assert accuracy.abstained == pytest.approx(expected["abstained"])
    sections = breakdown(records)
    lines = [(section.domain, section.split, None, None, section.whole) for section in sections]
    lines += [(s.domain, s.split, line.kind, line.name, line.estimates) for s in sections for line in s.lines]
    for domain, split, kind, name, found in lines:
        chosen = [
            r
            for r in records
            if domain in ("all domains", r.domain)
            and r.split == split
            and (kind != "role" or r.role == name)
            and (kind != "family" or (r.family == name and r.role == "open"))
        ]
        expected = long_way(chosen)
        for what, one in (("prompts", found.prompts), ("groups", found.groups), ("consistent", found.consistent)):
            assert one.value == pytest.approx(expected[what])
            if one.value is not None:
                assert 0 <= one.low <= one.value + 1e-9
                assert one.value - 1e-9 <= one.high <= 1
        assert found.abstained == pytest.approx(expected["abstained"])
        assert (found.completions, found.intents) == (len(chosen), len({(r.domain, r.intent_id) for r in chosen}))


@settings(deadline=None, max_examples=40)
@given(tables(completions=2))
def test_several_completions_are_every_way_to_draw_one_of_each_prompt(records: list[ScoredRollout]) -> None:
    """Group accuracy is the share of draws, one completion per prompt, that are all right: enumerated here."""
    values = []
    for name in {(r.domain, r.split, r.intent_id) for r in records}:
        rows = [r for r in records if (r.domain, r.split, r.intent_id) == name]
        prompts = [[r.acc for r in rows if r.prompt == p] for p in {r.prompt for r in rows}]
        draws = list(product(*prompts))
        values.append(sum(all(draw) for draw in draws) / len(draws))
    expected = sum(values) / len(values) if values else None
    assert accuracy_of(records).groups == pytest.approx(expected)
    assert estimate(meta_groups(records)).groups.value == pytest.approx(expected)


@pytest.mark.parametrize("prompts", [2, 4, 5])
def test_one_wrong_prompt_in_each_group(prompts: int) -> None:
    records = [
        record(intent_id=f"z{z}", index=s, acc=float(s != z % prompts)) for z in range(20) for s in range(prompts)
    ]
    found = estimate(meta_groups(records))
    assert (found.groups.value, found.consistent.value, found.intents) == (0.0, 0.0, 20)
    assert found.groups.high < 0.17  # Wilson: 0 of 20
    assert found.prompts.value == pytest.approx((prompts - 1) / prompts)


def test_a_group_with_an_abstention_is_not_right() -> None:
    records = [record(intent_id="a", acc=1.0), record(intent_id="a", acc=None, index=1), record(intent_id="b", acc=1.0)]
    found = accuracy_of(records)
    assert (found.prompts, found.groups, found.intents, found.incomplete) == (1.0, 0.5, 2, 1)
    assert found.abstained == pytest.approx(1 / 3)


def test_a_group_that_lacks_a_row_is_not_right() -> None:
    """verl issue 7781: the row (open, f2) of intent i is missing, all that is there is right."""
    prompts = [("anchor", "a"), ("open", "f1"), ("open", "f2")]
    rows = [
        record(intent_id=intent, role=role, context=context, index=i, group_size=3, split_intents=2)
        for intent in ("i", "whole")
        for i, (role, context) in enumerate(prompts)
        if (intent, context) != ("i", "f2")
    ]
    (section,) = breakdown(rows)
    assert section.sized
    assert (section.whole.groups.value, section.whole.incomplete, section.whole.intents) == (0.5, 1, 2)
    assert (section.whole.groups.n, section.whole.consistent.value, section.whole.prompts.value) == (2, 0.5, 1.0)
    for role in ("anchor", "open"):  # the file does not say which row is missing
        assert section.line("role", role).groups.value == 0.5
        assert section.line("role", role).incomplete == 1
    assert not breakdown([record()])[0].sized, "older files cannot tell"


def test_an_intent_without_any_row_is_in_the_denominator() -> None:
    """Three of the four intents of safety are there, and both of moral."""
    safety = [record(intent_id=f"z{z}", index=s, group_size=2, split_intents=4) for z in range(3) for s in range(2)]
    moral = [record(domain="moral", intent_id=f"z{z}", group_size=1, split_intents=2) for z in range(2)]
    pooled, of_moral, of_safety = breakdown(safety + moral)
    assert [(s.whole.groups.value, s.whole.intents, s.whole.incomplete) for s in (of_safety, of_moral)] == [
        (0.75, 4, 1),
        (1.0, 2, 0),
    ]
    assert (pooled.whole.groups.value, pooled.whole.groups.n) == (pytest.approx(5 / 6), 6)
    assert of_safety.line("role", "open").intents == 4
    assert of_safety.line("family", "polite").intents == 3
    found = accuracy_of(safety)
    assert (found.groups, found.intents, found.incomplete, found.prompts) == (0.75, 4, 1, 1.0)


def test_harm_is_over_open_rows() -> None:
    """Refusing everything: harmful intents all right, benign ones all wrong, whatever the anchors say."""
    rows = []
    for z in range(10):
        extras = json.dumps({"harmful": z % 2 == 1})
        rows.append(record(intent_id=f"z{z}", role="anchor", context="mc", acc=1.0, extras=extras))
        rows.append(record(intent_id=f"z{z}", acc=float(z % 2), extras=extras))
    (section,) = breakdown(rows)
    assert section.line("harm", "harmful").prompts.value == 1.0
    assert section.line("harm", "benign").prompts.value == 0.0
    assert section.line("harm", "benign").intents == 5


# ---------------------------------------------------------------------------------------------------- as in training


def test_validation_during_training_says_the_same() -> None:
    from verl_air.training.metrics import validation_metrics

    identities = [
        {"intent_id": f"z{z}", "role": role, "split": "id", "domain": "safety", "context": role, "index": 2 * z + s}
        for z in range(6)
        for s, role in enumerate(("anchor", "open"))
    ]
    for identity in identities:
        identity.update(group_size=2 + (identity["intent_id"] == "z0"), split_intents=7)
    accs = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, None, 1.0, 1.0, 1.0, 1.0]
    metrics = validation_metrics(identities, ["safety/id"] * 12, {"acc": accs}, {"safety/id": 7})
    rows = [ScoredRollout.from_mapping({**i, "acc": a}, "row") for i, a in zip(identities, accs, strict=True)]
    (found,) = (section.whole for section in breakdown(rows))
    assert metrics["val-core/safety/id/acc"] == pytest.approx(found.prompts.value) == pytest.approx(8 / 11)
    assert metrics["val-core/safety/id/group_acc"] == pytest.approx(found.groups.value) == pytest.approx(2 / 7)
    assert metrics["val-core/safety/id/incomplete"] == pytest.approx(found.incomplete / 7) == pytest.approx(3 / 7)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_from_stored_rollouts_are_those_of_training(seed: int) -> None:
    from verl_air.training.batch import Trajectories
    from verl_air.training.metrics import training_metrics

    rng = random.Random(seed)
    rows = rows_of(rng, domain="safety", split="train", intents=8, skill=0.5, completions=3)
    rng.shuffle(rows)
    for row in rows[:4]:
        if row["role"] == "open":
            row.update(acc=None, score=None)
    records = [ScoredRollout.from_mapping(row, "row") for row in rows]
    reward = np.array([record.score for record in records])
    acc = np.array([record.acc for record in records])
    compact = lambda names: np.unique(names, return_inverse=True)[1]  # noqa: E731
    n = len(records)
    batch = Trajectories(
        keys=[str(i) for i in range(n)],
        prompt_N=compact([f"{record.intent_id} {record.prompt}" for record in records]),
        group_N=compact([record.intent_id for record in records]),
        role_N=np.array([record.role for record in records], dtype=object),
        domain_N=np.array(["safety"] * n, dtype=object),
        reward_N=reward,
        info_N={"acc": acc, "abstained": np.isnan(acc).astype(float)}
        | dict.fromkeys(("judge_mass", "format_ok"), np.full(n, np.nan)),
        length_N=np.ones(n, dtype=int),
        truncated_N=np.zeros(n, dtype=bool),
        padding_N=np.zeros(n, dtype=bool),
        final_N=np.ones(n, dtype=bool),
        session_N=np.arange(n),
    )
    expected = training_metrics(batch, np.isfinite(reward), 0)
    found = rollout_metrics(records)
    assert found == pytest.approx({name: expected[name] for name in found})
    assert len(found) == 7
    assert rollout_metrics([]) == {}, "nothing is left out rather than zero"
