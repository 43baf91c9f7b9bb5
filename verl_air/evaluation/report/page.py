"""The page: one HTML file with everything in it, which loads nothing and runs nothing."""

from __future__ import annotations

import os
from pathlib import Path

import jinja2
from markupsafe import Markup

from verl_air import __version__
from verl_air.evaluation.report import figures
from verl_air.evaluation.report.headline import headline, novelty_of_sources, sentences, verdict
from verl_air.evaluation.report.run_summary import Report
from verl_air.evaluation.report.svg import COLOURS
from verl_air.evaluation.text_table import p_value, part_title, percent
from verl_air.evaluation.untrusted import visible
from verl_air.files import write_atomically

_TEMPLATES = Path(__file__).parent


def write_page(report: Report, out: str | os.PathLike[str]) -> Path:
    """Render and write; the file is replaced as a whole."""
    return write_atomically(out, render(report))


def render(report: Report) -> str:
    """The HTML. Everything is escaped but the charts, which ``svg`` makes and escapes itself."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value, None) if type(value) is str else value,
    )
    environment.filters.update(percent=percent, p_value=p_value, verdict=verdict)
    return environment.get_template("page.html.jinja").render(
        report=report,
        runs=report.runs,
        single=len(report.runs) == 1,
        table=headline(report),
        novelty=novelty_of_sources(report),
        sentences=sentences(report),
        curves=figures.learning_curves(report),
        groups=figures.group_accuracy(report),
        hacking=figures.hacking(report),
        heat=figures.heat_maps(report),
        colours=COLOURS,
        drawn=Markup,
        title_of=part_title,
        version=__version__,
    )
