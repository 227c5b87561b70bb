# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy between two QEMUs that records what it forwards.

::

    client ──▶ pump ──▶ destination        a pump per direction of each connection, in a thread
                │                          of its own: reads, records, forwards
                ▼
             recording ──▶ writer ──▶ file   one thread owns the file, so that no disk can
                                             make a connection wait longer than it may
"""

from __future__ import annotations
