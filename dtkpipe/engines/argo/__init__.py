"""Argo Workflows: a pipeline as a WorkflowTemplate or a Workflow (`render`), a Workflow as a run card (`status`).

Nothing is imported here: reading a run must not load Hera.
"""
