"""When on its release day a series is published: a clock time in a zone, with daylight saving, by series.

FRED tells the day of a release and not the hour. Agencies keep to hours, which are below; a series that is not there is
taken to be published at the very end of its release day. Where an agency has two hours for one series (durable goods
come in advance at 8:30 and in full at 10:00), the later one stands: a strategy may learn of a value late, never early.

The end of a day is midnight in St. Louis, for FRED's days are those of Chicago time and end after those of New York and
of UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

NEW_YORK, CHICAGO = "America/New_York", "America/Chicago"


@dataclass(frozen=True)
class Release:
    """A release: the time of day at which it comes out, and the series that come with it.

    A name that ends in `*` stands for all series that begin so. `until` are earlier times of day, each with the first
    day on which it no longer held, oldest first; `exceptions` are days with a time of day of their own.
    """

    name: str
    at: time
    series: str
    zone: str = NEW_YORK
    until: tuple[tuple[date, time], ...] = ()
    exceptions: tuple[tuple[date, time], ...] = ()

    def instant(self, day: date) -> datetime:
        """Give the instant (UTC) of the release on that day."""
        earlier = next((at for last, at in self.until if day < last), self.at)
        local = datetime.combine(day, dict(self.exceptions).get(day, earlier), ZoneInfo(self.zone))
        return local.astimezone(UTC)


_DELAYED_INCOME = ((date(2025, 12, 5), time(10)), (date(2026, 1, 22), time(10)))
"""After the government's shutdown of autumn 2025 income and outlays came at 10:00."""

RELEASES = (
    Release("BLS consumer prices", time(8, 30), "CPIAUCSL CPIAUCNS CPILFESL CPILFENS CUSR* CUUR* CPI*"),
    Release(
        "BLS employment situation",
        time(8, 30),
        "PAYEMS UNRATE UNRATENSA U1RATE U2RATE U4RATE U5RATE U6RATE CIVPART EMRATIO UNEMPLOY CE16OV CLF16OV AHETPI "
        "AWHAETP AWHMAN MANEMP USPRIV USGOVT USCONS CES* LNS* UEMP*",
    ),
    Release("BLS producer prices", time(8, 30), "PPIACO PPIFIS PPIFES PPIFGS PPICOR PPIIDC WPU* WPS* PCU*"),
    Release("BLS import and export prices", time(8, 30), "IR IQ IREXPET"),
    Release("BLS employment cost and productivity", time(8, 30), "ECI* CIU* OPHNFB ULCNFB HOANBS COMPNFB"),
    Release("BLS job openings", time(10), "JTS* JTU*"),
    Release(
        "BEA national accounts",
        time(8, 30),
        "GDP GDPC1 GDPDEF GDI GNP GNPC96 A191* A261* B230* PCECC96 GPDI GPDIC1 GCEC1 NETEXP NETEXC CP CPATAX PCEC",
    ),
    Release(
        "BEA personal income and outlays",
        time(8, 30),
        "PCE PCEPI PCEPILFE PCEC96 PCEDG PCES PCEND PI DSPI DSPIC96 PSAVERT PMSAVE W875RX1 RPI DPCER* DPCCR*",
        exceptions=_DELAYED_INCOME,
    ),
    Release("BEA and Census trade balance", time(8, 30), "BOPGSTB BOPTEXP BOPTIMP"),
    Release("Census retail sales", time(8, 30), "RSXFS RSAFS RSFSXMV MRTSSM*"),
    Release("Census housing starts", time(8, 30), "HOUST PERMIT HOUST* PERMIT* COMPUTSA"),
    Release("Census factory orders", time(10), "DGORDER NEWORDER AMTMNO AMDMVS AMTMUO ADXTNO ACOGNO"),
    Release("Census new homes, construction and inventories", time(10), "HSN1F MSACSR TTLCONS BUSINV ISRATIO"),
    Release("DOL unemployment claims", time(8, 30), "ICSA ICNSA CCSA CCNSA IC4WSA CC4WSA IURSA"),
    Release("Fed G.17 industrial production", time(9, 15), "INDPRO IPMAN TCU CAPUTL* MCUMFN IPMANSICS"),
    Release(
        "Fed H.6 money stock",
        time(13),
        "M1SL M1NS M2SL M2NS M2REAL WM1NS WM2NS M1REAL CURRSL DEMDEPSL BOGMBASE",
        until=((date(2021, 2, 23), time(16, 30)),),
    ),
    Release("Fed H.4.1 balance sheet", time(16, 30), "WALCL WSHOMCB WSHOSHO WTREGEN WRESBAL WLRRAL TREAST RESPPANWW"),
    Release("Fed H.8 bank assets", time(16, 15), "BUSLOANS TOTLL TOTBKCR REALLN CONSUMER DPSACBW027SBOG TOTCI"),
    Release("Fed H.10 exchange rates", time(16, 15), "DTWEX* DEX* TWEX* RTWEX*"),
    Release(
        "Fed H.15 interest rates",
        time(16, 15),
        "DFF FEDFUNDS FF DGS1MO DGS3MO DGS6MO DGS1 DGS2 DGS3 DGS5 DGS7 DGS10 DGS20 DGS30 GS1 GS2 GS5 GS10 GS30 "
        "TB3MS TB6MS DTB3 DTB6 DPRIME MPRIME DFII5 DFII7 DFII10 DFII20 DFII30",
    ),
    Release("Fed G.19 consumer credit", time(15), "TOTALSL REVOLSL NONREVSL"),
    Release("Chicago Fed indexes", time(8, 30), "NFCI ANFCI NFCI* CFNAI CFNAI*"),
    Release("University of Michigan sentiment", time(10), "UMCSENT MICH"),
    Release("S&P house prices", time(9), "CSUSHPINSA CSUSHPISA SPCS*"),
    Release("NAR existing homes", time(10), "EXHOSLUSM495S HOSINVUSM495N"),
    Release("Freddie Mac mortgage rates", time(12), "MORTGAGE30US MORTGAGE15US"),
)
"""The releases whose hours are known. A new one is a line here."""

_BY_NAME = {name: each for each in RELEASES for name in each.series.split() if not name.endswith("*")}
_BY_BEGINNING = sorted(
    ((name[:-1], each) for each in RELEASES for name in each.series.split() if name.endswith("*")),
    key=lambda pair: -len(pair[0]),
)


def release_of(series: str) -> Release | None:
    """Give the release that a series comes with, None where its hour is not known.

    >>> release_of("CPIAUCSL").name, release_of("SP500")
    ('BLS consumer prices', None)
    """
    exact = _BY_NAME.get(series)
    return exact or next((each for beginning, each in _BY_BEGINNING if series.startswith(beginning)), None)


def published_at(series: str, day: date) -> datetime:
    """Give the instant (UTC) at which what a series released on `day` was public at the latest.

    >>> published_at("CPIAUCSL", date(2025, 3, 12)).isoformat(), published_at("CPIAUCSL", date(2025, 2, 12)).isoformat()
    ('2025-03-12T12:30:00+00:00', '2025-02-12T13:30:00+00:00')
    >>> published_at("SP500", date(2025, 3, 12)).isoformat()
    '2025-03-13T05:00:00+00:00'
    """
    release = release_of(series)
    if release is not None:
        return release.instant(day)
    return datetime.combine(day + timedelta(days=1), time(), ZoneInfo(CHICAGO)).astimezone(UTC)
