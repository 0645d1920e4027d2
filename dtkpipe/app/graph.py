"""A pipeline as a picture, in the form that was asked for."""

from __future__ import annotations

from dtkpipe.model.pipeline import Pipeline
from dtkpipe.report import graph
from dtkpipe.report.graph_svg import svg

FORMS = {"ascii": graph.text, "mermaid": graph.mermaid, "dot": graph.dot, "svg": svg}


def draw(pipeline: Pipeline, form: str) -> str:
    """Return the picture of a checked pipeline; `form` is one of FORMS."""
    return FORMS[form](pipeline)
