# SPDX-License-Identifier: MIT OR Apache-2.0
"""The clients ask as often as they do, but wait less in between: the fake engine needs less time than a real one."""

import time

_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(seconds, 0.1))
