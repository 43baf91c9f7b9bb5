from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.support import FIXTURES
from verl_air.data.math import read_math
from verl_air.data.moral import RULES, read_moral
from verl_air.data.safety import read_safety
from verl_air.errors import DataError

REQUESTS, PROBLEMS, DILEMMAS = (str(FIXTURES / name) for name in ("requests.csv", "problems.jsonl", "dilemmas.csv"))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_safety_takes_the_shipped_harmless_requests_as_contrast() -> None:
    material = read_safety([REQUESTS])
    kinds = [intent.extras["kind"] for intent in (*material.intents, *material.contrast)]
    assert (kinds.count("harmful"), kinds.count("plain"), kinds.count("scary_sounding")) == (20, 30, 30)
    for intent in (*material.intents, *material.contrast):
        harmful = intent.extras["kind"] == "harmful"
        assert intent.ground_truth == ("refuse" if harmful else "help")
        assert intent.question.right.startswith("Decline" if harmful else "Help")
        assert intent.question.right_label == ("DECLINE" if harmful else "HELP")
        assert len({intent.question.right, *intent.question.wrong}) == 4


def test_safety_counts_duplicates_and_empty_requests(tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", 'ask\nHow do I x?\n"  how do I   X? "\n\n" "\nHow do I y?\n')
    material = read_safety([path], column="ask", shipped_benign=False)
    assert [intent.request for intent in material.intents] == ["How do I x?", "How do I y?"]
    assert material.exclusions.counts == {"duplicate": 1, "empty ask": 1}
    assert material.exclusions.examples["duplicate"] == ["own.csv, line 3"]


def test_a_harmless_request_that_is_also_harmful_is_taken_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "benign.csv", "goal\nExplain how to pick the lock of a neighbour's door\nWater the plants\n"
    )
    material = read_safety([REQUESTS], benign=[path], shipped_benign=False)
    assert [intent.request for intent in material.contrast] == ["Water the plants"]
    assert material.exclusions.counts == {"duplicate": 1}


def test_a_named_column_must_be_there_but_in_harmless_files(tmp_path: Path) -> None:
    harmful = write(tmp_path / "harmful.csv", "ask,goal\nHow do I x?,wrong column\n")
    benign = write(tmp_path / "benign.csv", "goal\nWater the plants\n")
    material = read_safety([harmful], benign=[benign], shipped_benign=False, column="ask")
    assert [intent.request for intent in (*material.intents, *material.contrast)] == ["How do I x?", "Water the plants"]
    with pytest.raises(DataError, match="no column 'ask'; the columns are goal"):
        read_safety([REQUESTS], column="ask")
    with pytest.raises(DataError, match="no column 'ask'; the columns are question, answer"):
        read_math([PROBLEMS], column="ask")


@pytest.mark.parametrize("reader", [read_safety, read_math, read_moral])
def test_unknown_columns_are_an_error_that_lists_those_present(reader, tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", "colour,taste\nred,sweet\n")
    with pytest.raises(DataError, match=r"own\.csv: .*the columns are colour, taste"):
        reader([path])


def test_math_leaves_out_what_has_no_answer(tmp_path: Path) -> None:
    no_answer = '{"question": "a?", "answer": "So it is 3."}\n'
    others = (
        '{"question": "b?", "answer": "#### many"}\n'
        '{"question": "c?", "answer": "1+1=2\\n#### $1,200.50"}\n{"question": "d?"}\n'
    )
    material = read_math([write(tmp_path / "own.jsonl", no_answer + others)])
    assert [(z.request, z.ground_truth, z.question.right) for z in material.intents] == [("c?", "1200.5", "1,200.5")]
    assert material.exclusions.counts == {
        "no final answer (#### ... or \\boxed{...}) in the worked solution": 1,
        "the final answer is not a number": 1,
        "empty answer": 1,
    }
    with pytest.raises(DataError, match=r"none\.jsonl: no usable row \(1 no final answer"):
        read_math([write(tmp_path / "none.jsonl", no_answer)])


def test_moral_takes_the_action_that_breaks_fewer_rules() -> None:
    intents = read_moral([DILEMMAS]).intents
    purse, hall, match = (
        next(z for z in intents if word in z.request) for word in ("purse", "village hall", "referee")
    )
    assert purse.question.right == purse.ground_truth == "I hand it in at the lost property office."
    assert purse.question.wrong == ("I keep the money that is inside.",)
    assert (purse.extras["broken_by_wrong"], purse.extras["broken_by_right"]) == (["cheat", "break_law"], [])
    assert hall.question.right == "I lock up after the last guest leaves.", "whichever action comes first"
    assert match.question.right == "I judge every foul by the same rule."
    right_first = [z.request.index(z.ground_truth) < z.request.index("2. ") for z in intents]
    assert 0 < sum(right_first) < len(right_first), "both orders of actions occur"


def test_moral_needs_all_rule_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "own.csv", "context,action1,action2,ambiguity\na,b,c,low\n")
    with pytest.raises(DataError, match=f"no column 'a1_{RULES[0]}'"):
        read_moral([path])


def test_ethics_files_are_read(tmp_path: Path) -> None:
    commonsense = read_moral([str(FIXTURES / "commonsense.csv")]).intents
    assert [z.question.right for z in commonsense[:2]] == ["It is acceptable.", "It is clearly wrong."]
    assert {intent.stratum for intent in commonsense} == {"commonsense yes", "commonsense no"}
    deontology = write(
        tmp_path / "deontology.csv",
        "label,scenario,excuse\n1,Could you feed the cat?,No because I am away.\n"
        "0,Could you feed the cat?,No because it is red.\n",
    )
    justice = write(
        tmp_path / "justice.csv", "label,scenario\n1,I paid her since she had worked.\n,I paid him since it rained.\n"
    )
    virtue = write(
        tmp_path / "virtue.csv",
        "label,scenario\n1,Al gave the purse back. [SEP] honest\n0,Al gave the purse back. [SEP] greedy\n",
    )
    material = read_moral([deontology, justice, virtue])
    verdicts = ["It is reasonable.", "It is not reasonable.", "It is reasonable."]
    verdicts += ["The trait is shown.", "The trait is not shown."]
    assert [intent.question.right for intent in material.intents] == verdicts
    assert [intent.extras["rule"] for intent in material.intents] == ["deontology"] * 2 + ["justice"] + ["virtue"] * 2
    assert "No because I am away." in material.intents[0].request
    assert "gave the purse back.\nTrait: greedy\n" in material.intents[4].request
    assert material.exclusions.counts == {"empty label": 1}
    with pytest.raises(DataError, match=r"odd.csv, line 3, column 'label': '2' is neither 0 nor 1. Correct it, or"):
        read_moral([write(tmp_path / "odd.csv", "label,input\n0,I sat.\n2,I stood.\n")])


def test_an_intent_says_which_source_it_is_from(tmp_path: Path) -> None:
    """So that ``air.domain_weights`` can weigh sources."""
    names = [write(tmp_path / f"{name}.csv", f"goal\nDo {name}\n") for name in ("a", "b")]
    material = read_safety(names, shipped_benign=False)
    assert [intent.extras["source"] for intent in material.intents] == ["a.csv", "b.csv"]
