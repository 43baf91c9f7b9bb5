from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.conftest import ROOT
from tests.training.support import NAN, TWO_GROUPS, K, batch
from verl_air.config import AirConfig
from verl_air.errors import DataError
from verl_air.training.batch import auxiliary_reward, loss_weights
from verl_air.training.metrics import judge_names, training_metrics, validation_metrics

GAPS = [(2.5 * 2 + 0.25) / 3 - (0.25 * 2 + 2.5) / 3, 2.5 - (0.25 - 2.0 + 0.25) / 3]


def test_metrics_count_what_is_there() -> None:
    t = batch(TWO_GROUPS, pad=2)
    metrics = training_metrics(t, ~t.padding_N, dropped_groups=1)
    assert metrics["air/groups/complete"] == 2
    assert metrics["air/groups/dropped"] == 1
    assert metrics["air/anchor_reward/mean"] == pytest.approx((2.5 * 5 + 0.25) / 6)
    assert metrics["air/zero_std_rate"] == pytest.approx(1 / 4)
    assert metrics["air/gap/mean"] == pytest.approx(np.mean(GAPS))
    assert metrics["air/gap_se"] == pytest.approx(np.std(GAPS, ddof=1) / np.sqrt(2))
    assert "air/gap/aux_mean" not in metrics


def test_each_domain_has_its_own_where_there_are_several() -> None:
    t = batch(TWO_GROUPS, domains="maths moral")
    metrics = training_metrics(t, ~t.padding_N, 0, aux_reward_N=t.reward_N)
    for domain, gap in zip(("maths", "moral"), GAPS, strict=True):
        assert metrics[f"air/gap/{domain}/mean"] == metrics[f"air/gap/{domain}/aux_mean"] == pytest.approx(gap)
    assert {"air/zero_std_rate/maths", "air/judge/moral/abstain_rate", "air/anchor_acc/moral"} <= set(metrics)
    page = (ROOT / "docs" / "how_it_works.md").read_text()
    missing = [name for name in metrics if "maths" not in name and "moral" not in name and f"`{name}`" not in page]
    assert not missing, f"docs/how_it_works.md does not list {missing}"


def test_the_auxiliary_gap_is_that_of_the_rewards_and_rows_that_are_weighted() -> None:
    t = batch(TWO_GROUPS)
    aux_reward_N = auxiliary_reward(t, AirConfig(reward_scale="unit"))  # maps [-2, 2.5] to [-1, 1]
    everything_N = np.ones(12, dtype=bool)
    metrics = training_metrics(t, everything_N, 0, aux_reward_N=aux_reward_N, weighted_N=t.group_N == t.group_N[0])
    assert metrics["air/gap/aux_mean"] == pytest.approx(GAPS[0] / 2.25)
    assert metrics["air/gap/mean"] == pytest.approx(np.mean(GAPS))


def test_responses_without_an_answer_are_counted() -> None:
    t = batch(TWO_GROUPS, pad=2)
    assert "air/no_answer_rate" not in training_metrics(t, ~t.padding_N, 0), "a reward that does not say"
    t.info_N["format_ok"][:] = [0.0, 0.0, 0.0, *[1.0] * 9, 0.0, 0.0]
    assert training_metrics(t, ~t.padding_N, 0)["air/no_answer_rate"] == pytest.approx(3 / 12)


@pytest.mark.parametrize(
    ("groups", "worse"),
    [
        ([[[-2.0] * K, [0.25] * K]] * 2, 1.0),  # a pretrained model's first step: no variance anywhere
        (TWO_GROUPS, 0.0),
        ([[[2.5] * K, [2.5] * K]] * 2, 0.0),
        ([[[-2.0] * K, [0.25] * K], [[0.25, -2.0, 0.25], [-2.0, 0.25, -2.0]]], 0.0),  # noise
        ([[[-2.0] * K, [0.25] * K]], None),  # no error to compare with
    ],
)
def test_anchors_that_are_worse_than_their_variants_are_reported_and_do_no_harm(
    groups: list, worse: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    t = batch(groups)
    everything_N = np.ones(len(t.keys), dtype=bool)
    metrics = training_metrics(t, everything_N, 0, aux_reward_N=t.reward_N)
    assert metrics.get("air/gap/anchors_worse") == worse
    assert len(caplog.messages) == bool(worse)
    if worse:
        assert "verl-air: all domains: anchors earn less than open variants (gap -2.25" in caplog.text
        assert (loss_weights(t, everything_N, AirConfig()) == 0).all()  # by default
        assert (loss_weights(t, everything_N, AirConfig(gap="signed"))[~t.is_anchor_N] < -0.5).all()


def test_abstained_rows_are_in_no_mean() -> None:
    t = batch([[[2.5] * K, [0.25, NAN, 2.5]]])
    metrics = training_metrics(t, ~t.abstained_N, 0)
    assert metrics["air/judge/abstain_rate"] == pytest.approx(1 / 3)
    assert metrics["air/open_reward/mean"] == pytest.approx(1.375)
    assert metrics["air/gap/mean"] == pytest.approx(2.5 - 1.375)


def test_each_judge_has_its_own_where_there_are_several() -> None:
    t = batch([[[2.5] * K, [0.25, NAN, 2.5]]])
    t.info_N["judge"] = np.where(t.is_anchor_N, NAN, np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0]))
    t.info_N["judge_mass"] = np.array([NAN, NAN, NAN, 0.5, 0.75, 1.0])
    metrics = training_metrics(t, ~t.abstained_N, 0, judges=["guard", "moral", "verl"])
    found = {name: value for name, value in metrics.items() if name.startswith("air/judges/")}
    assert found == {
        "air/judges/guard/abstain_rate": 0.5,
        "air/judges/guard/mass": 0.875,
        "air/judges/moral/abstain_rate": 0.0,
        "air/judges/moral/mass": 0.5,
    }
    config = OmegaConf.create({"reward": {"custom_reward_function": {"reward_kwargs": {"judges": {"a": 1, "b": 2}}}}})
    assert judge_names(config) == ["a", "b", "verl"]
    assert not any(name.startswith("air/judges/") for name in training_metrics(t, ~t.abstained_N, 0, judges=["verl"]))


def test_nothing_valid_leaves_means_out_instead_of_zero() -> None:
    t = batch(TWO_GROUPS)
    metrics = training_metrics(t, np.zeros(12, dtype=bool), 2, aux_reward_N=t.reward_N)
    assert metrics["air/groups/complete"] == 0
    assert not {"air/gap/mean", "air/gap/aux_mean", "air/open_reward/mean"} & set(metrics)


def rows(*accs: float | None, intent: str, split: str = "id", **sizes: int) -> tuple[list[dict], list[str], list]:
    identities = [
        {"intent_id": intent, "role": role, "split": split, "domain": "toy", "index": index, "context": f"c{index}"}
        | sizes
        for index, role in enumerate(["anchor"] + ["open"] * (len(accs) - 1))
    ]
    return identities, [f"toy/{split}"] * len(accs), list(accs)


def joined(*parts: tuple[list, list, list]) -> tuple[list, list, list]:
    identities, sources, accs = ([item for part in column for item in part] for column in zip(*parts, strict=True))
    return identities, sources, accs


def test_a_group_with_one_wrong_prompt_is_wrong() -> None:
    identities, sources, accs = joined(
        rows(1.0, 1.0, 1.0, intent="a"),
        rows(1.0, 1.0, 0.0, intent="b"),
        rows(1.0, None, 1.0, intent="c"),  # a row was abstained: not right, and incomplete
        rows(0.0, 0.0, intent="a", split="ood"),
    )
    metrics = validation_metrics(identities, sources, {"acc": accs})
    assert metrics["val-core/toy/id/acc"] == pytest.approx(7 / 8)
    assert metrics["val-core/toy/id/group_acc"] == metrics["val-core/toy/id/incomplete"] == pytest.approx(1 / 3)
    assert metrics["val-core/toy/id/anchor_acc"] == 1.0
    assert metrics["val-core/toy/id/abstain_rate"] == pytest.approx(1 / 9)
    assert metrics["val-core/toy/ood/group_acc"] == metrics["val-core/toy/ood/incomplete"] == 0.0


def test_the_denominator_is_every_intent_of_the_data_file() -> None:
    """Of four intents one is right, one lacks a row that failed, and two have no row at all."""
    identities, sources, accs = joined(
        rows(1.0, 1.0, 1.0, intent="a", group_size=3), rows(1.0, 1.0, intent="b", group_size=3)
    )
    metrics = validation_metrics(identities, sources, {"acc": accs}, {"toy/id": 4, "toy/ood": 2})
    assert metrics["val-core/toy/id/group_acc"] == pytest.approx(1 / 4)
    assert metrics["val-core/toy/id/incomplete"] == pytest.approx(3 / 4)
    assert (metrics["val-core/toy/ood/group_acc"], metrics["val-core/toy/ood/incomplete"]) == (0.0, 1.0)
    assert "val-core/toy/ood/acc" not in metrics


def test_several_completions_are_one_prompt() -> None:
    """A group is right with the probability that one completion of each prompt is."""
    identities, sources, accs = (column * 2 for column in rows(1.0, 1.0, intent="a", group_size=4))
    metrics = validation_metrics(identities, sources, {"acc": [*accs[:3], 0.0]})
    assert metrics["val-core/toy/id/group_acc"] == pytest.approx(1 / 2)


def test_without_acc_or_identity_nothing_is_claimed() -> None:
    identities, sources, accs = rows(1.0, intent="a")
    assert validation_metrics(identities, sources, {"score": accs}) == {}
    assert validation_metrics([{}], sources, {"acc": accs}) == {}
    with pytest.raises(DataError, match="validation row 0: extra_info lacks role or intent_id"):
        validation_metrics([{"index": 0}], sources, {"acc": accs})
