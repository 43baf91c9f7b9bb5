"""Each fault is planted in a good file; the check must name it, its row and its column, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.support import FORMATS, build_fixture, spoil
from verl_air.data import near_duplicates
from verl_air.data.build import BuildOptions
from verl_air.data.check import CheckOptions, CheckReport, check_files
from verl_air.data.check.contents import PromptLengths
from verl_air.data.check.gold import AnswerPositions, GoldCheck
from verl_air.data.schema import DataRow, PromptMessage, read_rows, write_rows
from verl_air.errors import DataError

Change = Callable[[list[DataRow]], object]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return build_fixture("math", tmp_path)


def faults(report: CheckReport) -> list[tuple[str, str, int, str]]:
    return [(Path(f.file).stem, f.check, f.row, f.column) for f in report.findings]


def extras(row: DataRow, **changes: object) -> None:
    row["extra_info"]["extras"] = json.dumps({**json.loads(row["extra_info"]["extras"]), **changes})


def info(rows: list[DataRow], row: int, **changes: object) -> None:
    rows[row]["extra_info"].update(changes)  # type: ignore[typeddict-item]


def gold(row: DataRow, ground_truth: str) -> None:
    row["reward_model"]["ground_truth"] = ground_truth


def other_letter(row: DataRow) -> None:
    gold(row, "A" if row["reward_model"]["ground_truth"] != "A" else "B")


CHOICES = "extra_info.extras.choices"


# DataRow 0 of a file is an anchor of its first intent; rows 1 to 3 of id.parquet are that intent's open rows.
PLANTED: list[tuple[str, Change, str, int, str]] = [
    ("unknown role", lambda rows: info(rows, 2, role="judge"), "values", 2, "extra_info.role"),
    ("unknown split", lambda rows: info(rows, 2, split="dev"), "values", 2, "extra_info.split"),
    ("missing id", lambda rows: info(rows, 1, intent_id=None), "values", 1, "extra_info.intent_id"),
    ("missing index", lambda rows: info(rows, 1, index=None), "values", 1, "extra_info.index"),
    ("empty context", lambda rows: info(rows, 1, context=" "), "values", 1, "extra_info.context"),
    ("index twice", lambda rows: info(rows, 5, index=4), "id twice", 5, "extra_info.index"),
    ("wrong source", lambda rows: rows[3].update(data_source="math/ood"), "data_source", 3, "data_source"),
    ("other ability", lambda rows: rows[3].update(ability="sport"), "data_source", 3, "ability"),
    ("lost row", lambda rows: rows.pop(3), "incomplete", 0, "extra_info.role"),
    ("lost anchor", lambda rows: rows.pop(0), "incomplete", 0, "extra_info.role"),
    ("held-out family", lambda rows: info(rows, 2, family="fiction"), "family leak", -2, "extra_info.family"),
    ("no message", lambda rows: rows[1].update(prompt=[]), "prompt", 1, "prompt"),
    ("blank message", lambda rows: rows[1]["prompt"][0].update(content=" \n"), "prompt", 1, "prompt.content"),
    ("odd speaker", lambda rows: rows[1]["prompt"][0].update(role="robot"), "prompt", 1, "prompt.role"),
    ("prompt twice", lambda rows: rows[2].update(prompt=rows[1]["prompt"]), "repeated prompt", 2, "prompt"),
    ("wrong style", lambda rows: rows[0]["reward_model"].update(style="model"), "", 0, "reward_model.style"),
    ("no gold", lambda rows: gold(rows[0], ""), "", 0, "reward_model.ground_truth"),
    ("gold not offered", lambda rows: gold(rows[0], "E"), "", 0, "reward_model.ground_truth"),
    ("wrong letter", lambda rows: other_letter(rows[0]), "gold", 0, CHOICES),
    ("equal choices", lambda rows: extras(rows[0], choices=["7", "8", "9", "7.0"]), "gold", 0, CHOICES),
    ("same choices", lambda rows: extras(rows[0], choices=["a", "b", "c", " A"]), "gold", 0, CHOICES),
    ("other request", lambda rows: extras(rows[1], request="Why?"), "id twice", 1, "extra_info.intent_id"),
    ("slash in a domain", lambda rows: info(rows, 1, domain="math/a"), "values", 1, "extra_info.domain"),
    ("unknown response style", lambda rows: extras(rows[0], style="native"), "", 0, "extra_info.extras.style"),
    ("two response styles", lambda rows: extras(rows[0], style="plain"), "style", -1, "extra_info.extras.style"),
    ("unknown verifier", lambda rows: extras(rows[0], verifier="oracle"), "", 0, "reward_model.ground_truth"),
    ("unreadable extras", lambda rows: info(rows, 0, extras="{"), "", 0, "extra_info.extras"),
    ("extras no object", lambda rows: info(rows, 0, extras="[1]"), "", 0, "extra_info.extras"),
]


@pytest.mark.parametrize(("change", "check", "row", "column"), [p[1:] for p in PLANTED], ids=[p[0] for p in PLANTED])
def test_a_planted_fault_is_found_at_its_place(
    files: list[Path], change: Change, check: str, row: int, column: str
) -> None:
    assert check_files(files).findings == []
    spoil(files[1], change)
    found = faults(check_files(files))
    places = [(file, kind, at, where) for file, kind, at, where in found if where == column]
    assert places, found
    if row >= 0:
        assert ("id", check or column, row, column) in places


ALONE = ("wrong letter", "equal choices", "blank message", "prompt twice", "index twice")


@pytest.mark.parametrize(("change", "column"), [p[1::3] for p in PLANTED if p[0] in ALONE])
def test_one_fault_is_one_finding(files: list[Path], change: Change, column: str) -> None:
    spoil(files[1], change)
    report = check_files(files)
    assert {finding.column for finding in report.findings} == {column}
    assert not report.ok


def test_a_training_intent_in_ood_is_a_leak(files: list[Path]) -> None:
    trained = next(read_rows(files[0]))["extra_info"]["intent_id"]
    spoil(files[2], lambda rows: [row["extra_info"].update(intent_id=trained) for row in rows[:4]])
    found = faults(check_files(files))
    assert ("ood", "intent leak", 0, "extra_info.intent_id") in found
    assert [kind for file, kind, *_ in found].count("intent leak") == 1, "once an intent, not once a row"


def test_a_training_family_in_ood_is_a_leak(files: list[Path]) -> None:
    spoil(files[2], lambda rows: info(rows, 1, context="math-captain", family="role_play"))
    report = check_files(files)
    assert faults(report) == [("ood", "family leak", 1, "extra_info.family")]
    assert report.findings[0].message.startswith("family 'role_play' is met in training or ID too")


def test_an_intent_in_two_files_of_a_split_or_two_domains_is_found_twice(files: list[Path], tmp_path: Path) -> None:
    copy = write_rows(tmp_path / "copy.parquet", read_rows(files[1]))
    assert "id twice" in {f.check for f in check_files([*files, copy]).findings}


def test_an_id_is_unique_within_its_domain(files: list[Path]) -> None:
    """The same id in another domain is another intent; two requests under one id of one domain are an error."""
    write_rows(files[1], read_rows(files[0]))
    spoil(files[1], lambda rows: [info(rows, n, split="id") for n in range(len(rows))])
    assert "intent leak" in {f.check for f in check_files(files[:2]).findings}
    spoil(files[1], lambda rows: [info(rows, n, domain="lab") for n in range(len(rows))])
    assert {f.check for f in check_files(files[:2]).findings} == {"data_source", "near-duplicate"}


def test_a_near_duplicate_across_splits_is_a_warning(files: list[Path]) -> None:
    request = json.loads(next(read_rows(files[0]))["extra_info"]["extras"])["request"]
    spoil(files[1], lambda rows: [extras(row, request=request.upper() + " Now!") for row in rows[:4]])
    report = check_files(files[:2])
    assert faults(report) == [("id", "near-duplicate", 0, "extra_info.intent_id")]
    assert (report.ok, report.number("warning")) == (True, 1)


def test_more_rows_can_be_asked_of_an_intent(files: list[Path]) -> None:
    report = check_files(files[1:2], CheckOptions(anchors=2))
    assert {f.check for f in report.findings} == {"incomplete"}
    assert "has 1 anchor(s) and 3 open row(s) in split 'id'; a visit takes 2 and 3" in report.findings[0].message


def test_faults_beyond_the_limit_are_counted(files: list[Path]) -> None:
    spoil(files[0], lambda rows: [row["extra_info"].update(context="") for row in rows])
    report = check_files(files[:1], CheckOptions(limit=3))
    assert report.counts["error", "values"] == len(list(read_rows(files[0])))
    assert len([f for f in report.findings if f.check == "values"]) == 3


def test_answers_that_lean_to_one_place_are_a_warning(tmp_path: Path) -> None:
    files = build_fixture("safety", tmp_path, BuildOptions(formats=FORMATS))
    assert check_files(files).findings == []

    def always_first(rows: list[DataRow]) -> None:
        for row in rows:
            choices = json.loads(row["extra_info"]["extras"]).get("choices")
            if choices:
                gold = choices["ABCD".index(row["reward_model"]["ground_truth"])]
                extras(row, choices=[gold, *(choice for choice in choices if choice != gold)])
                row["reward_model"]["ground_truth"] = "A"

    spoil(files[0], always_first)
    (finding,) = check_files(files).findings
    assert (finding.severity, finding.check, Path(finding.file).stem) == ("warning", "answer positions", "train")
    assert "is at place 1 of 4 in 64 of 64 anchors (expected: about 16)" in finding.message


def test_few_anchors_say_nothing_about_positions() -> None:
    positions = AnswerPositions()
    for _ in range(49):
        positions.add("f", "true_false", "true", {})
    assert list(positions.unbalanced()) == []
    positions.add("f", "true_false", "true", {})
    assert len(list(positions.unbalanced())) == 1


def test_verifiers_can_be_named_for_rows_that_name_none(files: list[Path]) -> None:
    def forget(rows: list[DataRow]) -> None:
        for row in rows:
            decoded = json.loads(row["extra_info"]["extras"])
            del decoded["verifier"]
            row["extra_info"]["extras"] = json.dumps(decoded)

    spoil(files[1], forget)
    assert check_files(files).ok
    report = check_files(files, CheckOptions(verifiers={"math/anchor": "true_false"}))
    assert {f.column for f in report.findings} == {"reward_model.ground_truth"}


@pytest.mark.parametrize(
    ("column", "array", "message"),
    [
        ("prompt", pa.array(["text"]), "column prompt is string, not list"),
        ("extra_info", pa.array([{"index": 0, "intent_id": "z"}]), "extra_info lacks role, .*; it has index, intent"),
        ("ability", pa.array([3]), "column ability is int64, not string"),
    ],
)
def test_columns_of_another_type_are_refused(
    files: list[Path], column: str, array: pa.Array, message: str, tmp_path: Path
) -> None:
    table = pq.read_table(files[1]).slice(0, 1)
    pq.write_table(table.set_column(table.column_names.index(column), column, array), tmp_path / "odd.parquet")
    with pytest.raises(DataError, match=rf"odd\.parquet: {message}"):
        check_files([tmp_path / "odd.parquet"])


def test_further_columns_and_wider_types_are_fine(files: list[Path], tmp_path: Path) -> None:
    table = pq.read_table(files[1])
    wide = table.set_column(0, "data_source", table["data_source"].cast(pa.large_string()))
    pq.write_table(wide.append_column("note", pa.array(["x"] * table.num_rows)), tmp_path / "wide.parquet")
    assert check_files([tmp_path / "wide.parquet"]).findings == []


def test_files_without_rows_and_file_names_given_twice(files: list[Path], tmp_path: Path) -> None:
    pq.write_table(pq.read_table(files[1]).slice(0, 0), tmp_path / "empty.parquet")
    assert [f.message for f in check_files([tmp_path / "empty.parquet"]).findings] == ["has no rows"]
    with pytest.raises(DataError, match="given twice"):
        check_files([files[0], files[0]])
    with pytest.raises(DataError, match="no file to check"):
        check_files([])


TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A byte-level tokenizer without merges: one token per byte, so that lengths are known."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = Tokenizer(models.BPE(vocab={char: n for n, char in enumerate(alphabet)}, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=model, chat_template=TEMPLATE)
    folder = tmp_path_factory.mktemp("tokenizer")
    fast.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow  # it imports transformers
def test_prompts_above_the_limit_are_named(tokenizer: str, tmp_path: Path) -> None:
    files = build_fixture("math", tmp_path)
    longest = max(sum(len(m["content"].encode()) for m in row["prompt"]) for row in read_rows(files[0]))
    roomy = check_files(files, CheckOptions(tokenizer=tokenizer, max_prompt_length=2 * longest + 100))
    assert roomy.findings == []
    text = "x" * 3000
    spoil(files[0], lambda rows: rows[4].update(prompt=[PromptMessage(role="user", content=text)]))
    report = check_files(files, CheckOptions(tokenizer=tokenizer, max_prompt_length=2999))
    (finding,) = report.findings
    assert (finding.check, finding.row, finding.column) == ("prompt length", 4, "prompt")
    n = len("<|user|>") + 3000 + len("<|assistant|>")
    assert finding.message == f"{n} tokens with the chat template, more than 2999"


@pytest.mark.slow
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_the_limit_is_exact(tokenizer: str, extra: int) -> None:
    lengths = PromptLengths(tokenizer, 100)
    content = "é" * 10 + "y" * (100 - len("<|user|><|assistant|>") - 20 + extra)
    found = lengths.too_long([[{"role": "user", "content": content}]])
    assert found == ([(0, 101)] if extra == 1 else [])


@pytest.mark.slow  # it imports transformers
def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--tokenizer .*nowhere: cannot be loaded"):
        PromptLengths(str(tmp_path / "nowhere"), 10)


@pytest.mark.parametrize(
    ("truth", "answer", "fault"),
    [
        ("0.12", "0.125", "0.12 is not the source's answer 0.125"),
        ("0.33", "1/3", "0.33 is not the source's answer 1/3"),
        ("1234.5", "$1,234.56", "is not the source's answer"),
        ("7", "7.5 km", "7 is not the source's answer 7.5 km"),
        ("0.125", "1/8", None),
        ("1234.56", "$1,234.56", None),
        ("0.00000015", "1.5e-7", None),
        ("50", "50%", None),
        ("7", "7 apples", None),
        ("7", "see above", None),
        ("-1/3", r"-\frac{1}{3}", None),
        ("-0.33", r"-\frac{1}{3}", r"-0.33 is not the source's answer -\frac{1}{3}"),
    ],
)
def test_the_gold_answer_is_the_number_that_the_source_states(truth: str, answer: str, fault: str | None) -> None:
    info = {"domain": "math", "role": "open", "split": "train", "intent_id": "z", "extras": "{}"}
    found = [message for _, message in GoldCheck().faults(truth, info, {"verifier": "math", "answer": answer})]
    assert len(found) == bool(fault)
    assert (fault or "") in "".join(found)


def test_near_duplicates_that_are_not_compared_are_a_warning(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in files[:2]:
        intents = {row["extra_info"]["intent_id"]: n for n, row in enumerate(read_rows(file))}
        spoil(
            file,
            lambda rows, intents=intents, stem=file.stem: [
                extras(row, request=f"five words that are shared {stem}{intents[row['extra_info']['intent_id']]}")
                for row in rows
            ],
        )
    monkeypatch.setattr(near_duplicates, "_MAX_CANDIDATES", 1)
    report = check_files(files[:2])
    (finding,) = [f for f in report.findings if f.check == "near-duplicate" and f.row < 0]
    assert (finding.severity, report.ok) == ("warning", True)
    assert "were not compared (the limit is 1 pairs)" in finding.message
