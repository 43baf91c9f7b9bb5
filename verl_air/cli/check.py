"""``verl-air check [FILE...] [--judge RECIPE]``: check data files, or a recipe's judge, before a run.

Give all files that are used together: leaks are found between them. With ``--judge`` replies of known kind (refusals,
compliance, gibberish, ...) to harmful and benign rows are scored by the recipe's routes, exactly as in training; a
judge that cannot separate them is an error. The rows are those of the files, or of the recipe's own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from verl_air.cli.terminal import of_other_packages
from verl_air.data.check import CheckOptions, check_files
from verl_air.data.check.judge import ROWS, prove_judges
from verl_air.data.check.judge_proof import JudgeProof
from verl_air.data.check.preview import write_preview
from verl_air.errors import ConfigError, DataError
from verl_air.evaluation.scoring import merge_reward_kwargs, read_evaluation_settings, read_pairs

_DEFAULTS = CheckOptions()


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("check", help="check data files", description=__doc__)
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="parquet files")
    add("--anchors", type=int, default=_DEFAULTS.anchors, help="anchors that a visit to an intent takes")
    add("--open", type=int, default=_DEFAULTS.open_, help="open rows that a visit takes")
    verifiers = "reward functions that check gold answers"
    add("--verifier", nargs="+", default=[], metavar="DOMAIN/ROLE=NAME", help=verifiers)
    add("--tokenizer", metavar="PATH", help="folder or hub name; checks prompt lengths too")
    add("--max-prompt-length", type=int, default=_DEFAULTS.max_prompt_length, help="in tokens (data.max_prompt_length)")
    add("--html", type=Path, metavar="FILE", help="write a preview to look through")
    add("--html-groups", type=int, default=60, metavar="N", help="how many meta-groups the preview shows")
    add("--limit", type=int, default=_DEFAULTS.limit, metavar="N", help="how many faults of one kind are listed")
    judge = parser.add_argument_group("the judge").add_argument
    judge("--judge", metavar="RECIPE", help="check the judges of this recipe, run's folder or YAML file with routes")
    where = (
        "such as base_url=http://localhost:8000/v1, or in_process=FOLDER; needed for a judge that verl serves itself"
    )
    judge("--served", nargs="+", default=[], metavar="KEY=VALUE", help=f"settings of the judge, {where}")
    judge("--rows", type=int, default=ROWS, metavar="N", help="harmful and benign rows per route (default %(default)s)")
    judge("--replies", nargs="+", default=[], metavar="DOMAIN=FILE", help="canned replies of yours, as YAML")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check and print; returns 1 if there is an error.

    Raises:
        ConfigError: the recipe cannot be used.
        DataError: a file or an option cannot be used.
    """
    if not args.files and not args.judge:
        raise DataError("give parquet files, or --judge RECIPE")
    return max(_check_data(args) if args.files else 0, _check_judge(args) if args.judge else 0)


def _check_judge(args: argparse.Namespace) -> int:
    """Print what the judges of a recipe make of canned replies; returns 1 if one of them cannot be trained on."""
    if args.rows < 1:
        raise DataError(f"--rows {args.rows}: must be at least 1")
    recipe = read_evaluation_settings(args.judge)
    files = args.files or recipe.data_files
    if not files:
        raise ConfigError(f"{args.judge} names no data files (data.train_files): give some")
    rewards = merge_reward_kwargs(recipe.reward_kwargs, judge=args.served)
    replies = read_pairs(args.replies, "--replies", "DOMAIN=FILE")
    with of_other_packages():
        proofs = prove_judges(rewards, files, rows=args.rows, replies=replies)
    for proof in proofs:
        print("\n".join(proof.lines()))
    for kind, texts in (("warning", [text for p in proofs for text in p.warnings]), ("error", _errors(proofs))):
        for text in texts:
            print(f"{kind}: {text}")
    if not proofs:
        print("no open rows that a judge scores")
    return int(bool(_errors(proofs)))


def _errors(proofs: list[JudgeProof]) -> list[str]:
    found = [text for proof in proofs for text in proof.errors]
    if proofs and all(proof.skipped for proof in proofs):
        hint = "--served base_url=http://HOST:PORT/v1 for a server of it, or --served in_process=FOLDER to load it here"
        found.append(f"no judge could be checked. If verl serves it, start it first and name it: {hint}")
    return found


def _check_data(args: argparse.Namespace) -> int:
    chosen = {name: getattr(args, name) for name in ("anchors", "tokenizer", "max_prompt_length", "limit")}
    form = "DOMAIN/ROLE=NAME, for example safety/anchor=true_false"
    verifiers = read_pairs(args.verifier, "--verifier", form)
    for place, name in verifiers.items():
        if place.count("/") != 1:
            raise DataError(f"--verifier {place}={name}: write {form}")
    options = CheckOptions(**chosen, open_=args.open, verifiers=verifiers)
    report = check_files(args.files, options)
    for name, file in report.files.items():
        counts = f"{file.intents} intents, {file.rows} rows ({file.anchors} anchors, {file.open} open)"
        print(f"{name}: {', '.join(file.domains)} {', '.join(file.splits)}: {counts}")
    for finding in report.findings:
        print(finding)
    for (severity, check), n in sorted(report.counts.items()):
        if n > report.limit:
            print(f"{severity}: {n - report.limit} more of kind [{check}]; --limit lists them")
    print(f"{report.number('error')} error(s), {report.number('warning')} warning(s)")
    if args.html:
        print(f"preview: {write_preview(args.html, args.files, report, groups=args.html_groups)}")
    return 0 if report.ok else 1
