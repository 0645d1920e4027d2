"""submit: from what the user asked to a run.

`request` checks what was asked and names the run, the same for every engine; `local` runs it on this machine; `cluster`
hands it to the engine of a cluster, where `lock` keeps two runs from building the same at once.
"""
