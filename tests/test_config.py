import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from verl_air import AirConfig, ConfigError


def test_the_defaults_are_the_papers_but_for_its_biased_estimator_and_its_signed_gap() -> None:
    config = AirConfig()
    assert (config.regularizer, config.coef, config.estimator) == ("air", 8e-4, "loo")
    assert (config.normalize_by, config.importance, config.aux_reward) == ("all", "none", "total")
    assert (config.gap, config.gap_shrinkage, config.reward_scale) == ("positive", 0.0, "raw")
    assert config.group_size == 4


def test_the_package_imports_no_torch() -> None:
    code = "import sys, verl_air; sys.exit(any(name in sys.modules for name in ('torch', 'verl', 'ray')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reads_a_mapping_and_the_target_key_of_hydra() -> None:
    config = AirConfig.from_mapping({"_target_": "verl_air.AirConfig", "coef": 0.1, "estimator": "loo"})
    assert (config.coef, config.estimator) == (0.1, "loo")


def test_reads_a_number_that_yaml_takes_for_a_string() -> None:
    assert AirConfig.from_mapping({"coef": "8e-4"}).coef == 8e-4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"coeff": 1.0},
            r"air.coeff: unknown key \(did you mean 'coef'\?\); known: estimator, gap, gap_shrinkage, ",
        ),
        ({"estimator": "lo"}, "air.estimator: 'lo' should be 'loo' or 'paper'"),
        ({"coef": -1.0}, "air.coef: -1.0 should be greater than or equal to 0"),
        ({"coef": "much"}, "air.coef: 'much' should be a valid number"),
        ({"coef": True}, "air.coef: True should be a valid number"),
        ({"coef": float("nan")}, "air.coef: nan should be a finite number"),
        ({"open_per_intent": 0}, "air.open_per_intent: 0 should be greater than or equal to 1"),
        ({"anchors_per_intent": 1.5}, "air.anchors_per_intent: 1.5 should be a valid integer"),
        ({"max_abstain_rate": 2}, "air.max_abstain_rate: 2 should be less than or equal to 1"),
        ({"domain_weights": {"safety": 0}}, "air.domain_weights.safety: 0 should be greater than 0"),
        ({"domain_weights": {"safety": "much"}}, "air.domain_weights.safety: 'much' should be a valid number"),
        (
            {"domain_weights": {"safety/harmful": 1}},
            "has the key 'safety/harmful': write a domain, or domain/key/value",
        ),
        ({"domain_weights": [1]}, "air.domain_weights: .* should be a valid dictionary"),
        ({"regularizer": 3}, "air.regularizer: 3 should be a valid string"),
        ([1], "air: expected keys and values"),
    ],
)
def test_bad_values_are_named(values: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AirConfig.from_mapping(values)


def test_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        AirConfig().coef = 1.0  # type: ignore[misc]


def test_the_table_of_options_is_in_step() -> None:
    page = (ROOT / "docs" / "how_it_works.md").read_text()
    table = page.split("## Options of `air:`")[1].split("## ")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    documented = {
        name: default
        for names, defaults in rows
        for name, default in zip(re.findall(r"`(\w+)`", names), defaults.strip().split(", "), strict=True)
    }
    air = AirConfig()
    assert documented.keys() == AirConfig.model_fields.keys()
    for name, default in documented.items():
        value = getattr(air, name)
        assert default == f"`{value}`" if isinstance(value, str | dict | bool) else float(default) == value, name
