"""`just doctor`: looks at this host and this set-up, and says what is wrong and what to do about it.

A check looks, and yields what it found; what figures mean is judged by functions that look at nothing themselves. It
needs nothing to run or to exist: what can't be looked at is itself a finding, or the next check's.
"""
