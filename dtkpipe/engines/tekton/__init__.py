"""Renders a pipeline for Tekton: a Pipeline with one Task for each of its tasks, or a PipelineRun. Pure."""

from dtkpipe.engines.tekton.render import NAME, render

__all__ = ["NAME", "render"]
