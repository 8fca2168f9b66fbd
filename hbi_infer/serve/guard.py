"""Who may come in: Host and Origin, the token, the login, and the headers that keep a browser from doing harm.

A page of another site must not reach the service through its user's browser. Its requests name that site as their
Origin or are marked as cross-site by the browser; a name of its own that it lets lead to this machine (DNS rebinding)
comes as Host, where only addresses, localhost and names that were allowed are taken.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict, deque
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hbi_infer.serve.problems import Problem, too_large
from hbi_infer.serve.settings import ServeOptions, is_loopback

OPEN_TO_ALL = ("/login", "/health/live", "/health/ready")
"""Paths that need no token: nothing of the videos is there."""
OPEN_FOLDERS = ("/page/",)

SESSION_SECONDS = 7 * 86_400
MOST_SESSIONS = 1000
MOST_HEAD_BYTES = 32 * 1024
MARGIN_BYTES = 64 * 1024
"""Room for what a form has besides its picture."""

MOST_QUERY_LETTERS = 4000
"""Length of the query that a login remembers; a longer one is forgotten."""
MOST_FAILURES = 10
"""Number of wrong tokens in `FAILURE_SECONDS` after which all further ones are refused for a while."""
FAILURE_SECONDS = 60.0

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",  # with none, browsers send the form of the login as from nowhere
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Sessions:
    """Who has logged in, and how often a wrong token was given. A session ends with the service.

    Args:
        token: The secret; None lets everyone in.
    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else _digest(token)
        self._ends: OrderedDict[bytes, float] = OrderedDict()
        self._failures: deque[float] = deque(maxlen=MOST_FAILURES)

    @property
    def needs_token(self) -> bool:
        """Whether a client must know the token."""
        return self._token is not None

    def is_token(self, given: str) -> bool:
        """Returns whether a text is the token, in the same time whatever it is.

        Raises:
            Problem: Too many wrong ones were given.
        """
        assert self._token is not None
        self._check_failures()
        if hmac.compare_digest(_digest(given), self._token):
            return True
        self._failures.append(time.monotonic())
        return False

    def begin(self) -> str:
        """Returns the name of a new session, for a cookie."""
        name = secrets.token_urlsafe(32)
        self._ends[_digest(name)] = time.monotonic() + SESSION_SECONDS
        while len(self._ends) > MOST_SESSIONS:
            self._ends.popitem(last=False)
        return name

    def has(self, name: str) -> bool:
        """Returns whether a session goes on."""
        return self._ends.get(_digest(name), 0.0) > time.monotonic()

    def end(self, name: str) -> None:
        """Ends a session, if there is one."""
        self._ends.pop(_digest(name), None)

    def _check_failures(self) -> None:
        if len(self._failures) == MOST_FAILURES:
            rest = self._failures[0] + FAILURE_SECONDS - time.monotonic()
            if rest > 0:
                wait = str(int(rest) + 1)
                detail = f"{MOST_FAILURES} wrong tokens were given in a minute: try again in {wait} s"
                raise Problem(429, "too-many-tries", "Too many tries", detail, {"retry-after": wait})


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class Guard:
    """Lets through requests that may come in, and adds headers to all responses.

    Args:
        app: The service behind it.
        options: Options of the service.
        sessions: Sessions of those who have logged in.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions, sessions: Sessions) -> None:
        self._app, self._options, self._sessions = app, options, sessions
        self._names = {"localhost", options.host.lower(), *(name.lower() for name in options.names)}
        self._takes_any_address = not is_loopback(options.host)
        self._cookie = cookie_name(options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request as ASGI has it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = self._guarded(send)
        try:
            refusal = self._check(Headers(scope=scope), scope)
        except Problem as problem:
            refusal = problem.response()
        if refusal is not None:
            await refusal(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _guarded(self, send: Send) -> Send:
        """Returns a way to send that adds headers, and gives up a client that takes nothing."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                if self._options.is_secure:
                    headers["strict-transport-security"] = "max-age=31536000"
            async with asyncio.timeout(self._options.limits.stall_seconds):
                await send(message)

        return guarded

    def _check(self, headers: Headers, scope: Scope) -> Response | None:
        """Returns what a request gets that may not come in; None if it may.

        Raises:
            Problem: It may not.
        """
        self._check_size(headers, scope)
        host = _only(headers, "host") or ""
        self._check_host(host)
        self._check_origin(headers, scope, host)
        path = scope["path"]
        is_open = path in OPEN_TO_ALL or path.startswith(OPEN_FOLDERS)
        if is_open or not self._sessions.needs_token or self._is_known(headers):
            return None
        if scope["method"] == "GET" and path == "/":
            return RedirectResponse(login_address(scope["query_string"].decode("latin-1")), status_code=303)
        detail = "log in at /login, or send the header Authorization: Bearer TOKEN with the token that was shown"
        raise Problem(401, "token", "A token is needed", detail, {"www-authenticate": "Bearer"})

    def _check_size(self, headers: Headers, scope: Scope) -> None:
        """Refuses a head that is too large, a body that says so of itself, and one whose end is told in two ways."""
        head_bytes = sum(len(name) + len(value) for name, value in headers.raw)
        if head_bytes + len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MOST_HEAD_BYTES:
            detail = f"the head of the request has {head_bytes} bytes; at most {MOST_HEAD_BYTES} are taken"
            raise Problem(431, "head", "The head is too large", detail, {"connection": "close"})
        stated = _only(headers, "content-length") or ""
        if stated and "transfer-encoding" in headers:
            detail = "the request states the end of its body in two ways: send Content-Length or Transfer-Encoding"
            raise Problem(400, "input", "The request cannot be used", detail, {"connection": "close"})
        is_number = stated.isdecimal() and len(stated) < 16
        if stated and not (is_number and int(stated) <= self._options.limits.picture_bytes + MARGIN_BYTES):
            most = f"{self._options.limits.picture_bytes // 2**20} MiB"
            raise too_large("the body says that it is larger than anything that is taken", most)

    def _check_host(self, given: str) -> None:
        try:
            parts = urlsplit(f"//{given}")
            name = (parts.hostname or "").rstrip(".")
            is_plain = parts.username is None and not parts.path and parts.port != 0
        except ValueError:
            name, is_plain = "", False
        if not is_plain or not self._is_own(name):
            detail = f"the service is not called {given[:80]!r}: use its address, or allow the name with --name"
            raise Problem(421, "host", "Not this host", detail)

    def _is_own(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:  # a name, which its owner may let lead anywhere
            return False
        return self._takes_any_address or address.is_loopback

    def _check_origin(self, headers: Headers, scope: Scope, host: str) -> None:
        """Refuses what a page of another site asks for, except that its link is followed to a page."""
        scheme = "https" if self._options.is_secure else "http"
        origin = _only(headers, "origin")
        site = headers.get("sec-fetch-site", "same-origin")
        is_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        is_page = headers.get("sec-fetch-dest") == "document" and not scope["path"].startswith("/v1/")
        is_foreign = site not in ("same-origin", "none") and not (is_link and is_page)
        if is_foreign or (origin is not None and origin.lower() != f"{scheme}://{host.lower()}"):
            detail = "the request comes from a page of another site, which may not use this service"
            raise Problem(403, "origin", "Another site", detail)

    def _is_known(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and given:
            return self._sessions.is_token(given.strip())
        session = cookie_parser(headers.get("cookie", "")).get(self._cookie)
        return session is not None and self._sessions.has(session)


def login_address(query: str) -> str:
    """Returns the address of the login that leads to the page with this query afterwards."""
    wanted = page_query(query)
    return f"/login?{urlencode({'next': wanted})}" if wanted else "/login"


def page_query(given: str) -> str:
    """Returns a query as pairs, written anew: whatever was given, it leads to the page and nowhere else."""
    return urlencode(parse_qsl(given)) if len(given) <= MOST_QUERY_LETTERS else ""


def cookie_name(options: ServeOptions) -> str:
    """Returns the name of the cookie; a browser takes one that begins so only by TLS, and for this host alone."""
    return "__Host-hbi" if options.is_secure else f"hbi-{options.port}"


def _only(headers: Headers, name: str) -> str | None:
    """Returns a header that there may be once; None if it is missing.

    Raises:
        Problem: There are several.
    """
    values = headers.getlist(name)
    if len(values) > 1:
        raise Problem(400, "input", "The request cannot be used", f"there are {len(values)} headers {name}: send one")
    return values[0] if values else None
