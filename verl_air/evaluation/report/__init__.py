"""One self-contained page about one or several runs: it loads nothing and runs no script.

``settings`` and ``samples`` -> ``summary`` (all numbers) -> ``alarms`` and ``charts`` (drawn by ``svg``) -> ``page``
(HTML, Markdown and JSON).
"""

from verl_air.evaluation.report.page import to_json, to_markdown, write_page
from verl_air.evaluation.report.summary import RunReport, summarise

__all__ = ["RunReport", "summarise", "to_json", "to_markdown", "write_page"]
