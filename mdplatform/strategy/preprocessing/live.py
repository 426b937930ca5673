"""The live twin of a preprocessing: rows as they come in, the same numbers as in training."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from mdplatform.strategy.preprocessing.pipeline import Newest, begun_anew
from mdplatform.strategy.preprocessing.step import Pasts
from mdplatform.strategy.preprocessing.table import Table

if TYPE_CHECKING:
    from mdplatform.strategy.preprocessing.pipeline import Preprocessing


class LivePreprocessing:
    """Takes rows one by one, or a few at once, of one or several symbols; for one thread.

    It runs the steps of `transform`, which remember of each symbol the last rows that they look back on. So what it
    gives is, bit for bit, what `transform` gives for these rows when it has all of them. `history` (rows, such as the
    end of the training frame) warms it; `preprocessing.rows_before` says how many it needs. The twin has a copy of
    `preprocessing` as it was fitted then: what becomes of that later changes nothing here.

        live = preprocessing.live(history)
        live.update({"symbol": "BTCUSDT", "open_time": …, "close_time": …, "close": 50_017.5})
    """

    def __init__(self, preprocessing: Preprocessing, history: Any = None) -> None:
        preprocessing.check_whole()
        self.preprocessing = deepcopy(preprocessing)
        self._newest: Newest = {}
        self._pasts: list[Pasts] = self.preprocessing.beginnings()
        if history is not None:
            self.update(history)

    def update(self, rows: Any) -> Any:
        """Give the rows transformed: a frame for a frame, a mapping for a mapping (None if dropped), or `Samples`.

        Rows of a symbol come in order, each once, and of closed bars alone. Raises `SchemaMismatch` or
        `InvalidPreprocessing`, and is then as if the rows had not come.
        """
        return self._run(rows, keeps=True)

    def peek(self, rows: Any) -> Any:
        """Give what `update` would give, and forget the rows: for bars that still form."""
        return self._run(rows, keeps=False)

    def _run(self, rows: Any, *, keeps: bool) -> Any:
        table: Table = self.preprocessing.table(rows)
        if keeps:
            table = table.closed()
        newest, pasts = dict(self._newest), [dict(each) for each in self._pasts]
        given = self.preprocessing.run(begun_anew(table, self.preprocessing.length, newest), pasts)
        if keeps:
            self._newest, self._pasts = newest, pasts
        return given.like(rows)
