"""Accuracy of prompts and of whole meta-groups, from stored or newly generated rollouts. Independent of verl.

==================  ==================================================================================================
``records``         one scored completion, read from JSONL
``metrics``         meta-groups, accuracy and group accuracy, without intervals
``statistics``      intervals and tests
``breakdown``       the table by domain, split, role, harm and framing
``comparison``      two runs on the same intents
``run_folder``      what a run left on disk
``seeds``           methods over several seeds
``tables``          tables for a terminal and for Markdown; untrusted text
``checkpoints``     the model in what a run saved
``capability``      general benchmarks, before and after training
``generate``        new rollouts: generated with vLLM, or judged again
``scoring``         the rewards of a recipe, outside of training
``rollout_store``   a file of rollouts that can be resumed
``report``          the page about one or several runs
==================  ==================================================================================================
"""

from verl_air.evaluation.breakdown import breakdown
from verl_air.evaluation.comparison import compare
from verl_air.evaluation.metrics import accuracy_of, meta_groups
from verl_air.evaluation.records import ScoredRollout, read_records
from verl_air.evaluation.report.svg import ChartAxis, ChartLine, line_chart
from verl_air.evaluation.run_folder import RunFolder, Series, read_run_folder
from verl_air.evaluation.seeds import (
    METRICS,
    Curve,
    Curves,
    SeedDifference,
    SeedRow,
    area_under,
    curves_of,
    paper_table,
    seed_differences,
    seed_rows,
    seed_tables,
)
from verl_air.evaluation.statistics import LEVEL, Estimate, mean_over_seeds, resample

__all__ = [
    "LEVEL", "METRICS", "ChartAxis", "ChartLine", "Curve", "Curves", "Estimate", "RunFolder", "ScoredRollout",
    "SeedDifference", "SeedRow", "Series", "accuracy_of", "area_under", "breakdown",
    "compare", "curves_of", "line_chart", "mean_over_seeds", "meta_groups", "paper_table", "read_records",
    "read_run_folder", "resample", "seed_differences", "seed_rows", "seed_tables",
]  # fmt: skip
