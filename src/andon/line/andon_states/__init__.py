"""States of alarms and stations, and the only ways between them.

Both are frozen values with one table of transitions each. `step` returns the next value and a `Change` for the tables
`alarm_event` and `audit`, or None where nothing changed. Events of the machine that do not apply are ignored; events of
people that do not apply raise `NotAllowed` and say what to do first.

For each raise of a stop alarm that is not silent, call `Station.step(StationEvent.STOP, ...)`: where the line already
stands it changes nothing. This is not a safety function.
"""

from andon.line.andon_states.alarm import ALARM_TABLE, LONGEST_SHELF, Alarm, AlarmEvent, AlarmState
from andon.line.andon_states.changes import By, Change, NotAllowed, StopCause
from andon.line.andon_states.station import CHECKED_CAUSES, STATION_TABLE, Station, StationEvent, StationState
from andon.line.andon_states.times import Stop, Summary, stops, summary

__all__ = [
    "ALARM_TABLE",
    "CHECKED_CAUSES",
    "LONGEST_SHELF",
    "STATION_TABLE",
    "Alarm",
    "AlarmEvent",
    "AlarmState",
    "By",
    "Change",
    "NotAllowed",
    "Station",
    "StationEvent",
    "StationState",
    "Stop",
    "StopCause",
    "Summary",
    "stops",
    "summary",
]
