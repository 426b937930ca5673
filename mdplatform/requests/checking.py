"""Putting requests together and checking them: what `making` made of a strategy's words, or what came over the wire.

What was found good is remembered by its content, so that to check the same again costs microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from hashlib import blake2b
from numbers import Integral, Real
from typing import Any, Literal, TypedDict

import msgspec

from mdplatform.errors import InvalidRequest, ParameterOutOfRange, PlatformError
from mdplatform.features import parse_feature
from mdplatform.features.correlation.matrix import LEAST_PERIODS, check_options
from mdplatform.features.correlation.reading import OF
from mdplatform.features.effort import steps
from mdplatform.messaging.priority import DataPriority
from mdplatform.requests import fields
from mdplatform.requests.features import call, feature, features
from mdplatform.requests.fields import MOST_PARTS, MOST_ROWS, at, count, refuse
from mdplatform.requests.ids import new_id
from mdplatform.requests.request import DataRequest, Refresh, RequestType

DEFAULT_DEADLINE_SECONDS = 120.0
"""Where neither the caller nor the settings say another; a standing request lives a day."""
LONGEST_WINDOW = 100_000
MOST_SERIES = 50
MOST_STEPS = 250_000_000
"""Rows × window of a request's features that look at the whole window at each row: some seconds of work."""
_REMEMBERED = 8192
_MOST = {"symbols": fields.MOST_SYMBOLS, "timeframes": fields.MOST_TIMEFRAMES, "features": fields.MOST_FEATURES}
_OPTIONS = ("window", "of", "method", "half_life", "sample", "min_periods", "shrinkage", "repair")

Instant = datetime | str


class Common(TypedDict, total=False):
    """What every request may say beside what it asks for.

    - `strategy_name`: for people, at most 200 characters.
    - `priority`: by default `NORMAL`.
    - `deadline`: seconds from now, a timedelta, or a time; more than 0, at most a day.
    - `latest`: so many of the newest rows, by default 1; or `start` and, where wanted, `end`: the rows with
      `start <= open_time < end`. `as_of`: all as it was known then.
    - `refresh`: `once`, or `on_close`: answered again at each new bar until it is cancelled or expires.
    - `request_id`: the caller's own; sending the same id again is harmless.
    """

    strategy_name: str
    priority: DataPriority | Literal["CRITICAL", "HIGH", "NORMAL", "LOW"]
    deadline: float | timedelta | Instant | None
    latest: int | None
    start: Instant | None
    end: Instant | None
    as_of: Instant | None
    refresh: Refresh | Literal["once", "on_close"]
    request_id: str | None


def assemble(
    type: RequestType,
    strategy_id: object,
    common: Mapping[str, Any],
    *,
    symbols: object = None,
    timeframes: object = None,
    features: tuple[str, ...] = (),
    options: dict[str, Any] | None = None,
) -> DataRequest:
    """Give the checked request; `features` are canonical, all else is as it was written."""
    refuse_unknown(common, Common.__annotations__)
    now = fields.now_us()
    given = {name: value for name, value in common.items() if value is not None}
    start, latest = fields.instant(given.get("start"), "start"), given.get("latest")
    latest = int(latest) if isinstance(latest, Integral) and not isinstance(latest, bool) else latest
    refresh = fields.word(given.get("refresh", "once"), Refresh, "refresh")
    default = DEFAULT_DEADLINE_SECONDS if refresh is Refresh.ONCE else fields.LONGEST_DEADLINE_SECONDS
    request = DataRequest(
        request_id=fields.request_id(given.get("request_id", new_id())),
        strategy_id=fields.name(strategy_id, "strategy_id"),
        strategy_name=fields.name(given.get("strategy_name", ""), "strategy_name", fields.LONGEST_NAME, 0),
        type=type,
        symbols=() if symbols is None else fields.symbols(symbols),
        timeframes=() if timeframes is None else fields.timeframes(timeframes),
        features=features,
        options={name: _plain(value, name) for name, value in (options or {}).items()},
        latest=1 if latest is None and start is None else latest,
        start=start,
        end=fields.instant(given.get("end"), "end"),
        as_of=fields.instant(given.get("as_of"), "as_of"),
        priority=fields.word(given.get("priority", "NORMAL"), DataPriority, "priority", upper=True),
        refresh=refresh,
        deadline=fields.deadline(given.get("deadline", default), now),
        sent_at=now,
    )
    _check_content(request, now)
    _remember(_digest(request))
    return request


def check(request: DataRequest) -> DataRequest:
    """Check a request that came over the wire as `make` would; give it in canonical form. Raises like `make`.

    A deadline that has passed is no mistake of the request.
    """
    fields.request_id(request.request_id)
    fields.name(request.strategy_id, "strategy_id")
    fields.name(request.strategy_name, "strategy_name", fields.LONGEST_NAME, 0)
    now = fields.now_us()
    fields.check_deadline(request.deadline, now)
    _check_options_shape(request.options)
    for name, most in _MOST.items():
        if len(getattr(request, name)) > most:
            raise refuse(name, "Too many", len(getattr(request, name)), f"Allowed: up to {most}")
    digest = _digest(request)
    if digest in _good:
        return request
    checked = msgspec.structs.replace(
        request,
        symbols=fields.symbols(request.symbols) if request.symbols else (),
        timeframes=fields.timeframes(request.timeframes) if request.timeframes else (),
        features=features(request.features, "features") if request.features else (),
        start=fields.in_years(request.start, "start"),
        end=fields.in_years(request.end, "end"),
        as_of=fields.in_years(request.as_of, "as_of"),
    )
    _check_content(checked, now)
    if checked == request:  # what names a composite may mean something else tomorrow
        _remember(digest)
    return checked


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a field that there is not, and say which are near."""
    names = list(known)
    for name in given:
        if name not in names:
            near = get_close_matches(str(name), names, n=3, cutoff=0.5)
            told = f"Nearest known: {', '.join(near)}" if near else f"Known: {', '.join(names)}"
            raise refuse(str(fields.shown(name)), "Unknown field", None, told)


def _check_content(request: DataRequest, now: int) -> None:
    """Check what belongs to the type, and the sizes."""
    is_matrix = request.type is RequestType.CORRELATION_MATRIX
    is_table = request.type is RequestType.MACRO_INDICATORS and not request.symbols
    if not request.symbols and not is_table:
        raise refuse("symbols", "Nothing in it", None, f"Name 1 to {fields.MOST_SYMBOLS}")
    if not request.timeframes and not is_table:
        raise refuse("timeframes", "Nothing in it", None, f"Name 1 to {fields.MOST_TIMEFRAMES}")
    if not request.features and not is_table and not is_matrix:
        raise refuse("features", "Nothing in it", None, f"Name 1 to {fields.MOST_FEATURES}")
    if is_matrix:
        _check_matrix(request)
    elif is_table:
        _check_table(request)
    elif request.options:
        raise refuse("options", "Unknown field", ", ".join(map(str, request.options)), f"{request.type} has none")
    if not (is_matrix and request.start is None):
        fields.check_range(request.latest, request.start, request.end)
    if request.refresh is Refresh.ON_CLOSE:
        for name in ("start", "end", "as_of"):
            if getattr(request, name) is not None:
                raise refuse(name, "A standing request has no range", None, "Give latest instead, or ask once")
    _check_sizes(request, now)


def _check_sizes(request: DataRequest, now: int) -> None:
    pairs = len(request.symbols) * len(request.timeframes)
    parts = pairs * len(request.features)
    if parts > MOST_PARTS:
        told = f"{len(request.symbols)} × {len(request.timeframes)} × {len(request.features)} = {parts:,}"
        remedy = f"Allowed: symbols × timeframes × features up to {MOST_PARTS:,}; ask in several requests"
        raise refuse("symbols", "Too many results in one request", told, remedy)
    if request.features:
        each = len(request.symbols) * len(request.features)
        span = (request.latest, request.start, request.end)
        total = each * sum(fields.rows(*span, timeframe, now) for timeframe in request.timeframes)
        if total > MOST_ROWS:
            place = "latest" if request.start is None else "start"
            remedy = f"Allowed: rows of all results together up to {MOST_ROWS:,}; ask in several requests"
            raise refuse(place, "Too many rows in one request", f"{total:,}", remedy)
        _check_effort(request, now)
    if request.options and len(request.symbols) * (request.options.get("window") or 0) > MOST_ROWS:
        told = f"{len(request.symbols)} × {request.options['window']:,}"
        raise refuse("window", "Too many bars in one matrix", told, f"Allowed: symbols × window up to {MOST_ROWS:,}")


def _check_effort(request: DataRequest, now: int) -> None:
    """Refuse what would keep a worker busy for minutes, and name the feature that would most."""
    span = (request.latest, request.start, request.end)
    rows = [fields.rows(*span, timeframe, now) for timeframe in request.timeframes]
    each = {spec: sum(steps(spec, count) for count in rows) for spec in map(parse_feature, request.features)}
    total = len(request.symbols) * sum(each.values())
    if total > MOST_STEPS:
        dearest = str(max(each, key=each.__getitem__))
        remedy = f"Allowed: rows × window up to {MOST_STEPS:,} in one request; this has {total:,}"
        raise refuse("features", "Too long a window for so many rows", dearest, remedy)


def _check_matrix(request: DataRequest) -> None:
    refuse_unknown(request.options, _OPTIONS)
    if request.features:
        raise refuse("features", "A correlation matrix has no features", None, "Ask for TECHNICAL_INDICATORS")
    if len(request.symbols) < 2:
        raise refuse("symbols", "Correlation of one symbol", request.symbols[0], "Name 2 or more")
    if request.start is not None:
        raise refuse("start", "A correlation matrix has a window", None, "Give window, and end where it is not now")
    if request.latest is not None and count(request.latest, "latest", fields.MOST_LATEST) != 1:
        raise refuse("latest", "A request gives one matrix a timeframe", request.latest, "Leave it out")
    given = dict(request.options)
    window, of = given.pop("window", None), given.pop("of", "returns")
    count(window, "window", LONGEST_WINDOW, 2)
    if of not in OF:
        raise refuse("of", "Correlation of what", of, f"Allowed: {', '.join(OF)}")
    if isinstance(given.get("min_periods", 2), float):
        raise refuse("min_periods", "Not such a number", given["min_periods"], "Allowed: an integer from 2")
    defaults = {
        "method": "pearson", "half_life": None, "sample": "pairwise",
        "min_periods": LEAST_PERIODS, "shrinkage": None, "repair": None,
    }  # fmt: skip
    try:
        check_options(**{**defaults, **given})
    except ParameterOutOfRange as error:
        error.field = next((name for name in defaults if name != "method" and name in error.cause), "")
        error.field = error.field or ("method" if "method" in error.cause else "shrinkage")
        error.value = fields.shown(error.value)
        raise
    pairs = len(request.symbols) * (len(request.symbols) - 1) // 2 * len(request.timeframes)
    if given.get("method") == "spearman" and pairs * int(window) > MOST_STEPS:
        remedy = f"Allowed: pairs × window up to {MOST_STEPS:,} with this method; take fewer symbols or bars"
        raise refuse("window", "Too long a window for so many pairs", f"{pairs:,} × {window:,}", remedy)


def _check_table(request: DataRequest) -> None:
    refuse_unknown(request.options, ("series",))
    if request.features:
        raise refuse("symbols", "Features without symbols", None, "Name symbols and timeframes")
    if request.timeframes:
        raise refuse("timeframes", "Timeframes without symbols", ", ".join(request.timeframes), "Name symbols as well")
    for index, each in enumerate(fields.items(request.options.get("series"), MOST_SERIES, "series")):
        try:
            feature(call("MACRO", series=each), "")
        except PlatformError as error:
            error.field = f"series[{index}]"
            raise


def _plain(given: object, field: str) -> object:
    return given if field == "series" else fields.option(given, field)


def _check_options_shape(options: Mapping[str, Any]) -> None:
    """Refuse what would be costly to look at, before it is looked at."""
    with at("options"):
        if len(options) > len(_OPTIONS):
            raise InvalidRequest("Too many options", value=len(options), remedy=f"At most {len(_OPTIONS)}")
        for name, value in options.items():
            listed = value if isinstance(value, list | tuple) else (value,)
            if len(listed) > MOST_SERIES or not all(each is None or isinstance(each, str | Real) for each in listed):
                raise refuse(str(fields.shown(name)), "Neither number nor text", value, "Give one, or a short list")


def _digest(request: DataRequest) -> bytes:
    told = (
        request.type, request.symbols, request.timeframes, request.features, request.options, request.latest,
        request.start, request.end, request.as_of, request.refresh,
    )  # fmt: skip
    return blake2b(_encoder.encode(told), digest_size=16).digest()


def _remember(digest: bytes) -> None:
    if len(_good) >= _REMEMBERED:
        _good.pop(next(iter(_good), b""), None)
    _good[digest] = None


_encoder = msgspec.msgpack.Encoder()
_good: dict[bytes, None] = {}
