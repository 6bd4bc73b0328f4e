"""Secrets from files, and in URLs."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import SecretStr
from redis.asyncio.connection import parse_url
from yarl import URL

from core.amqp import BrokerSettings
from core.secrets import with_password
from core.settings import Settings

PASSWORD = "p@ss:w/o?r#d%20 ü,+"


@pytest.mark.parametrize(
    ("url", "filled"),
    [
        ("redis://redis:6379/0", "redis://:s%2Fx@redis:6379/0"),
        ("redis://core@redis:6379/0?db=1", "redis://core:s%2Fx@redis:6379/0?db=1"),
        ("redis://:other@redis:6379/0", "redis://:other@redis:6379/0"),
        ("redis+cluster://a:1,b:2,c:3", "redis+cluster://:s%2Fx@a:1,b:2,c:3"),
        ("unix:///run/redis.sock", "unix://:s%2Fx@/run/redis.sock"),
        ("amqps://core@rabbitmq/vhost?cafile=/ca.crt", "amqps://core:s%2Fx@rabbitmq/vhost?cafile=/ca.crt"),
    ],
)
def test_a_password_where_the_url_has_none(url: str, filled: str) -> None:
    assert with_password(url, "s/x") == filled
    assert with_password(url, "") == url


def test_any_password_arrives() -> None:
    """As the libraries read it."""
    assert parse_url(with_password("redis://redis", PASSWORD))["password"] == PASSWORD
    assert URL(with_password("amqp://core@rabbitmq", PASSWORD)).password == PASSWORD
    assert unquote(urlsplit(with_password("unix:///s", PASSWORD)).password or "") == PASSWORD


def test_from_files(tmp_path: Path) -> None:
    """Without the line's end; what is set itself goes before."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    settings = Settings(core_token=SecretStr("token"), redis_password_file=file, rabbitmq_password_file=file)
    assert settings.redis_url_with_password == with_password("redis://redis:6379/0", PASSWORD)
    assert [node.password for node in settings.rabbitmq_nodes] == [PASSWORD]
    assert PASSWORD not in repr(settings)
    chosen = Settings(core_token=SecretStr("token"), redis_password=SecretStr("own"), redis_password_file=file)
    assert chosen.redis_url_with_password == "redis://:own@redis:6379/0"


def test_rabbitmq_as_it_comes() -> None:
    """Its own user, which only reaches it from its own host."""
    assert BrokerSettings().rabbitmq_nodes == [URL("amqp://guest:guest@rabbitmq:5672/")]


def test_several_nodes() -> None:
    """A comma may be in a password or a query all the same."""
    url = "amqp://a:1,2@one/, amqps://b@two:5671/v?cafile=/ca,crt,amqp://three"
    settings = BrokerSettings(rabbitmq_url=SecretStr(url), rabbitmq_password=SecretStr("x"))
    assert {(node.host, node.password) for node in settings.rabbitmq_nodes} == {
        ("one", "1,2"),
        ("two", "x"),
        ("three", "x"),
    }
