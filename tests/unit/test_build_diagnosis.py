"""The first cause out of a build log."""

from __future__ import annotations

import pytest

from dtkpipe.source.diagnosis import first_cause, hint

COMPILER = """\
make: Entering directory '/usr/src/kernels/6.1.0'
  CC [M]  /src/hello.o
In file included from /src/hello.h:3,
                 from /src/hello.c:1:
/src/other.h:9:2: warning: #warning old [-Wcpp]
/src/hello.c: In function 'hello_init':
/src/hello.c:12:9: error: implicit declaration of function 'no_such' [-Werror=implicit-function-declaration]
   12 |         no_such();
      |         ^~~~~~~
/src/hello.c:30:1: error: another one
cc1: some warnings being treated as errors
make[2]: *** [scripts/Makefile.build:255: /src/hello.o] Error 1
make[1]: *** [Makefile:2037: /src] Error 2
Error: building at STEP "RUN /bin/bash /dtkpipe/compile": exit status 2
"""


def test_the_compilers_first_error_with_its_function_and_source_line():
    assert first_cause(COMPILER).lines == (
        "hello.c:12:9: error: implicit declaration of function 'no_such' [-Werror=implicit-function-declaration]",
        "in function 'hello_init'",
        "   12 |         no_such();",
        "      |         ^~~~~~~",
    )
    assert "patches" in hint(first_cause(COMPILER))


@pytest.mark.parametrize(
    ("log", "first"),
    [
        ("In file included from /src/a.c:3:\n/src/b.h:7:10: fatal error: linux/none.h: No such file or directory\n",
         "b.h:7:10: fatal error: linux/none.h: No such file or directory"),
        ('  MODPOST /src/Module.symvers\nERROR: modpost: "no_such_symbol" [/src/hello.ko] undefined!\nmake[2]: *** x\n',
         '"no_such_symbol" [hello.ko] undefined!'),
        ("ERROR: modpost: missing MODULE_LICENSE() in /src/hello.o\n", "missing MODULE_LICENSE() in hello.o"),
        ("/bin/sh: 1: bc: not found\nmake[1]: *** [Kbuild:24: x] Error 127\n", "bc: not found"),
        ("bash: line 3: cmake: command not found\n", "cmake: command not found"),
        ("make: gcc-9: No such file or directory\nmake: *** [Makefile:3: all] Error 127\n",
         "gcc-9: No such file or directory"),
        ("make: *** No rule to make target 'nothing'.  Stop.\n", "No rule to make target 'nothing'.  Stop."),
        ("Makefile:3: *** KDIR is not set.  Stop.\n", "KDIR is not set"),
        ("ld: cannot find -lelf: No such file or directory\n", "cannot find -lelf: No such file or directory"),
        ("/src/a.S:4: Error: no such instruction: `foo'\n", "a.S:4: Error: no such instruction: `foo'"),
        ("/var/lib/dkms/m/1.0/build/m.c:1:1: error: unknown type name 'x'\n", "m.c:1:1: error: unknown type name 'x'"),
        ("noise\ndtkpipe-patch: fix.patch does not apply\n", "fix.patch does not apply"),
        ("fatal: unable to access 'https://host/': Could not resolve host\n",
         "unable to access 'https://host/': Could not resolve host"),
        ("install: cannot stat 'x.ko': No such file or directory\nsubprocess exited with status 1\n",
         "install: cannot stat 'x.ko': No such file or directory"),
        ("checking for gcc... no\nconfigure: error: no compiler found\n", "no compiler found"),
        ("Module version: 2.6\n! Error: Can not find iptables version, try setting it with --ipt-ver=\n",
         "Can not find iptables version, try setting it with --ipt-ver="),
        ("error[E0463]: can't find crate for `core`\n", "can't find crate for `core`"),
        ("/src\nModule version: 2.6\nthe tree is not clean\n", "the tree is not clean"),
        ("", "the builder said nothing"),
    ],
)  # fmt: skip
def test_other_causes(log: str, first: str):
    assert first_cause(log).lines[0] == first


def test_which_instruction_of_an_authors_containerfile_failed():
    log = "STEP 1/1: RUN cp a b\ncp: cannot stat 'a'\nsubprocess exited with status 1\n"
    log += 'Error: building at STEP "RUN cp a b": exit status 1\n'
    assert first_cause(log).lines == ("cp: cannot stat 'a'", "in: RUN cp a b")


def test_our_scripts_name_the_kind():
    cause = first_cause("dtkpipe-excluded: it needs a kernel with CONFIG_PCI\n")
    assert (cause.kind, cause.lines) == ("excluded", ("it needs a kernel with CONFIG_PCI",))
