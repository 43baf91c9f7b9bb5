"""The rows that verl trains on: schema, framings, one builder per domain (``safety``, ``moral``, ``math``), checks.

What a script needs to write rows of its own; docs/own_rows.py uses it.
"""

from verl_air.data.framings import with_instruction
from verl_air.data.schema import DataRow, PromptMessage, make_row, read_rows, write_rows

__all__ = ["DataRow", "PromptMessage", "make_row", "read_rows", "with_instruction", "write_rows"]
