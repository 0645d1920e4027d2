"""HTTP to registries: pooled connections, retries, tokens, redirects, and errors that name the host.

Token flow: distribution.github.io/distribution/spec/auth/token and .../auth/oauth.
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from dtkpipe import __version__
from dtkpipe.clients.auth import DOCKER_HUB, Challenge, Credential, challenges, find
from dtkpipe.clients.refusals import everywhere, refused, unreachable
from dtkpipe.errors import DtkpipeError, InvalidError, NotAllowedError, NotFoundError, RunFailedError, UnreachableError
from dtkpipe.values.access import RegistryAccess
from dtkpipe.values.image import ImageRef

Response = urllib3.BaseHTTPResponse

_HUB_HOST = "registry-1.docker.io"
_ROUNDS = 6
_CONNECTIONS = 16
"""Kept open for each host."""
_SMALL = 4 * 2**20
"""Bytes of an answer that is read whole: what the distribution specification wants manifests to stay below."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for a registry, in seconds, and how often to ask again."""

    connect: float = 10
    read: float = 60
    """Between two reads, not for the whole answer."""
    attempts: int = 5
    backoff: float = 0.5
    longest: int = 30
    """The longest wait between two attempts, also where a registry's Retry-After asks for more."""


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What to ask a token for: actions on the image's own repository, and pull on others (for mounts)."""

    actions: str = "pull"
    also: tuple[ImageRef, ...] = ()


PULL, PUSH, DELETE = Rights(), Rights(actions="pull,push"), Rights(actions="pull,push,delete")


class Transport:
    """Requests to registries. Connections and tokens are kept; safe to use from several threads."""

    def __init__(self, access: RegistryAccess, patience: Patience | None = None) -> None:
        self.access = access
        self.patience = patience or Patience()
        self._pools: dict[tuple[bool, str, Path | None], urllib3.PoolManager] = {}
        self._routes: dict[tuple[str, str], tuple[str, Path | None]] = {}
        """Scheme and host -> its proxy, and the folder with its certificates."""
        self._bases: dict[str, str] = {}
        self._tokens: dict[tuple[str, str], str] = {}

    def send(
        self,
        method: str,
        image: ImageRef,
        url: str,
        *,
        asked: str,
        rights: Rights = PULL,
        headers: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
        ok: tuple[int, ...] = (200,),
        resend: bool = True,
    ) -> Response:
        """Send one request about `image` and return the answer, its body unread.

        `url` is a path below /v2/, or a URL that the registry gave; `asked` is what we want, as in "cannot ...".
        A `body` that is a file is sent from where it stands, and needs a Content-Length; without `resend`, a connection
        that breaks after it was begun is not tried again.
        Reads go to the mirrors of the image first, unless 404 is one of the answers asked for.
        Raises NotAllowedError, NotFoundError, UnreachableError, RunFailedError for an answer that is not in `ok`.
        """
        below = f"{image.repository}/"
        if rights != PULL or method not in ("GET", "HEAD") or 404 in ok or not url.startswith(below):
            return self._send(method, image, url, asked, rights, headers, body, ok, resend)
        places, failed = self.access.mirrors.places(image), list[DtkpipeError]()
        for place in places:
            there = f"{place.repository}/{url.removeprefix(below)}"
            try:
                return self._send(method, place, there, asked, rights, headers, body, ok, resend)
            except (NotFoundError, NotAllowedError, UnreachableError) as error:
                failed.append(error)
        if places == (image,):
            raise failed[0]
        raise everywhere(failed, places, image, asked)

    def _send(
        self,
        method: str,
        image: ImageRef,
        url: str,
        asked: str,
        rights: Rights,
        headers: Mapping[str, str] | None,
        body: bytes | IO[bytes] | None,
        ok: tuple[int, ...],
        resend: bool,
    ) -> Response:
        """Send one request to the registry of `image`."""
        base = self._base(image.registry, asked)
        scope = self._scope(image, rights)
        target = _followed(base, url, image.registry, self.access, asked)
        start = body.tell() if body is not None and not isinstance(body, bytes) else 0
        credential: Credential | None = None
        for _ in range(_ROUNDS):
            own = _origin(target) == _origin(base)
            sent = {"User-Agent": f"dtkpipe/{__version__}", **(headers or {})}
            token = self._tokens.get((image.registry, scope)) if own else None
            if token:
                sent["Authorization"] = token
            if body is not None and not isinstance(body, bytes):
                body.seek(start)
            response = self._once(method, target, image.registry, sent, body, asked, resend)
            if response.status == 401 and own:
                try:
                    credential = credential or find(self.access, image)
                    fresh = self._authorize(response, image, credential, scope, asked)
                except DtkpipeError:
                    response.close()
                    raise
                if fresh and fresh != token:
                    response.drain_conn()
                    self._tokens[image.registry, scope] = fresh
                    continue
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                response.drain_conn()
                target = _followed(target, location, image.registry, self.access, asked)
                continue
            if response.status not in ok:
                if not credential and response.status in (401, 403):
                    credential = find(self.access, image)
                raise refused(response, image, asked, credential, self.access)
            return response
        raise UnreachableError(f"{image.registry} redirects without end: cannot {asked}")

    def get(self, url: str, asked: str, headers: Mapping[str, str]) -> Response:
        """Get a URL that is no registry's with the same patience, proxies and authorities. Raises UnreachableError."""
        sent = {"User-Agent": f"dtkpipe/{__version__}", **headers}
        return self._once("GET", url, urlsplit(url).netloc, sent, None, asked)

    def body(self, answer: Response, image: ImageRef, asked: str, limit: int = _SMALL) -> bytes:
        """Read a small answer to its end. Raises RunFailedError for one of more than `limit` bytes."""
        try:
            data = bytes(answer.read(limit + 1))
        except HTTPError as error:
            raise unreachable(error, image.registry, asked) from error
        finally:
            answer.drain_conn()
        if len(data) > limit:
            raise RunFailedError(f"{image.registry} answers with more than {limit} bytes: cannot {asked}")
        return data

    def json(self, answer: Response, image: ImageRef, asked: str) -> dict[str, Any]:
        """Read an answer that is a JSON object. Raises RunFailedError for one that is not."""
        try:
            data = json.loads(self.body(answer, image, asked))
        except (ValueError, RecursionError) as error:
            raise RunFailedError(f"{image.registry} gives an answer that is not JSON: cannot {asked}") from error
        if not isinstance(data, dict):
            raise RunFailedError(f"{image.registry} gives an answer that is no JSON object: cannot {asked}")
        return data

    def _once(
        self,
        method: str,
        url: str,
        registry: str,
        headers: Mapping[str, str],
        body: bytes | IO[bytes] | None,
        asked: str,
        resend: bool = True,
        probe: bool = False,
    ) -> Response:
        patience = self.patience
        retries = urllib3.Retry(
            total=0 if probe else patience.attempts - 1,
            read=None if resend else 0,
            other=None if resend else 0,
            redirect=0,
            allowed_methods=None,
            # A registry on a file system answers 500 to who reads what is written at this moment.
            status_forcelist=(429, 502, 503, 504) + ((500,) if method in ("GET", "HEAD") else ()),
            backoff_factor=patience.backoff,
            backoff_max=patience.longest,
            backoff_jitter=patience.backoff / 2,
            retry_after_max=patience.longest,
            raise_on_status=False,
            raise_on_redirect=False,
        )
        try:
            return self._pool(url, registry).urlopen(
                method, url, body=body, headers=headers, redirect=False, retries=retries, preload_content=False,
                decode_content=False, timeout=urllib3.Timeout(connect=patience.connect, read=patience.read),
            )  # fmt: skip
        except HTTPError as error:
            raise unreachable(error, urlsplit(url).netloc, asked, urlsplit(url).scheme) from error

    def _pool(self, url: str, registry: str) -> urllib3.PoolManager:
        """Return the pool for a URL. Only the registry that was asked for may be spoken to with any certificate."""
        parts = urlsplit(url)
        verified = not (self.access.is_insecure(registry) and self.access.is_insecure(parts.netloc))
        if (parts.scheme, parts.netloc) not in self._routes:
            bypass = urllib.request.proxy_bypass(parts.hostname or "")
            proxy = "" if bypass else urllib.request.getproxies().get(parts.scheme, "")
            self._routes[parts.scheme, parts.netloc] = proxy, self.access.certificates(parts.netloc)
        proxy, folder = self._routes[parts.scheme, parts.netloc]
        if (verified, proxy, folder) not in self._pools:
            # Reading the system's authorities takes longer than a request: not where nobody is verified.
            context = ssl.create_default_context() if verified else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # Authorities of private registries are often sloppy, and the clients that our users know take them.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if self.access.ca:
                try:
                    context.load_verify_locations(cadata=self.access.ca)
                except ssl.SSLError as error:
                    raise InvalidError("the certificates for registries cannot be read", str(error.reason)) from error
            if not verified:
                urllib3.disable_warnings(InsecureRequestWarning)  # the user asked for it, host by host
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if folder:
                _load(context, folder)
            self._pools[verified, proxy, folder] = (
                urllib3.ProxyManager(proxy, maxsize=_CONNECTIONS, ssl_context=context)
                if proxy
                else urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=context)
            )
        return self._pools[verified, proxy, folder]

    def _base(self, registry: str, asked: str) -> str:
        """Return `https://host/v2/`; http only for an insecure registry that does not speak TLS."""
        if registry not in self._bases:
            host = _HUB_HOST if registry == DOCKER_HUB else registry
            base = f"https://{host}/v2/"
            if self.access.is_insecure(registry):
                try:
                    self._once("GET", base, registry, {}, None, asked, probe=True).drain_conn()
                except UnreachableError:
                    base = f"http://{host}/v2/"
            self._bases[registry] = base
        return self._bases[registry]

    @staticmethod
    def _scope(image: ImageRef, rights: Rights) -> str:
        others = [f"repository:{other.repository}:pull" for other in rights.also]
        return " ".join([f"repository:{image.repository}:{rights.actions}", *others])

    def _authorize(
        self, response: Response, image: ImageRef, credential: Credential | None, scope: str, asked: str
    ) -> str:
        """Return the Authorization header that the 401 asks for, or "" where we have nothing to give."""
        for challenge in challenges(response.headers.get("WWW-Authenticate", "")):
            if challenge.scheme == "bearer" and "realm" in challenge.params:
                return f"Bearer {self._token(challenge, image, credential, scope, asked)}"
            if challenge.scheme == "basic" and credential and credential.username:
                return credential.basic
        return ""

    def _token(
        self, challenge: Challenge, image: ImageRef, credential: Credential | None, scope: str, asked: str
    ) -> str:
        realm = challenge.params["realm"]
        parts = _parts(realm, image.registry)
        host = parts.netloc
        if parts.scheme != "https" and not self.access.is_insecure(host):
            raise UnreachableError(
                f"{image.registry} sends us for a token to a host that is not spoken to in the clear: {host}",
                hint="allow it only if you trust the network: --insecure-registries",
            )
        scopes = list(dict.fromkeys([*scope.split(" "), *challenge.params.get("scope", "").split()]))
        service = challenge.params.get("service", "")
        headers = {"User-Agent": f"dtkpipe/{__version__}"}
        if credential and credential.identity_token:
            form = {
                "grant_type": "refresh_token", "refresh_token": credential.identity_token, "service": service,
                "scope": " ".join(scopes), "client_id": "dtkpipe",
            }  # fmt: skip
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            answer = self._once("POST", realm, image.registry, headers, urlencode(form).encode(), asked)
        else:
            query = urlencode([("service", service), *(("scope", one) for one in scopes)])
            if credential:
                headers["Authorization"] = credential.basic
            url = f"{realm}{'&' if parts.query else '?'}{query}"
            answer = self._once("GET", url, image.registry, headers, None, asked)
        if answer.status != 200:
            raise refused(answer, image, asked, credential, self.access)
        data = self.json(answer, image, asked)
        token = data.get("token") or data.get("access_token")
        if not token:
            raise RunFailedError(f"{host} gave no token for {image.registry}: cannot {asked}")
        return str(token)


def _load(context: ssl.SSLContext, folder: Path) -> None:
    """Take the certificates of containers-certs.d(5): authorities are *.crt, our own are *.cert with a *.key."""
    try:
        for authority in sorted(folder.glob("*.crt")):
            context.load_verify_locations(cafile=authority)
        for own in sorted(folder.glob("*.cert")):
            context.load_cert_chain(own, own.with_suffix(".key"))
    except (ssl.SSLError, OSError) as error:
        raise InvalidError(f"the certificates in {folder} cannot be used", error.strerror or str(error)) from error


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _parts(url: str, registry: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise RunFailedError(f"{registry} gives an address that is none", repr(url)[:200]) from error


def _followed(url: str, location: str, registry: str, access: RegistryAccess, asked: str) -> str:
    """Return where `location`, given by what is at `url`, leads; never from TLS to the clear.

    A registry behind a proxy may take itself for http: there we stay with https.
    """
    try:
        target = urljoin(url, location)
    except ValueError:
        target = location
    parts, own = _parts(target, registry), urlsplit(url)
    if parts.netloc == own.netloc and parts.scheme == "http":
        return urlunsplit(parts._replace(scheme=own.scheme))
    if parts.scheme not in ("http", "https") or (
        parts.scheme == "http" and own.scheme == "https" and not access.is_insecure(parts.netloc)
    ):
        raise UnreachableError(
            f"{registry} sends us to a host that is not spoken to in the clear: {parts.netloc or repr(location)[:80]}",
            f"cannot {asked}",
        )
    return target
