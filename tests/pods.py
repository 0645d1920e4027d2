"""What the pages say about pods, from the model (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterator

from dtkpipe.app.pipelines import load
from dtkpipe.builders import with_builder
from dtkpipe.engines.argo.render import SPELLING
from dtkpipe.engines.container import resources, security_context, volumes
from dtkpipe.model.pipeline import Program, Task
from tests.rights import Table


def page() -> Iterator[str | Table]:
    """The reference of pods: text, and tables as (head, rows)."""
    kmod = load("kmod")
    kaniko = with_builder(kmod, "kaniko").task("build")
    yield "# Pods\n"
    yield (
        "Every task is one pod with one container, on both engines the same: argv and no script, one image by\n"
        "digest, `/workspace` and `/tmp` as its own volumes, which go with it. What a program says is the pod's\n"
        "log, the compiler's output included.\n"
    )
    yield "## Containers\n"
    head = ("task", "user", "capabilities", "root file system", "seccomp", "requests", "memory limit", "scratch")
    rows = [_container(task, program) for task in kmod.all_tasks for program in task.programs]
    yield head, rows
    yield (
        "All drop every capability first, are not privileged, may gain no rights and touch nothing of the host: the\n"
        "namespace of the runs can enforce Pod Security `baseline`. Without `build` it could enforce `restricted`:\n"
        "buildah gives files their owners and works in a user namespace that it makes itself, which the runtimes'\n"
        "default seccomp profile forbids; so that pod has none. Where the kubelet sets one anyway\n"
        "(`seccompDefault`), or the kernel forbids user namespaces, build with [kaniko](../how-to/build-with-\n"
        "kaniko.md). There is no CPU limit: it slows builds down and protects nobody.\n"
    )
    yield "## Builds with kaniko\n"
    yield "`--builder kaniko` makes of `build` three containers, one after the other in one pod:\n"
    yield head, [_container(kaniko, program) for program in kaniko.programs]
    yield "## Time and repetition\n"
    yield (
        ("task", "time limit", "repetitions"),
        [(f"`{one.name}`", f"{one.timeout} s", str(one.retries) if one.retries else "none") for one in kmod.all_tasks],
    )
    yield (
        "What can be mended by a repetition is repeated, and nothing else: a step repeats itself, 10, 20, 40 s\n"
        "later, when a place does not answer (exit code 7), on both engines alike. Argo also repeats a pod that\n"
        "never ran, was lost, or whose program was killed from outside, but not one that met its memory or time\n"
        "limit. Tekton cannot tell such a pod from a compile error: it repeats none, and `dtkpipe retry` goes on\n"
        "from there. Compile errors and refusals are never repeated.\n"
    )
    yield "## Nodes\n"
    yield (
        "Every pod runs on Linux nodes. `build` runs the toolkit's programs, so it asks for a node of their\n"
        "architecture (`kubernetes.io/arch`): for a Driver Toolkit that of the target; toolkits made from a\n"
        "distribution's packages compile across. `verify` boots any kernel on any node, by emulation, and needs no\n"
        "KVM. The runner image is there for both architectures or has to be, where nodes of both take runs. Images\n"
        "are pulled once for each node.\n"
    )


def _container(task: Task, program: Program) -> tuple[str, ...]:
    context = security_context(task, program)
    asked = resources(task, program)
    name = f"`{task.name}`" if program is task.program else f"`{task.name}`, container `{program.name}`"
    scratch = volumes(task, SPELLING)[0]["emptyDir"]["sizeLimit"]
    return (
        name,
        "root" if not context["runAsNonRoot"] else "not root",
        ", ".join(context["capabilities"].get("add", [])) or "none",
        "read-only" if context["readOnlyRootFilesystem"] else "its own",
        context.get("seccompProfile", {}).get("type", "none"),
        f"{asked['requests']['cpu']}, {asked['requests']['memory']}",
        asked["limits"]["memory"],
        scratch,
    )
