"""What is behind an error."""

import ssl

from core.trust import is_untrusted


def test_a_certificate_is_found_behind_other_errors() -> None:
    """Whichever way they name each other."""
    outer, inner = ConnectionError(), OSError()
    outer.__cause__, inner.__context__ = inner, ssl.SSLCertVerificationError()
    assert is_untrusted(outer)


def test_errors_that_are_behind_each_other_end() -> None:
    """As aiormq's can be when a connection is reset while it is made."""
    outer, inner = ConnectionError(), OSError()
    outer.__cause__, inner.__context__ = inner, outer
    assert not is_untrusted(outer)
