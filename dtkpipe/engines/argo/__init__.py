"""Renders a pipeline for Argo Workflows: a WorkflowTemplate, or a Workflow. Pure, and the only importer of Hera."""

from dtkpipe.engines.argo.render import NAME, render

__all__ = ["NAME", "render"]
