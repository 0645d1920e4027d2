"""When a schedule fires: a cron expression and the time zone that it is read in."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from dtkpipe.errors import InvalidError

# What both engines' parser takes (github.com/robfig/cron v3, ParseStandard): five fields, no L, W, # or seconds.
_FIELD = re.compile(r"(?:\*|\d+|[A-Za-z]{3})(?:-(?:\d+|[A-Za-z]{3}))?(?:/\d+)?")
_EXPECTED = "expected five fields: minute, hour, day of the month, month, day of the week; e.g. '0 3 * * 1-5'"


@dataclass(frozen=True)
class Cron:
    """A cron expression with five fields, and a time zone of the IANA database: `0 3 * * *`, `Europe/Berlin`."""

    expression: str
    zone: str

    @classmethod
    def parse(cls, expression: str, zone: str) -> Cron:
        """Parse what the user wrote. Raises InvalidError for times that never come and zones that do not exist."""
        from cronsim import CronSim, CronSimError

        fields = expression.split()
        text = " ".join(fields)
        if len(fields) != 5 or not all(_FIELD.fullmatch(part) for field in fields for part in field.split(",")):
            raise InvalidError(f"`{expression[:80]}` is not a cron expression", _EXPECTED)
        if re.search(r"(?<![\d/])7", fields[4]):
            raise InvalidError(f"`{expression[:80]}`: there is no day of the week 7", hint="0 is Sunday")
        found = cls(text, _zone(zone))
        try:
            next(CronSim(text, datetime(2024, 1, 1, tzinfo=found._tzinfo)))
        except CronSimError as error:
            raise InvalidError(f"`{expression[:80]}` is not a cron expression", str(error), _EXPECTED) from error
        except StopIteration:
            raise InvalidError(f"`{expression[:80]}` never comes") from None
        return found

    def next(self, now: datetime) -> datetime:
        """Return when it fires next after `now`, in its time zone."""
        from cronsim import CronSim

        return next(CronSim(self.expression, now.astimezone(self._tzinfo)))

    @property
    def _tzinfo(self) -> ZoneInfo:
        return ZoneInfo(self.zone)


def _zone(name: str) -> str:
    known = available_timezones()
    if name in known and name != "localtime":
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    raise InvalidError(
        f"there is no time zone `{name[:80]}`", "expected a name of the IANA database: Europe/Berlin, UTC",
        hint=f"did you mean `{near[0]}`?" if near else "",
    )  # fmt: skip
