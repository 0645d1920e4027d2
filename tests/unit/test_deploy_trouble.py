"""What the DaemonSet controller cannot do: for now, or at all. Messages as Kubernetes 1.34 has them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dtkpipe.steps.deploy import trouble
from dtkpipe.steps.deploy.standing import DOWN, LOADED, WAITING, Standing
from dtkpipe.steps.deploy.trouble import RETURNING, Absences, passes

REFUSED = "dial tcp 10.0.0.1:6443: connect: connection refused"
CONTROLLER = "system:serviceaccount:kube-system:daemon-set-controller"


@pytest.mark.parametrize(
    "message",
    [
        f'Error creating: Post "https://10.0.0.1:6443/api/v1/namespaces/x/pods": {REFUSED}',
        f'Error creating: pods is forbidden: User "{CONTROLLER}" cannot create resource "pods" in API group ""',
        "Error creating: etcdserver: request timed out",
        "Error creating: the server is currently unable to handle the request (post pods)",
    ],
)
def test_an_api_server_that_is_away_or_starts_is_waited_for(message: str) -> None:
    assert passes(message)


@pytest.mark.parametrize(
    "message",
    [
        'Error creating: pods "x-" is forbidden: violates PodSecurity "baseline:latest": privileged',
        'Error creating: pods "x-" is forbidden: exceeded quota: none, requested: pods=1',
        'Error creating: pods "x-" is forbidden: error looking up service account x/y: serviceaccount "y" not found',
        'Error creating: pods "x-" is forbidden: unable to validate against any security context constraint: []',
        'Error creating: admission webhook "policy.example" denied the request: no modules here',
        f'Error creating: Internal error occurred: failed calling webhook "x": Post "https://x.y.svc:443/": {REFUSED}',
    ],
)
def test_what_somebody_has_to_change_ends_the_rollout(message: str) -> None:
    assert not passes(message)


def test_a_node_that_stops_answering_is_waited_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(trouble, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    absences, down = Absences(), Standing("one", DOWN, "Kubelet stopped posting node status.")
    assert absences.judge([down]) == [down], "it was down before"
    for _ in range(2):
        assert absences.judge([Standing("one", LOADED)]) == [Standing("one", LOADED)]
        assert [one.state for one in absences.judge([down])] == [WAITING]
        clock[0] += RETURNING
        assert [one.state for one in absences.judge([down])] == [WAITING]
        clock[0] += 1
        assert absences.judge([down]) == [down]
