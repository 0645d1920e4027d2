"""The neutral model of a pipeline: what users import to write their own."""

from dtkpipe.model.pipeline import (
    Input,
    Param,
    Pipeline,
    Program,
    Resources,
    Result,
    Rights,
    Secret,
    Task,
    container,
    param,
)
from dtkpipe.model.refs import InputRef, Joined, ParamRef, ResultPath, ResultRef, RunName, SecretPath, StatusRef

__all__ = [
    "Input",
    "InputRef",
    "Joined",
    "Param",
    "ParamRef",
    "Pipeline",
    "Program",
    "Resources",
    "Result",
    "ResultPath",
    "ResultRef",
    "Rights",
    "RunName",
    "Secret",
    "SecretPath",
    "StatusRef",
    "Task",
    "container",
    "param",
]
