"""A published image, signed again and proven again: what a matrix runs when only the certificate is new."""

from dtkpipe.model import Pipeline, RunName
from dtkpipe.tasks import clean, publish, report, sign, stage, statuses, verify

run_name = RunName()

staged = stage(run_name=run_name)
toolkit, kernel = staged.toolkit, staged.kernel
signed = sign(image=staged.by_digest(), kernel_image=staged.kernel_image, run_name=run_name)
verified = verify(image=signed.by_digest(), toolkit=toolkit, kernel_image=staged.kernel_image, kernel=kernel)
published = publish(
    image=signed.by_digest(), verdict=verified.verdict, evidence=verified.evidence, kernel=kernel, toolkit=toolkit,
    release=staged.release, commit=staged.commit, repo=staged.repo, signer=signed.signer, run_name=run_name,
)  # fmt: skip
tasks = (staged, signed, verified, published)

resign = Pipeline(
    "resign", "A published driver container, signed and proven again", tasks=tasks,
    finally_=(clean(run_name=run_name), report(run_name=run_name, statuses=statuses(tasks))),
)  # fmt: skip
