"""How many connections one address, and all together, may have."""

from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from core.connections import Connections, whose


def test_one_address_has_its_share_and_no_more() -> None:
    """Others go on; and so does it, when it has closed some."""
    connections = Connections(CollectorRegistry())
    connections.most, connections.most_of_one = 3, 2
    with ExitStack() as stack:
        assert stack.enter_context(connections.one("192.0.2.1"))
        with connections.one("192.0.2.1") as may_stay:
            assert may_stay
            assert not stack.enter_context(connections.one("192.0.2.1"))
            assert stack.enter_context(connections.one("192.0.2.2"))
            assert not stack.enter_context(connections.one("192.0.2.3"))
        assert stack.enter_context(connections.one("192.0.2.1"))


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_whose_an_address_is(address: str, counted: str) -> None:
    """A customer's network of IPv6 is one client."""
    assert whose(address) == counted
