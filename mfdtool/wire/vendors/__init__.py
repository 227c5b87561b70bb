# SPDX-License-Identifier: GPL-2.0-or-later
"""What the drivers of VFIO devices write as their devices' state.

QEMU passes these bytes on without a look at them. A :class:`~mfdtool.wire.vendors.vendor.Vendor`
knows one driver's format: how to tell that it is the one, and how to cut the bytes into records.
``mfdtool/wire/vendors/registry.py`` has those that come with mfdtool; other packages add theirs
with an entry point of the group ``mfdtool.vendors``. The facts are in ``docs/vendors.md``.
"""

from __future__ import annotations
