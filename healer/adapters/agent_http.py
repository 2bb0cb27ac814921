"""What all clients of node agents share: one address per node, a bearer token, bounded exchanges, errors that say what
to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

import msgspec
import requests
from urllib3.util import Retry

from healer.adapters.http.bounded import Answer, Bounds, exchange
from healer.decoding import decode
from healer.errors import Rejected, Unavailable

_LIMIT_BYTES = 1 << 20
_TRANSIENT = frozenset({408, 425, 429})
_T = TypeVar("_T")


class _Refusal(msgspec.Struct):
    error: str = ""


class AgentHttp:
    """Attributes:
    url: with `{node}` where the node's name goes.
    name: of such an agent, for messages.
    settings: the section of config.yaml that the token and the address are in.
    url_key: what the address is called there.
    """

    def __init__(
        self, url: str, *, token: str | None, timeout_s: float, name: str, settings: str, url_key: str = "url"
    ) -> None:
        if "{node}" not in url:
            raise ValueError(f"{url_key} must contain {{node}}: {url}")
        self.name = name
        self.settings = settings
        self.url_key = url_key
        self._url = url
        self._bounds = Bounds(timeout_s, _LIMIT_BYTES)
        self._session = requests.Session()
        self._session.auth = _bearer(token)
        adapter = requests.adapters.HTTPAdapter(max_retries=Retry(total=0, read=False))
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        self._session.close()

    def component(self, node: str) -> str:
        return f"{self.name} of {node}"

    @property
    def address(self) -> str:
        """The key of config.yaml to check when somebody else answers."""
        return f"{self.settings}.{self.url_key}"

    def exchange(self, node: str, method: str, path: str = "", *, body: object = None) -> Answer:
        """Raises Unavailable when there is no whole answer; what its status means is the caller's to say."""
        url = self._url.replace("{node}", quote(node, safe=""))
        url = url.rstrip("/") + path if path else url
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = requests.Request(method, url, data=data, headers=headers)
        return exchange(self._session, request, self._bounds, component=self.component(node))

    def decoded(self, node: str, answer: Answer, kind: type[_T], *, what: str) -> _T:
        """The answer as what it should be. Raises Rejected for a no, Unavailable for nonsense."""
        if not 200 <= answer.status < 300:
            raise self._refused(node, answer)
        try:
            return decode(answer.body, kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            text = f"answered with something else than {what}: {error}; check {self.address}"
            raise Unavailable(self.component(node), text) from error

    def check_node(self, node: str, said: str) -> None:
        if said != node:
            raise Rejected(self.component(node), f"is the agent of {said!r}; check {self.address}")

    def _refused(self, node: str, answer: Answer) -> Rejected | Unavailable:
        component = self.component(node)
        try:
            said = decode(answer.body, _Refusal).error[:300]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            said = ""
        why = f"{said} ({answer.status})" if said else f"status {answer.status}"
        if answer.status in {401, 403}:
            return Rejected(component, f"refused the credentials: {why}; check {self.settings}.token")
        if 400 <= answer.status < 500 and answer.status not in _TRANSIENT:
            return Rejected(component, why)
        return Unavailable(component, f"could not answer: {why}; check its log")


def _bearer(token: str | None) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Also without a token an authentication of its own: else requests would send what it finds in ~/.netrc."""

    def authenticated(request: requests.PreparedRequest) -> requests.PreparedRequest:
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authenticated
