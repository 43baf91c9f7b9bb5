"""Accuracy of prompts and of whole meta-groups, from stored rollouts or during training. Knows no verl."""

from verl_air.evaluation.accuracy import Accuracy, accuracy_of
from verl_air.evaluation.records import Record, read_records

__all__ = ["Accuracy", "Record", "accuracy_of", "read_records"]
