"""From the source of a kernel module to a signed, proven driver container, and onto the nodes.

This file says the order of work and nothing else. An input that is not wired here is a parameter of the pipeline.
Copy it to write your own: docs/how-to/write-your-own-pipeline.md.
"""

from dtkpipe.model import Pipeline, RunName
from dtkpipe.tasks import build, clean, deploy, publish, report, resolve, rollback, sign, smoke_test, statuses, verify

run_name = RunName()

resolved = resolve()
toolkit, kernel, release = resolved.by_digest("toolkit"), resolved.kernel, resolved.release

built = build(
    toolkit=toolkit, kernel=kernel, arch=resolved.arch, release=release, run_name=run_name,
    node_arch=resolved.toolkit_arch,
)  # fmt: skip
signed = sign(image=built.by_digest(), kernel_image=built.kernel_image, run_name=run_name)
verified = verify(image=signed.by_digest(), toolkit=toolkit, kernel_image=built.kernel_image, kernel=kernel)
published = publish(
    image=signed.by_digest(), verdict=verified.verdict, evidence=verified.evidence, kernel=kernel, release=release,
    toolkit=toolkit, commit=built.commit, signer=signed.signer, run_name=run_name,
)  # fmt: skip
deployed = deploy(image=published.by_digest(), kernel=kernel, module=built.module, run_name=run_name)
tested = smoke_test(image=published.by_digest(), kernel=kernel, workload=deployed.workload)

before_nodes = (resolved, built, signed, verified, published)
everything = (*before_nodes, deployed, tested)
cleaned = clean(run_name=run_name)
put_back = rollback(run_name=run_name, statuses=statuses((deployed, tested)))

prebuild = Pipeline(
    "prebuild", "Source of a kernel module to a signed, proven, published driver container",
    tasks=before_nodes, finally_=(cleaned, report(run_name=run_name, statuses=statuses(before_nodes))),
)  # fmt: skip
kmod = Pipeline(
    "kmod", "Source of a kernel module to a signed, proven driver container, rolled out and tested on every node",
    tasks=everything, finally_=(put_back, cleaned, report(run_name=run_name, statuses=statuses(everything))),
)  # fmt: skip
