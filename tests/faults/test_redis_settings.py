"""What can be wrong about a server of Redis, and what is said then."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.errors import (
    AccessError,
    BackendUnavailableError,
    MessagingConfigError,
)
from rustic_ai.core.messaging import MessagingBackend, MessagingConfig
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.redis import RedisMessagingBackend
from tests.ports import free_tcp_port
from tests.redis_server import (
    RedisServer,
    connect_fixture,  # noqa: F401 - a fixture
    make_certificate,
    opened_fixture,  # noqa: F401 - a fixture
    opener,
    redis_server,
    settings_fixture,  # noqa: F401 - a fixture
    shared_redis_fixture,  # noqa: F401 - a fixture
    texts,
)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"url": "http://localhost"}, r"\['url'\] has the unknown scheme 'http'"),
        ({"url": "redis://localhost/one"}, r"\['url'\] names the database 'one'"),
        ({"url": "redis://localhost:99999"}, r"\['url'\] is no URL"),
        ({"url": "redis://localhost?timeout=3"}, r"\['url'\] ends with timeout=3"),
        ({"url": "unix://"}, r"\['url'\] names no socket"),
        ({"url": "redis://localhost", "host": "elsewhere"}, "both 'url' and 'host'"),
        ({"url": "redis://:a@localhost", "password": "b"}, "'password', and its 'url'"),
        ({"url": "redis://localhost", "ssl": True}, "ssl=true"),
        ({"url": 7}, r"\['url'\] is 7"),
        ({"host": ""}, r"\['host'\] is ''"),
        ({"port": 0}, r"\['port'\] is 0"),
        ({"port": "6379"}, r"\['port'\] is '6379'"),
        ({"db": -1}, r"\['db'\] is -1"),
        ({"prefix": ""}, r"\['prefix'\] is ''"),
        ({"ssl": "yes"}, r"\['ssl'\] is 'yes'"),
        ({"ssl_ca_certs": __file__}, r"\['ssl_ca_certs'\]"),
        ({"ssl": True, "ssl_ca_certs": "/nowhere"}, r"\['ssl_ca_certs'\] is '/nowhere'"),
        ({"reconnect_timeout": -1}, r"\['reconnect_timeout'\] is -1"),
        ({"max_age": 0}, r"\['max_age'\] is 0"),
        ({"max_messages": 0}, r"\['max_messages'\] is 0"),
        ({"max_pending": True}, r"\['max_pending'\] is True"),
        ({"replicas": 1.5}, r"\['replicas'\] is 1.5"),
        ({"username": ""}, r"\['username'\] is ''"),
    ],
)
def test_wrong_settings_are_named(given: dict[str, Any], named: str) -> None:
    """Each is refused before anything is connected."""
    with pytest.raises(MessagingConfigError, match=named):
        RedisMessagingBackend(**given)


def test_an_unknown_key() -> None:
    """A key that the backend does not know is named, with one that is meant perhaps."""
    config = MessagingConfig(
        backend_module="rustic_ai.redis.messaging",
        backend_class="RedisMessagingBackend",
        backend_config={"hots": "localhost"},
    )
    with pytest.raises(MessagingConfigError, match=r"no setting 'hots'(.|\n)*'host'"):
        config.create_backend()


def test_nobody_listens() -> None:
    """A server that is not there is told within some seconds, with its address."""
    port = free_tcp_port()
    begun = time.monotonic()
    with pytest.raises(BackendUnavailableError, match=f"127.0.0.1:{port}.*refused"):
        RedisMessagingBackend("127.0.0.1", port)
    assert time.monotonic() - begun < 7


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_listens(answer: bytes) -> None:
    """A program that is silent, or speaks another protocol, is told from a server in time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                peers.append(peer)
                if answer:
                    peer.sendall(answer)

        peers: list[socket.socket] = []
        thread = threading.Thread(target=serve)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(BackendUnavailableError, match=r"Timeout|protocol"):
            RedisMessagingBackend("127.0.0.1", listener.getsockname()[1], reconnect_timeout=1.0)
        assert time.monotonic() - begun < 7
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for peer in peers:
            peer.close()


def test_the_wrong_password(tmp_path: Path) -> None:
    """No password, and a wrong one, are told by the name of the setting, and never shown."""
    with redis_server(tmp_path / "redis", {"requirepass": "open-sesame"}) as server:
        for wrong in (None, "open-barley"):
            with pytest.raises(AccessError, match=r"\['password'\]") as caught:
                RedisMessagingBackend(**server.settings, password=wrong)
            assert "barley" not in str(caught.value)
        with pytest.raises(AccessError, match="'username' or 'password'"):
            RedisMessagingBackend(**server.settings, username="nobody", password="open-sesame")
        RedisMessagingBackend(**server.settings, password="open-sesame").cleanup()


def test_a_database_that_is_not_there(shared_redis: RedisServer) -> None:
    """A number beyond the server's databases is told by the name of the setting."""
    with pytest.raises(MessagingConfigError, match=r"\['db'\] is 99"):
        RedisMessagingBackend(**{**shared_redis.settings, "db": 99})


def test_tls_with_a_server_that_has_none(shared_redis: RedisServer) -> None:
    """It never answers TLS's greeting: that is told in time, naming `ssl`."""
    begun = time.monotonic()
    with pytest.raises(BackendUnavailableError, match=r"see backend_config\['ssl'\]"):
        RedisMessagingBackend(url=f"rediss://127.0.0.1:{shared_redis.port}", reconnect_timeout=1.0)
    assert time.monotonic() - begun < 5


def test_a_server_that_wants_tls(tmp_path: Path) -> None:
    """Without TLS, and with a certificate that nobody vouches for, it says what to set."""
    with redis_server(tmp_path / "redis", tls=make_certificate(tmp_path)) as server:
        with pytest.raises(BackendUnavailableError, match="'ssl'"):
            RedisMessagingBackend(**server.settings, reconnect_timeout=0.5)
        with pytest.raises(AccessError, match="'ssl_ca_certs'"):
            RedisMessagingBackend(**server.settings, ssl=True)


def test_a_unix_socket(tmp_path: Path, opened: list[MessagingBackend]) -> None:
    """A server is reached by its Unix socket, and one that is not there is named."""
    path = tmp_path / "redis.sock"
    with redis_server(tmp_path / "redis", {"unixsocket": str(path)}):
        backend = opener({"url": f"unix://{path}?db=2"}, opened)()
        backend.store_message(SPACE, TOPIC, message("1"))
        assert texts(backend) == ["1"]
        backend.cleanup()
    with pytest.raises(BackendUnavailableError, match=f"unix:{path}"):
        RedisMessagingBackend(url=f"unix://{path}", reconnect_timeout=0.2)


def test_a_user_who_may_not_do_everything(tmp_path: Path, opened: list[MessagingBackend]) -> None:
    """Keys behind the prefix and ordinary commands are enough; what is missing is named."""
    with redis_server(tmp_path / "redis") as server:
        server.ask("ACL SETUSER guild on >pw ~rustic:* +@all -@dangerous +client|list")
        server.ask("ACL SETUSER other on >pw ~other:* +@all")
        backend = opener({**server.settings, "username": "guild", "password": "pw"}, opened)()
        box = Box()
        backend.subscribe(TOPIC, box, subscriber="s", durable=True)
        backend.start()
        backend.store_message(SPACE, TOPIC, message("1"))
        box.wait("1")
        assert backend.load_subscribers(SPACE) == {TOPIC: ["s"]}
        with pytest.raises(AccessError, match="does not allow this user"):
            RedisMessagingBackend(**server.settings, username="other", password="pw")
        backend.cleanup()


def test_keys_of_another_program(settings: dict[str, Any], shared_redis: RedisServer) -> None:
    """A key that is something else is told, with the setting that avoids it."""
    shared_redis.ask(f"SET {settings['prefix']}:stream:{TOPIC} 1")
    backend = RedisMessagingBackend(**settings)
    with pytest.raises(MessagingConfigError, match=r"\['prefix'\]"):
        backend.store_message(SPACE, TOPIC, message("1"))
    backend.cleanup()


def test_the_package_redis_is_missing() -> None:
    """Without the extra, the error says how to install it."""
    out = python(
        "import sys; sys.modules['redis'] = None\n"
        "from rustic_ai.core.errors import MessagingConfigError\n"
        "from rustic_ai.core.messaging import MessagingConfig\n"
        "config = MessagingConfig(backend_module='rustic_ai.redis.messaging',\n"
        "                         backend_class='RedisMessagingBackend')\n"
        "try:\n    config.create_backend()\nexcept MessagingConfigError as e:\n    print(e)\n"
    )
    assert "pip install 'rustic-multiprocess[redis]'" in out


def test_the_core_does_not_import_redis() -> None:
    """Neither the core nor the name of the package loads the client of Redis."""
    out = python(
        "import sys, rustic_ai.core.guild, rustic_ai.core.messaging, rustic_ai.redis\n"
        "import rustic_ai.core.messaging.backend.remote\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('redis', 'hiredis')])"
    )
    assert out == "[]\n"


def python(code: str) -> str:
    """Run some code in a fresh interpreter, and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    return done.stdout
