"""NATS: every setting that can be wrong, and what the server bounds."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.errors import (
    AccessError,
    BackendUnavailableError,
    GuildError,
    MessageTooLargeError,
    MessagingConfigError,
)
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.nats.messaging import NatsMessagingBackend
from tests.nats_server import (
    NatsConnect,
    NatsServer,
    nats_connect,
    nats_server,
    nats_settings,
    publish,
    texts_of,
)
from tests.ports import free_tcp_port
from tests.redis_server import make_certificate

__all__ = ["nats_connect", "nats_server", "nats_settings"]


def refusal(**settings: Any) -> GuildError:
    """Return the error of a backend that cannot be made; it comes soon, and leaves nothing."""
    begun = time.monotonic()
    with pytest.raises(GuildError) as caught:
        NatsMessagingBackend(**settings)
    assert time.monotonic() - begun < 5
    return caught.value


def test_a_server_that_is_not_there() -> None:
    """The error names the address and what is wrong."""
    url = f"nats://127.0.0.1:{free_tcp_port()}"
    error = refusal(servers=url)
    assert isinstance(error, BackendUnavailableError)
    assert f"no message server at {url}: nobody listens there" in str(error)
    assert "'servers'" in error.hint


def test_a_host_that_is_not_known() -> None:
    """The error says that."""
    error = refusal(host="no-such-host.invalid")
    assert isinstance(error, BackendUnavailableError)
    assert "no-such-host.invalid:4222" in str(error)


def test_a_server_that_is_something_else() -> None:
    """Whoever listens and says nothing is given up in time."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        error = refusal(host="127.0.0.1", port=deaf.getsockname()[1])
    assert isinstance(error, BackendUnavailableError)
    assert "did not answer" in str(error)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"user": "ann", "password": "wrong"}, "settings 'user' ('ann') and 'password'"),
        ({"token": "wrong"}, "setting 'token'"),
        ({}, "settings 'user' and 'password', or 'token'"),
    ],
)
def test_who_is_not_known(tmp_path: Path, given: dict[str, Any], named: str) -> None:
    """The error names the settings that say who we are, and tells no secret."""
    who = 'authorization { user: "ann", password: "secret" }'
    with NatsServer(tmp_path, settings=who) as server:
        error = refusal(servers=server.url, **given)
        assert isinstance(error, AccessError)
        assert named in str(error)
        assert server.url in str(error)
        assert "wrong" not in str(error)
        good = NatsMessagingBackend(server.url, user="ann", password="secret")
        good.cleanup()
        in_url = f"nats://ann:secret@127.0.0.1:{server.port}"
        NatsMessagingBackend(in_url).cleanup()
        error = refusal(servers=in_url.replace("secret", "wrong"))
        assert "setting 'servers'" in str(error)
        assert "wrong" not in str(error)


def test_a_wrong_token(tmp_path: Path) -> None:
    """The same where the server knows tokens."""
    with NatsServer(tmp_path, settings='authorization { token: "secret" }') as server:
        error = refusal(servers=server.url, token="wrong")
        assert isinstance(error, AccessError)
        assert "setting 'token'" in str(error)
        NatsMessagingBackend(server.url, token="secret").cleanup()


def test_a_server_without_jetstream(tmp_path: Path) -> None:
    """The error says how to start it."""
    with NatsServer(tmp_path, jetstream=False) as server:
        error = refusal(servers=server.url)
    assert isinstance(error, BackendUnavailableError)
    assert "JetStream is not enabled" in str(error)
    assert "nats-server -js" in error.hint


def test_tls(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is refused, and so is a server that has none."""
    cert, key = make_certificate(tmp_path / "tls")
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}'
    with NatsServer(tmp_path, settings=tls) as server:
        for given in ({}, {"tls": True}):
            error = refusal(servers=server.url, **given)
            assert isinstance(error, BackendUnavailableError)
            assert "certificate was refused" in str(error)
            assert "'tls_ca'" in error.hint
        error = refusal(servers=server.url, tls_ca=str(cert), tls_hostname="another")
        assert "'tls_hostname'" in error.hint
        NatsMessagingBackend(server.url, tls_ca=str(cert)).cleanup()
        NatsMessagingBackend(f"tls://localhost:{server.port}", tls_ca=str(cert)).cleanup()
    (tmp_path / "plain").mkdir()
    with NatsServer(tmp_path / "plain") as server:
        error = refusal(servers=server.url, tls=True)
        assert isinstance(error, BackendUnavailableError)
        assert "TLS was refused" in str(error)
        assert "'tls'" in error.hint


def test_tls_where_the_server_wants_a_certificate(tmp_path: Path) -> None:
    """Without one the error names the setting."""
    cert, key = make_certificate(tmp_path / "tls")
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{cert}", verify: true }}'
    with NatsServer(tmp_path, settings=tls) as server:
        error = refusal(servers=server.url, tls_ca=str(cert))
        assert isinstance(error, BackendUnavailableError)
        assert "'tls_cert'" in error.hint
        own = {"tls_ca": str(cert), "tls_cert": str(cert), "tls_key": str(key)}
        NatsMessagingBackend(server.url, **own).cleanup()


def test_a_stream_cannot_move(nats_settings: dict[str, Any], nats_connect: NatsConnect) -> None:
    """Another `storage` than that of a stream that is there is an error."""
    nats_connect(**nats_settings)
    error = refusal(**nats_settings, storage="memory")
    assert isinstance(error, MessagingConfigError)
    assert "'storage'" in str(error)


def test_more_than_the_server_has(nats_settings: dict[str, Any]) -> None:
    """A stream that the server cannot make is an error that names the settings."""
    error = refusal(**{**nats_settings, "max_bytes": 1 << 60})
    assert isinstance(error, MessagingConfigError)
    assert "'max_bytes'" in error.hint
    error = refusal(**nats_settings, replicas=3)
    assert "'replicas'" in error.hint


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"servers": "http://localhost:4222"}, "'servers'"),
        ({"servers": "localhost"}, "'servers'"),
        ({"servers": "nats://"}, "'servers'"),
        ({"servers": "nats://localhost:x"}, "'servers'"),
        ({"servers": []}, "'servers'"),
        ({"servers": "nats://a:1", "port": 1}, "'servers'"),
        ({"servers": ["nats://a", 5]}, "'servers'"),
        ({"host": ""}, "'host'"),
        ({"port": 0}, "'port'"),
        ({"port": "4222"}, "'port'"),
        ({"user": "ann"}, "'password'"),
        ({"password": "x"}, "'user'"),
        ({"token": ""}, "'token'"),
        ({"token": "x", "user": "ann", "password": "x"}, "'token'"),
        ({"credentials": "/no/such.creds"}, "'credentials'"),
        ({"tls_ca": "/no/such.pem"}, "'tls_ca'"),
        ({"tls_cert": "/no/such.pem"}, "'tls_cert'"),
        ({"stream": "a.b"}, "'stream'"),
        ({"stream": ""}, "'stream'"),
        ({"storage": "disk"}, "'storage'"),
        ({"replicas": 0}, "'replicas'"),
        ({"max_messages": 0}, "'max_messages'"),
        ({"max_bytes": 1.5}, "'max_bytes'"),
        ({"max_age": -1}, "'max_age'"),
        ({"reconnect_timeout": float("nan")}, "'reconnect_timeout'"),
    ],
)
def test_settings_that_are_wrong(given: dict[str, Any], named: str) -> None:
    """The error names the setting."""
    error = refusal(**given)
    assert isinstance(error, MessagingConfigError)
    assert named in str(error)


def test_a_setting_that_does_not_exist() -> None:
    """The error names what there is."""
    config = MessagingConfig(
        backend_module="rustic_ai.nats.messaging",
        backend_class="NatsMessagingBackend",
        backend_config={"sevrers": "nats://localhost"},
    )
    with pytest.raises(MessagingConfigError, match=r"no setting 'sevrers'[^$]*did you mean 'serv"):
        config.create_backend()


def test_without_nats_py() -> None:
    """The error says how to install it."""
    code = """
import sys
sys.modules["nats"] = None
from rustic_ai.core.errors import MessagingConfigError
try:
    import rustic_ai.nats.messaging
except MessagingConfigError as e:
    print(e)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert "pip install 'rustic-multiprocess[nats]'" in done.stdout


# What the server bounds


def test_history_is_bounded(nats_settings: dict[str, Any], nats_connect: NatsConnect) -> None:
    """The stream keeps the newest; its bounds can be changed later."""
    backend = nats_connect(**nats_settings, max_messages=10)
    publish(backend, *map(str, range(15)))
    assert texts_of(backend, TOPIC) == [*map(str, range(5, 15))]
    again = nats_connect(**nats_settings, max_messages=20)
    publish(again, *map(str, range(15, 40)))
    assert texts_of(backend, TOPIC) == [*map(str, range(20, 40))]


def test_a_message_that_the_server_does_not_take(
    nats_settings: dict[str, Any], nats_connect: NatsConnect
) -> None:
    """It is refused at once, with its size and the limit, and the backend goes on."""
    backend = nats_connect(**nats_settings)
    with pytest.raises(MessageTooLargeError, match=r"a message of 2,000,0.. bytes is over.*limit"):
        publish(backend, "x" * 2_000_000)
    publish(backend, "small")
    assert texts_of(backend, TOPIC) == ["small"]


@pytest.mark.parametrize("name", ["a.b *>\tü", "=", "x" * 300, "a:b:c", "$JS.API.INFO"])
def test_names_of_any_kind(
    nats_settings: dict[str, Any], nats_connect: NatsConnect, name: str
) -> None:
    """Topics and subscribers may have any name."""
    backend, box = nats_connect(**nats_settings), Box()
    topic = f"{SPACE}:{name}"
    backend.subscribe(topic, box, subscriber=name, durable=True)
    backend.start()
    sent = message("1")
    backend.store_message(SPACE, topic, sent)
    box.wait("1")
    assert backend.load_subscribers(SPACE) == {topic: [name]}
    assert backend.get_messages_by_id(SPACE, [sent.id]) == [sent]
