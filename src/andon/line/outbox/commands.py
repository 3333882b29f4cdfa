"""Commands of other machines: what a message asks for, whether it is obeyed, and the answer. Knows nothing of a broker.

    trigger    {"request_id": "4711", "part_id": "A-17", "lot": "L2"}    take an image and judge it
    recipe     {"request_id": "4712", "recipe": "3"}                     judge by another recipe

A command may come twice, late, or from long ago. One that is retained, has no expiry or has expired is refused, and a
request id is obeyed once.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

from pydantic import Field

from andon.core.errors import AndonError, DataError
from andon.core.files import from_json
from andon.line.config import LineConfig
from andon.line.parts import Answer, Part
from andon.line.store import Connection, rows
from andon.line.views import answer, verdict_name

if TYPE_CHECKING:
    from andon.line.line import Line

LOG = logging.getLogger(__name__)

WHO = "mqtt"
"""Who acts, in the audit."""
LARGEST = 4096
"""Bytes of a command."""
WAITING = 16
"""Commands of a station that may wait."""
REMEMBERED = 1000
"""Newest answers of a station that are given again."""
ANSWER_SECONDS = 60.0
"""How long the row of a triggered part is waited for."""
TOPICS = "andon/"
"""Topics that lines write and read: no answer may go there."""
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Message(NamedTuple):
    """What came from the broker."""

    command: str
    """Last level of its topic."""
    payload: bytes
    came: float
    """Seconds of a steady clock."""
    retained: bool = False
    expiry_s: int | None = None
    """Seconds for which it counts from `came`; None: the sender said nothing."""
    response_topic: str = ""
    """Where the sender wants the answer; empty: nowhere."""
    reply: Callable[[str], None] = lambda text: None
    """Sends an answer there; may wait, and never raises."""


class TriggerOrder(LineConfig):
    """A part that stands before the camera."""

    request_id: Text
    part_id: Text | None = None
    lot: Text | None = None


class RecipeOrder(LineConfig):
    """Another recipe of the settings."""

    request_id: Text
    recipe: Text


Order = TriggerOrder | RecipeOrder
ORDERS: dict[str, type[Order]] = {"trigger": TriggerOrder, "recipe": RecipeOrder}
"""What each command asks for."""


class Acts(Protocol):
    """What commands do. May wait; raises `AndonError`."""

    def trigger(self, station: str, order: TriggerOrder) -> Future[Answer]:
        """Take an image and judge it."""

    def set_recipe(self, station: str, order: RecipeOrder) -> None:
        """Judge by another recipe, unless this request was obeyed before."""


def order_of(message: Message, now: float) -> Order:
    """What a message asks for. Raises `DataError` and `ConfigError` for one that is not obeyed."""
    kind = ORDERS.get(message.command)
    if kind is None:
        raise DataError(f"there is no command {message.command!r}: send one of {', '.join(ORDERS)}")
    if message.retained:
        raise DataError("it is retained, and would be obeyed again: send it without retain")
    if message.expiry_s is None:
        raise DataError("it has no message expiry interval: say for how many seconds it counts")
    if now - message.came >= message.expiry_s:
        raise DataError(f"it has expired after {message.expiry_s} s: send it again if it still counts")
    if len(message.payload) > LARGEST:
        raise DataError(f"it has {len(message.payload)} bytes, more than {LARGEST}: send an object of JSON")
    try:
        values = from_json(message.payload)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise DataError('it is no object of JSON: send one such as {"request_id": "4711"}')
    return kind.parse(values, where=f"command {message.command}")


class Commands:
    """Obeys the commands of one station, one after the other, in a thread of its own."""

    def __init__(
        self,
        station: str,
        acts: Acts,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`steady`: the clock of `Message.came`."""
        self._station, self._acts, self._steady = station, acts, steady
        self._waiting: queue.Queue[Message | None] = queue.Queue(WAITING)
        self._answers: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
        self._thread = threading.Thread(target=self._run, name=f"andon-{station}-commands", daemon=True)

    def start(self) -> None:
        """Obey from now on; may be called again."""
        if not self._thread.is_alive():
            self._thread.start()

    def put(self, message: Message) -> None:
        """A message came. Waits for nothing."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            LOG.warning(
                "station %s, command %s is lost: %d wait", self._station, message.command[:40], WAITING
            )

    def stop(self, timeout: float) -> None:
        """Obey no further command."""
        if self._thread.is_alive():
            with self._waiting.mutex:
                self._waiting.queue.clear()
            self._waiting.put(None)
            self._thread.join(timeout)

    def obey(self, message: Message) -> dict[str, Any]:
        """The answer to a message, which has been obeyed or refused."""
        request = None
        try:
            order = order_of(message, self._steady())
            request = order.request_id
            if (before := self._answers.get((message.command, request))) is not None:
                return before
            done = self._done(order)
        except Exception as error:
            if not isinstance(error, AndonError):
                LOG.exception("station %s: a command failed", self._station)
            why = str(error) or type(error).__name__
            LOG.warning("station %s, command %s is refused: %s", self._station, message.command[:40], why)
            return {"request_id": request, "accepted": False, "why": why}
        found = {"request_id": request, "accepted": True, "why": "", **done}
        self._answers[message.command, request] = found
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
        return found

    def _done(self, order: Order) -> dict[str, Any]:
        if isinstance(order, RecipeOrder):
            self._acts.set_recipe(self._station, order)
            return {"recipe": order.recipe}
        given = self._acts.trigger(self._station, order).result(ANSWER_SECONDS)
        row = given.recorded.row
        return {"why": given.why, "verdict": verdict_name(row.verdict), "result": answer(row)}

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            found = self.obey(message)
            if message.response_topic.startswith(TOPICS):
                LOG.warning("station %s: no answer goes to a topic below %s", self._station, TOPICS)
            elif message.response_topic:
                try:
                    message.reply(json.dumps(found))
                except Exception:
                    LOG.exception("station %s: an answer is not sent", self._station)


class LineActs:
    """Acts on a line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def trigger(self, station: str, order: TriggerOrder) -> Future[Answer]:
        """Take an image with the camera of the station and judge it."""
        part = Part(b"", order.request_id, order.part_id, order.lot, t_trigger=self._line.clock(), source=WHO)
        return self._line.cameras.trigger(station, part)

    def set_recipe(self, station: str, order: RecipeOrder) -> None:
        """Judge by another recipe; the audit says whether this request was obeyed before, also before a restart."""
        why = f"command {order.request_id}"

        def obeyed(connection: Connection) -> bool:
            same = {"who": WHO, "action": "recipe", "object": f"station {station}", "reason": why}
            return bool(rows.find(connection, "audit", before=None, limit=1, **same))

        if not self._line.store.ask(obeyed):
            self._line.set_recipe(station, order.recipe, who=WHO, why=why)
