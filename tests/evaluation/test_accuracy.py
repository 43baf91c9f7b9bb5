"""The numbers against a calculation written out the long way, on random tables."""

import math
from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.support import record
from verl_air.evaluation import Record, accuracy_of, breakdown, estimate
from verl_air.training.metrics import validation_metrics

VERDICTS = st.sampled_from([1.0, 0.0, None])


@st.composite
def tables(draw: st.DrawFn, completions: int = 1) -> list[Record]:
    """Any number of meta-groups over two domains and two splits, shuffled."""
    records = []
    for domain, split, z in product(("safety", "moral"), ("id", "ood"), range(draw(st.integers(0, 4)))):
        for s in range(draw(st.integers(1, 4))):
            role, family = ("anchor", "multiple_choice") if s == 0 else ("open", f"framing {s}")
            for _ in range(completions):
                acc = draw(VERDICTS if completions == 1 else st.sampled_from([1.0, 0.0]))
                records.append(
                    record(
                        domain=domain,
                        split=split,
                        intent_id=f"z{z}",
                        role=role,
                        context=family,
                        family=family,
                        index=s,
                        acc=acc,
                    )
                )
    return draw(st.permutations(records))


def long_way(records: Sequence[Record]) -> dict[str, float | None]:
    verdicts = [r.acc for r in records if not math.isnan(r.acc)]
    right = same = whole = 0
    for name in {(r.domain, r.split, r.intent_id) for r in records}:
        accs = [r.acc for r in records if (r.domain, r.split, r.intent_id) == name]
        if any(math.isnan(acc) for acc in accs):
            continue
        whole += 1
        right += accs == [1.0] * len(accs)
        same += len(set(accs)) == 1
    return {
        "prompts": sum(verdicts) / len(verdicts) if verdicts else None,
        "groups": right / whole if whole else None,
        "consistent": same / whole if whole else None,
        "abstained": (len(records) - len(verdicts)) / len(records) if records else None,
    }


@settings(deadline=None, max_examples=40)
@given(tables())
def test_accuracy_is_what_the_long_way_gives(records: list[Record]) -> None:
    expected, found = long_way(records), accuracy_of(records)
    assert found.prompts == pytest.approx(expected["prompts"])
    assert found.groups == pytest.approx(expected["groups"])
    assert found.abstained == pytest.approx(expected["abstained"])


@settings(deadline=None, max_examples=40)
@given(tables())
def test_every_line_of_the_table_is_what_the_long_way_gives(records: list[Record]) -> None:
    lines = [(section.domain, section.split, None, None, section.whole) for section in breakdown(records)]
    lines += [(s.domain, s.split, part.kind, part.name, part.estimates) for s in breakdown(records) for part in s.parts]
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
        assert found.prompts.value == pytest.approx(expected["prompts"])
        assert found.groups.value == pytest.approx(expected["groups"])
        assert found.consistent.value == pytest.approx(expected["consistent"])
        assert found.abstained == pytest.approx(expected["abstained"])
        assert found.completions == len(chosen)
        assert found.intents == len({(r.domain, r.intent_id) for r in chosen})


@settings(deadline=None, max_examples=40)
@given(tables())
def test_values_lie_in_their_intervals(records: list[Record]) -> None:
    found = estimate(records)
    for one in (found.prompts, found.groups, found.consistent):
        if one.value is not None:
            assert 0 <= one.low <= one.value + 1e-9
            assert one.value - 1e-9 <= one.high <= 1


@settings(deadline=None, max_examples=40)
@given(tables(completions=2))
def test_several_completions_are_every_way_to_draw_one_of_each_prompt(records: list[Record]) -> None:
    """Group accuracy is the share of draws, one completion a prompt, that are all right: enumerated here."""
    values = []
    for name in {(r.domain, r.split, r.intent_id) for r in records}:
        rows = [r for r in records if (r.domain, r.split, r.intent_id) == name]
        prompts = [[r.acc for r in rows if r.prompt == p] for p in {r.prompt for r in rows}]
        draws = list(product(*prompts))
        values.append(sum(all(draw) for draw in draws) / len(draws))
    expected = sum(values) / len(values) if values else None
    assert accuracy_of(records).groups == pytest.approx(expected)
    assert estimate(records).groups.value == pytest.approx(expected)


@pytest.mark.parametrize("prompts", [2, 4, 5])
def test_one_wrong_prompt_in_each_group(prompts: int) -> None:
    records = [
        record(intent_id=f"z{z}", index=s, acc=float(s != z % prompts)) for z in range(20) for s in range(prompts)
    ]
    found = estimate(records)
    assert found.groups.value == 0.0
    assert found.groups.high < 0.17  # Wilson: 0 of 20
    assert found.consistent.value == 0.0
    assert found.prompts.value == pytest.approx((prompts - 1) / prompts)
    assert found.intents == 20


def test_a_group_with_an_abstention_has_no_group_accuracy() -> None:
    records = [record(intent_id="a", acc=1.0), record(intent_id="a", acc=None, index=1), record(intent_id="b", acc=1.0)]
    found = accuracy_of(records)
    assert (found.prompts, found.groups, found.intents) == (1.0, 1.0, 1)
    assert found.abstained == pytest.approx(1 / 3)


def test_harm_is_cut_on_open_rows() -> None:
    """Refusing everything: harmful intents all right, benign ones all wrong, whatever the anchors say."""
    rows = []
    for z in range(10):
        extras = f'{{"harmful": {"true" if z % 2 else "false"}}}'
        rows.append(record(intent_id=f"z{z}", role="anchor", context="mc", acc=1.0, extras=extras))
        rows.append(record(intent_id=f"z{z}", acc=float(z % 2), extras=extras))
    (section,) = breakdown(rows)
    assert section.part("harm", "harmful").prompts.value == 1.0
    assert section.part("harm", "benign").prompts.value == 0.0
    assert section.part("harm", "benign").intents == 5


def test_validation_during_training_says_the_same() -> None:
    identities = [
        {"intent_id": f"z{z}", "role": role, "split": "id", "domain": "safety", "context": role, "index": 2 * z + s}
        for z in range(6)
        for s, role in enumerate(("anchor", "open"))
    ]
    accs = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, None, 1.0, 1.0, 0.0, 1.0]
    metrics = validation_metrics(identities, ["safety/id"] * 12, {"acc": accs})
    found = estimate([Record.from_mapping({**i, "acc": a}, "row") for i, a in zip(identities, accs, strict=True)])
    assert metrics["val-core/safety/id/acc"] == pytest.approx(found.prompts.value) == pytest.approx(7 / 11)
    assert metrics["val-core/safety/id/group_acc"] == pytest.approx(found.groups.value) == pytest.approx(2 / 5)
