"""The commands: a table, and the Typer application that loads a command's module only when that command is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from dtkpipe.errors import UsageError


class _Entry(NamedTuple):
    section: str
    summary: str
    module: str


_RUN, _NODES, _DEFINE, _RELEASES, _PROJECT = (
    "Run", "Drivers on nodes", "Define (offline)", "Releases and kernels", "Project"
)  # fmt: skip
COMMANDS: Mapping[str, _Entry] = {
    "submit": _Entry(_RUN, "Build, sign, prove and publish a kernel module", "submit"),
    "list": _Entry(_RUN, "List runs", "runs"),
    "describe": _Entry(_RUN, "Show how a run goes, or went", "runs"),
    "logs": _Entry(_RUN, "Print the logs of a run", "logs"),
    "wait": _Entry(_RUN, "Wait until a run has ended, and exit as it did", "runs"),
    "cancel": _Entry(_RUN, "End runs", "runs"),
    "retry": _Entry(_RUN, "Try a run again that failed or was cancelled", "runs"),
    "delete": _Entry(_RUN, "Delete runs and their logs", "runs"),
    "matrix": _Entry(_RUN, "Build many modules for many kernels, and keep them fresh", "matrix"),
    "schedule": _Entry(_RUN, "Submit matrices at the times of a cron expression", "schedule"),
    "trigger": _Entry(_RUN, "Submit matrices on a push, a new release or a new kernel", "trigger"),
    "label-nodes": _Entry(_RUN, "Label nodes with the kernel they run, so that drivers find them", "nodes"),
    "step": _Entry(_RUN, "Run one step of a pipeline", "step"),
    "registry": _Entry(_RUN, "Serve the images that local runs made", "registry"),
    "deploy": _Entry(_NODES, "Roll a driver image out to the nodes that run its kernel", "drivers"),
    "status": _Entry(_NODES, "Show the drivers on nodes, and whether what is loaded is right", "drivers"),
    "smoke-test": _Entry(_NODES, "Prove on every node that the loaded modules are the image's", "drivers"),
    "rollback": _Entry(_NODES, "Put the image before back on every node", "drivers"),
    "compile": _Entry(_DEFINE, "Print a pipeline as the YAML of an engine", "compile"),
    "lint": _Entry(_DEFINE, "Find what is known to go wrong", "lint"),
    "graph": _Entry(_DEFINE, "Draw a pipeline", "graph"),
    "diff": _Entry(_DEFINE, "Compare a compiled pipeline with files", "diff"),
    "resolve": _Entry(_RELEASES, "Find the toolkit and the kernel of a release", "resolve"),
    "releases": _Entry(_RELEASES, "List the kernels and the releases that each of them serves", "releases"),
    "catalog": _Entry(_RELEASES, "List, refresh and check the lock of OpenShift releases", "catalog"),
    "install": _Entry(_PROJECT, "Put pipelines, accounts and rights onto a cluster", "install"),
    "uninstall": _Entry(_PROJECT, "Take off a cluster what install put there", "install"),
    "init": _Entry(_PROJECT, "Write the dtkpipe.yaml that can be inferred from a module's source", "init"),
    "doctor": _Entry(_PROJECT, "Check what this machine or a cluster lacks", "doctor"),
    "config": _Entry(_PROJECT, "Show the settings and where they come from", "config"),
    "help": _Entry(_PROJECT, "Explain a command or a topic", "help"),
    "version": _Entry(_PROJECT, "Print the version of dtkpipe", "version"),
}


def run(argv: Sequence[str]) -> int:
    """Run the command line `argv` and return its exit code. Raises DtkpipeError, also for what Typer finds wrong."""
    try:
        code = typer.main.get_command(_app).main(_with_values(argv), prog_name="dtkpipe", standalone_mode=False)
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "dtkpipe")
        near = getattr(error, "possibilities", None)
        what = (error.message if near else error.format_message()).strip().removesuffix(".")
        what = what.replace(": Value error, ", ": ")  # pydantic's word, with which Typer reads values
        raise UsageError(
            what[:1].lower() + what[1:], hint=f"did you mean `{near[0]}`?" if near else f"{path} --help"
        ) from error
    except SystemExit as error:
        raise BrokenPipeError from error  # the one reason why Typer leaves by itself
    return int(code or 0)


def _with_values(argv: Sequence[str]) -> list[str]:
    """Give `--dry-run` its value where it has none, as kubectl does: Typer knows no option that may have one."""
    return ["--dry-run=client" if word == "--dry-run" else word for word in argv]


def load(name: str) -> Any:
    """Return the command `name` as Typer builds it from its module."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    importlib.import_module(f"dtkpipe.cli.{COMMANDS[name].module}").register(app)
    app.callback()(lambda: None)
    return typer.main.get_group(app).commands[name]


def nearest(word: str, known: Sequence[str]) -> str:
    """Return the known word that `word` was probably meant to be, or an empty string."""
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1)), "")


class _Commands(TyperGroup):
    """Lists the commands from the table, and loads the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Typer's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name in COMMANDS:
            return load(cmd_name)
        near = nearest(cmd_name, list(COMMANDS))
        raise UsageError(
            f"there is no command `{cmd_name[:80]}`",
            hint=f"did you mean `dtkpipe {near}`?" if near else "dtkpipe --help",
        )

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        for section in (_RUN, _NODES, _DEFINE, _RELEASES, _PROJECT):
            with formatter.section(section):
                formatter.write_dl([(name, one.summary) for name, one in COMMANDS.items() if one.section == section])


_app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Topics: dtkpipe help exit-codes, dtkpipe help environment",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@_app.callback(invoke_without_command=True)
def _dtkpipe(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False
) -> None:
    """Turn the source of a kernel module into a signed driver container, proven on its target kernel."""
    if version:
        from dtkpipe import __version__

        print(f"dtkpipe {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
