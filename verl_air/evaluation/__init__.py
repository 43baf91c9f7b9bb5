"""Accuracy of prompts and of whole meta-groups, from stored or newly generated rollouts. Independent of verl.

``jsonl``            lines that a run wrote, perhaps not to the end
``records``          one scored completion
``meta_groups``      the prompts of one intent, judged together
``accuracy``         the two numbers of the paper, without intervals
``intervals``        Wilson, and the bootstrap over intents
``estimates``        the numbers with intervals
``novelty``          new intents and new framings told apart
``breakdown``        the table by domain, split, role, framing and harm
``comparison``       two runs on the same intents
``run_folder``       what a run left on disk
``checkpoints``      the model in what a run saved
``generation``       completions from a model, with vLLM
``scoring``          the rewards of a recipe, outside of training
``rollout_store``    a file of rollouts that can be gone on with
``making``           new rollouts: generated, or judged again
``curves``           accuracies over the validations of a run
``seeds``            methods over several seeds
``student``          Student's t distribution
``rollout_metrics``  training metrics again, from stored rollouts
``paper_table``      the paper's table, of one's own runs
``text_table``       tables for a terminal, and for a Markdown page
``untrusted``        text from a model or a path, made harmless
``report``           the page that shows it
===================  =================================================================================================
=======
==================  ==================================================================================================
``records``         one scored completion, read from JSONL
``metrics``         meta-groups, accuracy and group accuracy, without intervals
``statistics``      intervals and tests
``breakdown``       the table by domain, split, role, harm, framing and novelty
``comparison``      two runs on the same intents
``run_folder``      what a run left on disk
``seeds``           methods over several seeds
``tables``          tables for a terminal and for Markdown; untrusted text
``checkpoints``     the model in what a run saved
``generate``        new rollouts: generated with vLLM, or judged again
``scoring``         the rewards of a recipe, outside of training
``rollout_store``   a file of rollouts that can be resumed
``report``          the page about one or several runs
==================  ==================================================================================================
"""

from verl_air.evaluation.breakdown import SeenInTraining, breakdown
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
    "SeedDifference", "SeedRow", "SeenInTraining", "Series", "accuracy_of", "area_under", "breakdown",
    "compare", "curves_of", "line_chart", "mean_over_seeds", "meta_groups", "paper_table", "read_records",
    "read_run_folder", "resample", "seed_differences", "seed_rows", "seed_tables",
]  # fmt: skip
