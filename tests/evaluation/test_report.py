"""The page: right numbers, every kind of run, nothing from outside gets through."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluation.support import row, write_jsonl, write_run
from verl_air.errors import DataError
from verl_air.evaluation import accuracy_of, read_records
from verl_air.evaluation.report import summarise, to_json, to_markdown
from verl_air.evaluation.report.alarms import alarms_of, hacking_alarm
from verl_air.evaluation.report.charts import heat_maps, proxy_and_accuracy
from verl_air.evaluation.report.page import render
from verl_air.evaluation.report.summary import RunSummary
from verl_air.evaluation.report.svg import smoothed

VOID = {"meta", "br", "link", "img"}


class Balanced(HTMLParser):
    """Collects faults: elements that are not closed in order, or that could load or run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(page)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "object", "link", "img", "base", "form"}:
            self.faults.append(f"<{tag}>")
        self.faults += [f"{tag} {name}" for name, _ in attrs if name.startswith("on") or name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")


def check(page: str) -> None:
    assert Balanced(page).faults == []
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ET.fromstring(svg)
        assert "nan" not in svg
    page.encode("utf-8")


def levels(run: RunSummary) -> dict[str, str]:
    return {alarm.check: alarm.level for alarm in alarms_of(run)}


def test_a_run(tmp_path: Path) -> None:
    report = summarise([write_run(tmp_path / "run")])
    (run,) = report.runs
    assert (run.steps, run.planned, run.first_step, run.last_step) == (20, 20, 0, 20)
    assert [section.name for section in run.last] == ["safety/id", "safety/ood"]
    last = [r for r in read_records(tmp_path / "run" / "validation" / "20.jsonl") if r.split == "ood"]
    assert run.last[1].whole.groups.value == accuracy_of(last).groups
    assert run.sections("safety/ood")[20].whole.groups == run.last[1].whole.groups
    maps = {found.source: found for found in heat_maps(report)}
    assert maps["safety/ood"].columns == ["0", "10", "20"]
    assert [name for name, _ in maps["safety/ood"].rows] == ["anchors", "override", "urgent"]
    overridden = [r.acc for r in last if r.family == "override"]
    assert maps["safety/ood"].rows[1][1][-1] == sum(overridden) / len(overridden)
    assert set(levels(run).values()) == {"ok"}
    assert [to_json(report)["runs"][0]["settings"][name] for name in ("method", "coef", "estimator")] == [
        "air",
        "0.03",
        "loo",
    ]
    page = render(report)
    check(page)
    assert f"{100 * accuracy_of(last).groups:.1f} %" in page
    assert page.count("<figure>") == 6


def test_ten_runs_of_three_domains(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"run{i}", seed=i, domains=("safety", "moral", "math"), intents=6, steps=10)
        for i in range(10)
    ]
    report = summarise(runs)
    assert len(report.against_first) == 9
    assert report.sources[0].startswith("all domains/")
    page = render(report)
    check(page)
    assert all(f"run{i}" in page for i in range(10))
    assert len(page) < 1_000_000


def test_an_empty_run(tmp_path: Path) -> None:
    report = summarise([tmp_path])
    check(render(report))
    assert levels(report.runs[0])["finished"] == "warn"
    json.dumps(to_json(report), allow_nan=False)
    assert "No validation" in to_markdown(report)


def test_a_crashed_run(tmp_path: Path) -> None:
    """Metrics cut off, a validation half written: what is whole is shown, the rest is named."""
    folder = write_run(tmp_path / "run", steps=20)
    for name in ("metrics.jsonl", "validation/20.jsonl", "rollouts/20.jsonl"):
        text = (folder / name).read_text()
        (folder / name).write_text(text[: len(text) * 2 // 3])
    recipe = folder / "checkpoints" / "config.yaml"
    recipe.write_text(recipe.read_text().replace("total_training_steps: 20", "total_training_steps: 400"))
    (folder / "checkpoints" / "run.json").write_text('{"python":')
    (run,) = (report := summarise([folder])).runs
    assert run.last_step == 10
    assert max(run.curves["air/gap/mean"]) < 20
    assert levels(run)["finished"] == "warn"
    faults = " ".join(run.folder.faults)
    assert all(name in faults for name in ("metrics.jsonl", "20.jsonl of validation", "run.json"))
    check(render(report))


def test_rollouts_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with_metrics = summarise([folder / "rollouts", folder / "rollouts" / "3.jsonl"])
    whole, single = with_metrics.runs
    assert whole.curves["air/open_reward/mean"].keys() == set(range(1, 21))
    assert single.curves["air/gap/mean"].keys() == {3}
    assert len(with_metrics.samples) > 0
    check(render(with_metrics))


def test_one_validation_file(tmp_path: Path) -> None:
    file = write_run(tmp_path / "run") / "validation" / "20.jsonl"
    report = summarise([file])
    check(render(report))
    assert report.runs[0].last_step == 20
    file.write_text(file.read_text().replace('"group_size"', '"size"'))
    page = render(summarise([file]))
    assert page.count("Older file: does not say whether rows are missing") == 1


def test_constant_ranges_are_no_curves(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", steps=4, every=2)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "data": {"val-aux/safety/id/score_max/mean@1": 2.5}}) + "\n")
    assert "score_max" not in render(summarise([folder])) + json.dumps(to_json(summarise([folder])))


def test_what_a_model_writes_stays_text(tmp_path: Path) -> None:
    attack = "</div><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }} \u202e\x00\ud800"
    rows = [
        row(
            intent_id=attack,
            index=s,
            input=attack,
            output=attack * 50,
            gts=attack,
            context=attack,
            family=attack,
            domain=attack,
        )
        for s in range(2)
    ]
    folder = tmp_path / "<b>run"
    write_jsonl(folder / "validation" / "0.jsonl", rows)
    write_jsonl(folder / "validation" / "5.jsonl", rows)
    report = summarise([folder, folder])
    page = render(report)
    check(page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "49" not in re.sub(r"\{\{.*?\}\}", "", page.split("Meta-groups side by side")[1].split("Settings")[0])
    assert "\u202e" not in page
    assert "characters left out" in page
    markdown, numbers = to_markdown(report), json.dumps(to_json(report), allow_nan=False)
    assert "<script" not in markdown
    (markdown + numbers).encode("utf-8")


def test_secrets_of_the_recipe_are_hidden(tmp_path: Path) -> None:
    page = render(summarise([write_run(tmp_path / "run")]))
    assert "sk-very-secret" not in page
    assert "api_key: (hidden)" in page
    assert "total_training_steps: 20" in page


@pytest.mark.parametrize(
    ("first", "last", "level", "said"),
    [
        (1.0, 1.0, "bad", "right, from the start"),
        (0.0, 0.0, "bad", "wrong, from the start"),
        (0.4, 0.0, "bad", "wrong, at the end, and 40.0 % at first"),
        (0.4, 0.9995, "warn", "right, at the end"),
        (0.4, 0.97, "ok", ""),
    ],
)
def test_verdicts_that_are_constant(tmp_path: Path, first: float, last: float, level: str, said: str) -> None:
    values = [first] * 10 + [last] * 10
    metrics = [{"step": step, "data": {"air/open_acc": value}} for step, value in enumerate(values, start=1)]
    write_jsonl(tmp_path / "metrics.jsonl", metrics)
    (run,) = summarise([tmp_path]).runs
    (alarm,) = [alarm for alarm in alarms_of(run) if alarm.check == "constant verdicts"]
    assert (alarm.level, said in alarm.text) == (level, True), alarm


@pytest.mark.parametrize(
    ("passed", "accuracy", "level", "said"),
    [
        (0.9, {"x/id": [0.5, 0.8], "x/ood": [0.5, 0.6]}, "ok", ""),  # what is learned reaches held-out intents
        (0.9, {"x/id": [0.5, 0.6], "x/ood": [0.5, 0.55]}, "warn", "90.0 % of open responses right, validation at most"),
        (1.0, {"x/id": [0.5, 0.5]}, "bad", "at most 50.0 % (x/id)"),
        (1.0, {"x/id": [0.5]}, "bad", "at most 50.0 % (x/id)"),  # one validation is enough
        (0.5, {"x/id": [0.8, 0.7]}, "warn", "accuracy on open rows of x/id fell by 10 points"),
        (None, {"x/id": [0.5, 0.5]}, "ok", ""),  # nothing but the reward is known, and nothing fell
        (1.0, {}, "unknown", ""),
    ],
)
def test_a_reward_that_is_hacked(passed: float | None, accuracy: dict[str, list[float]], level: str, said: str) -> None:
    rising = {step: step / 10 for step in range(20)}
    verdicts = {} if passed is None else dict.fromkeys(rising, passed)
    alarm = hacking_alarm(rising, verdicts, {source: dict(enumerate(values)) for source, values in accuracy.items()})
    assert (alarm.level, said in alarm.text) == (level, True), alarm


def test_alarms_ring(tmp_path: Path) -> None:
    """A reward that rises while open accuracy falls, anchors that decay, loss that is no number."""
    metrics = [
        {
            "step": step,
            "data": {
                "air/open_reward/mean": step / 10,
                "air/no_answer_rate": 0.4,
                "air/truncation_rate": 0.3,
                "air/judge/abstain_rate": 0.05,
                "air/zero_std_rate": 0.99,
                "air/groups/dropped": 1.0,
                "air/groups/complete": 4.0,
                "air/gap/anchors_worse": float(step < 8),
                "air/open_acc": 1.0,
                "actor/loss": None if step == 12 else 0.1,
            },
        }
        for step in range(1, 21)
    ]
    write_jsonl(tmp_path / "metrics.jsonl", metrics)
    for step, right in ((0, 1.0), (20, 0.0)):
        rows = [
            row(
                intent_id=f"z{z}",
                role=role,
                context=role,
                index=i,
                acc=right,
                extras='{"harmful": false}',
                split_intents=12,
                group_size=2,
            )
            for z in range(10)
            for i, role in enumerate(("anchor", "open"))
        ]
        write_jsonl(tmp_path / "validation" / f"{step}.jsonl", rows)
    (run,) = summarise([tmp_path]).runs
    assert levels(run) == {
        "finished": "unknown",
        "finite loss": "bad",
        "truncation": "bad",
        "no answer": "warn",
        "abstention": "warn",
        "zero variance": "bad",
        "lost groups": "bad",
        "constant verdicts": "bad",
        "incomplete groups": "bad",
        "worse anchors": "bad",
        "anchors hold": "bad",
        "benign helped": "bad",
        "reward hacking": "bad",
    }
    (first, last) = proxy_and_accuracy(run, "safety/id")
    assert (first[0], first[2], last[0], last[2]) == (0, 1.0, 20, 0.0)
    assert first[1] == pytest.approx(0.3)
    assert last[1] == pytest.approx(1.8)


def test_runs_of_one_folder_name_get_distinct_names(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / side / "run", steps=2, every=1, intents=2) for side in "ab"]
    assert len({run.name for run in summarise([*runs, runs[0]]).runs}) == 3


def test_no_such_run() -> None:
    with pytest.raises(DataError, match="no such file"):
        summarise(["nowhere"])


def test_the_ends_of_a_smoothed_curve_are_averages_too() -> None:
    """A last value that stands out must not look like where the run went."""
    points = [(step, 0.0) for step in range(9)] + [(9, 1.0), (10, float("nan"))]
    line = dict(smoothed(points, 5))
    assert line[9] == pytest.approx(1 / 3)
    assert line[7] == pytest.approx(1 / 5)
    assert list(line) == list(range(10))
    assert smoothed(points[:2], 1) == points[:2]
