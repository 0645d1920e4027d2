"""Tekton: a pipeline as Pipeline and Tasks or a PipelineRun (`render`), a PipelineRun as a run card (`status`)."""
