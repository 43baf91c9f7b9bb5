"""One self-contained page about one or several runs: no network, no script.

=================  ===================================================================================================
``run_summary``    everything the page says about a run, as numbers
``validations``    the stored validations, one at a time
``alarms``         what to look at before believing the table
``settings``       the recipe's settings that matter, and the whole of it without secrets
``svg``            line charts as inline SVG
``headline``       the table on top, and what it says in words
``figures``        which charts there are
``samples``        meta-groups side by side
``page``           the HTML
``exports``        the same as JSON and Markdown
=================  ===================================================================================================
"""

from verl_air.evaluation.report.page import write_page
from verl_air.evaluation.report.run_summary import Report, summarise

__all__ = ["Report", "summarise", "write_page"]
