"""Accuracy of prompts and of whole meta-groups, from stored rollouts or during training. Knows no verl.

===================  =================================================================================================
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
"""

from verl_air.evaluation.accuracy import Accuracy, accuracy_of
from verl_air.evaluation.breakdown import Part, Section, breakdown
from verl_air.evaluation.comparison import Comparison, compare
from verl_air.evaluation.estimates import Estimates, estimate
from verl_air.evaluation.intervals import Estimate
from verl_air.evaluation.novelty import Met, novelty_of
from verl_air.evaluation.records import Record, read_records

__all__ = [
    "Accuracy",
    "Comparison",
    "Estimate",
    "Estimates",
    "Met",
    "Part",
    "Record",
    "Section",
    "accuracy_of",
    "breakdown",
    "compare",
    "estimate",
    "novelty_of",
    "read_records",
]
