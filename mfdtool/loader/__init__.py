# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference destination: a pure model of QEMU's loader.

- `machine`: ``step(state, event) -> (state, commands)``, with `events`, `commands` and `state`.
- `moves`: the tables of legal moves; `receive`, `device`, `mainstream`: the kinds of thread.
- `destination`, `options`, `assume`: what the destination is like, as said or as shown.
- `models`, `config`: what devices accept.
- `recording`, `lint`, `findings`, `stall`: a whole migration, and what is wrong with it.

How it relates to QEMU is told in docs/loader-model.md.
"""

from __future__ import annotations
