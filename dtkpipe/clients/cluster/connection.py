"""The way to an API server: kubeconfig or service account, requests, and broken connections as errors."""

from __future__ import annotations

import functools
import json
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from dtkpipe import __version__
from dtkpipe.clients.cluster.refusals import Asked, GoneError, refused
from dtkpipe.clients.cluster.resources import Object
from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError, NotFoundError, UnreachableError

TIMEOUT = 30.0
"""Seconds for one answer."""
_CONNECT = 10.0
_JSON = "application/json"
_METADATA = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""How the API is asked for no more than the metadata of objects (Kubernetes API concepts)."""
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PAUSE = 1.0
"""Seconds before a read is repeated that got no answer."""
_POOL = 64
"""Connections that are kept open, for as many threads as ask at the same time."""
_BUSY = 5
"""How often a request is repeated that the server has no time for (429), by the pause that it asks for."""
MANAGER = "dtkpipe"
"""Our name as owner of fields."""


class Connection:
    """The cluster of a kubeconfig's context, or the one whose pod we run in."""

    def __init__(self, kubeconfig: Path | None, context: str) -> None:
        """Read the kubeconfig. Raises InvalidError for one that is not usable, NotFoundError for an unknown context."""
        from kubernetes import client

        self.settings: Any = client.Configuration()
        if not kubeconfig and not context and not os.environ.get("KUBECONFIG") and (_ACCOUNT / "token").is_file():
            self.namespace = _in_pod(self.settings)
            self.context = "the pod's service account"
        else:
            self.context, self.namespace = _by_kubeconfig(self.settings, kubeconfig, context)
        self.settings.retries = False
        self.settings.connection_pool_maxsize = _POOL
        self.patience = 0.0
        self.host = str(self.settings.host)
        self.api: Any = client.ApiClient(self.settings)
        self.api.user_agent = f"dtkpipe/{__version__}"
        pool = self.api.rest_client.pool_manager.connection_pool_kw
        files = (pool.pop(name, None) for name in ("ca_certs", "ca_cert_data", "cert_file", "key_file"))
        pool["ssl_context"] = _context(*files, verified=bool(self.settings.verify_ssl))

    def ask(
        self, method: str, path: str, asked: Asked, *, query: Mapping[str, str] | None = None, body: object = None,
        content_type: str = "application/json", timeout: float = TIMEOUT, metadata: bool = False,
        patient: bool = True,
    ) -> Object:  # fmt: skip
        """Return the object that the API server answers with; of a list, only its members' metadata on request.

        Reads are repeated as long as `patience` says. Raises DtkpipeError.
        """
        accept = _METADATA if metadata else _JSON
        end = time.monotonic() + (self.patience if patient and method == "GET" else 0)
        while True:
            try:
                with self.opened(
                    method, path, asked, query=query, body=body, content_type=content_type, timeout=timeout,
                    accept=accept,
                ) as got, self.unbroken(asked):  # fmt: skip
                    data = got.read()
                return self._object(data, asked)
            except UnreachableError as error:
                if time.monotonic() >= end or isinstance(error, GoneError):
                    raise
                time.sleep(_PAUSE)

    def _object(self, data: bytes, asked: Asked) -> Object:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise UnreachableError(f"the cluster at {self.host} gave an answer that is none: cannot {asked}")
        return found

    @contextmanager
    def opened(
        self, method: str, path: str, asked: Asked, *, query: Mapping[str, str] | None = None, body: object = None,
        content_type: str = "application/json", timeout: float = TIMEOUT, accept: str = _JSON,
        more: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        """Give an answer of 2xx to be read as it comes: a response of urllib3. Raises DtkpipeError.

        Bytes as `body` are sent as they are; `more` are headers.
        """
        from urllib3 import Timeout

        # Past the client's own sending, which takes a merge patch for a strategic one and encodes JSON texts again.
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        limits = Timeout(connect=min(_CONNECT, timeout), read=timeout)
        for turn in range(_BUSY + 1):
            headers = {"Accept": accept, **({"Content-Type": content_type} if data else {}), **(more or {})}
            _, url, headers, *_ = self.api.param_serialize(
                method, path, query_params=list((query or {}).items()), header_params=headers,
                auth_settings=["BearerToken"],
            )  # fmt: skip
            with self.unbroken(asked):
                answer = self._sent(method, url, body=data, headers=headers, timeout=limits)
            try:
                if answer.status < 300:
                    yield answer
                    return
                with self.unbroken(asked):
                    said = answer.read(64 * 1024, decode_content=True)
                pause = answer.headers.get("Retry-After", "")
                if answer.status == 429 and pause.isdecimal() and turn < _BUSY:
                    time.sleep(min(int(pause), 10))
                    continue
                raise self._explained(refused(int(answer.status), said, asked, self.host))
            finally:
                answer.close()
                answer.release_conn()

    def _sent(self, method: str, url: str, **what: object) -> Any:
        """Send a request. A read is sent again, once, when its connection breaks: idle ones are closed by proxies."""
        from urllib3.exceptions import ProtocolError

        send = functools.partial(
            self.api.rest_client.pool_manager.request, method, url, preload_content=False, retries=False, **what
        )
        try:
            return send()
        except ProtocolError:
            if method != "GET":
                raise
            return send()

    @contextmanager
    def unbroken(self, asked: Asked) -> Iterator[None]:
        """Turn what goes wrong with a connection into UnreachableError."""
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        try:
            yield
        except ReadTimeoutError as error:
            raise UnreachableError(f"the cluster at {self.host} stopped answering: cannot {asked}") from error
        except (HTTPError, OSError) as error:
            raise self._unreachable(str(error), asked) from error

    def _unreachable(self, reason: str, asked: Asked) -> DtkpipeError:
        why = reason.splitlines()[-1][:300] if reason.strip() else "the connection broke"
        if "CERTIFICATE_VERIFY_FAILED" in why:
            return UnreachableError(
                f"the cluster at {self.host} does not prove that it is the one in the kubeconfig: cannot {asked}", why,
                hint="its certificates were renewed, or the context is another cluster's: get the kubeconfig again",
            )  # fmt: skip
        why = why.rpartition(": ")[2] if "Errno" in why else why
        return UnreachableError(
            f"the cluster at {self.host} cannot be reached: cannot {asked}", why,
            f"context: {self.context}", hint="is it up, and is this its network? kubectl cluster-info",
        )  # fmt: skip

    def _explained(self, error: DtkpipeError) -> DtkpipeError:
        """Add to "does not know you" when the certificate ran out, if that is why."""
        if not isinstance(error, NotAllowedError) or "does not know you" not in error.what:
            return error
        details = (*error.details, *_expired(self.settings.cert_file), f"context: {self.context}")
        return NotAllowedError(error.what, *details, hint=error.hint)


def _context(
    authorities: str | None, authorities_data: str | bytes | None, certificate: str | None, key: str | None, *,
    verified: bool,
) -> ssl.SSLContext:  # fmt: skip
    """Return how certificates are verified: fully, but for the form that Python demands since 3.13 (RFC 5280, AKI).

    Authorities of many clusters are older than that demand, and Kubernetes' own clients do not make it. Files are read
    here, once: urllib3 reads what it is given with each new connection into the same context, under the hands of other
    threads' handshakes; then some come without our certificate, and memory is corrupted. Raises InvalidError.
    """
    import urllib3
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verified:  # the kubeconfig says so: insecure-skip-tls-verify
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    try:
        if authorities or authorities_data:
            context.load_verify_locations(authorities, cadata=authorities_data)
        else:
            context.load_default_certs()
        if certificate:
            context.load_cert_chain(certificate, key, password="")  # never asked of whoever sits at the terminal
    except OSError as error:
        raise InvalidError(
            "the certificates that the cluster is spoken to with cannot be used", str(error),
            hint="get the kubeconfig again",
        ) from error  # fmt: skip
    return context


def _by_kubeconfig(settings: Any, kubeconfig: Path | None, context: str) -> tuple[str, str]:
    """Read a kubeconfig into the client's settings; return the names of the context and of its namespace."""
    import yaml
    from kubernetes import config

    kube_config: Any = config.kube_config  # its functions have no types
    where = str(kubeconfig or kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
    try:
        merged = kube_config.KubeConfigMerger(where).config
        if merged is None:
            raise InvalidError(
                "there is no cluster to ask", f"there is no kubeconfig: {where}", hint="--kubeconfig FILE, or oc login"
            )
        contexts = {str(one["name"]): one["context"] for one in merged["contexts"].value}
        name = context or str(merged.safe_get("current-context") or "")
        if name not in contexts:
            raise NotFoundError(
                f"there is no context `{name}`" if name else "the kubeconfig names no context to use",
                f"kubeconfig: {where}", f"contexts: {', '.join(contexts) or 'none'}", hint="--context NAME",
            )  # fmt: skip
        kube_config.load_kube_config(where, name, client_configuration=settings, persist_config=False)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InvalidError(
            "there is no cluster to ask", f"{where}: {_first_line(error)}", hint="--kubeconfig FILE, or oc login"
        ) from error
    return name, str(contexts[name].safe_get("namespace") or "default")


def _in_pod(settings: Any) -> str:
    from kubernetes import config

    loader = cast("Any", config)
    try:
        loader.load_incluster_config(client_configuration=settings)
        return (_ACCOUNT / "namespace").read_text().strip() or "default"
    except (loader.ConfigException, OSError) as error:
        raise InvalidError("the pod's service account cannot be used", _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _expired(certificate: str | None) -> list[str]:
    """Return since when a client certificate (PEM) is no longer valid, in words; nothing where it is."""
    from datetime import UTC, datetime

    if not certificate:
        return []
    from cryptography import x509

    try:
        until = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return []
    return [f"your certificate expired on {until:%Y-%m-%d %H:%M} UTC"] if until < datetime.now(UTC) else []
