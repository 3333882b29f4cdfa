"""What clients ask of a vision system: methods of its state machine, results and recipes. Runs in the thread of the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from asyncua import ua

from andon.core.errors import AndonError
from andon.line.models import UnknownRecipe
from andon.line.opcua.vision import model as of
from andon.line.opcua.vision.nodes import VisionNodes
from andon.line.opcua.vision.shooting import Single
from andon.line.opcua.vision.states import Call, Mode, Query, is_allowed
from andon.line.opcua.vision.values import NO_JOB, Recipe, Wanted, in_use, matching, page, recipes
from andon.line.plc.connect import Hooks
from andon.line.station import Station
from andon.line.views import StationView

LOG = logging.getLogger(__name__)

BY = "by a client of OPC UA"
STOPPED = f"the job was ended {BY}: start one there"
UNPREPARED = f"no recipe is prepared {BY}: prepare one there"
LONGEST_CAUSE = 200
"""Characters of the reason of a client that are shown."""
_CAUSE = (Call.HALT, Call.RESET, Call.STOP, Call.ABORT)
ARGUMENTS: dict[str, int] = {
    **dict.fromkeys((*_CAUSE, Call.PREPARE, Call.UNPREPARE, Query.RESULT, Query.COMPONENTS), 2),
    **dict.fromkeys((Call.START_SINGLE, Call.START), 5),
    Call.SELECT: 0,
    Query.RESULTS: 12,
    Query.RECIPES: 6,
}
"""How many each method has."""
NO_ERROR = ua.Variant(0, ua.VariantType.Int32)
NO_HANDLE = ua.Variant(0, ua.VariantType.UInt32)
"""Nothing is kept for a client, so that there is nothing to release."""


class Refused(Exception):  # noqa: N818
    """What a client asked for is not done."""

    def __init__(self, code: int) -> None:
        self.code = code


class Served(Protocol):
    """The server, as methods need it."""

    async def act(self, work: Callable[[], None]) -> None:
        """Do something that may wait, and look at the station again."""

    async def show(self, *, through: bool = False) -> None:
        """Show clients the station now; `through`: by way of `Preoperational`."""

    @property
    def view(self) -> StationView:
        """The station now."""

    @property
    def state(self) -> Any:
        """Its state, as it was shown last."""


class VisionMethods:
    """Carries out the methods of one vision system."""

    def __init__(
        self,
        nodes: VisionNodes,
        station: Station,
        line: Hooks,
        served: Served,
        single: Single | None,
        *,
        may_call: bool,
    ) -> None:
        """`single`: takes one part; None where the station has no camera that can be asked. `may_call`: more than queries."""
        self._nodes, self._station, self._line, self._served = nodes, station, line, served
        self._single, self._may_call = single, may_call
        self._running: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()
        """One method at a time, so that the state is that for which it is allowed."""
        self._handlers: dict[str, Callable[..., Awaitable[list[ua.Variant]]]] = {
            Call.HALT: self._halt,
            Call.RESET: self._reset,
            Call.SELECT: self._select,
            Call.START_SINGLE: self._start_single,
            Call.START: self._start,
            Call.STOP: partial(self._end, Call.STOP),
            Call.ABORT: partial(self._end, Call.ABORT),
            Call.PREPARE: self._prepare,
            Call.UNPREPARE: self._unprepare,
            Query.RESULT: self._result,
            Query.COMPONENTS: self._result_components,
            Query.RESULTS: self._results,
            Query.RECIPES: self._recipes,
        }

    def all(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """All methods by name, as asyncua calls them."""
        return {name: self._called(name) for name in self._handlers}

    async def close(self) -> None:
        """Wait for no part any more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _called(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def called(_parent: ua.NodeId, *arguments: ua.Variant) -> Any:
            try:
                async with self._one:
                    self._check(name, len(arguments))
                    return await self._carry_out(name, [argument.Value for argument in arguments])
            except Refused as refused:
                return ua.StatusCode(refused.code)
            except AndonError as error:
                LOG.warning("station %s: %s asked for %s: %s", self._station.name, name, BY, error)
                unknown = isinstance(error, UnknownRecipe)
                codes = ua.StatusCodes
                return ua.StatusCode(codes.BadInvalidArgument if unknown else codes.BadInvalidState)

        return called

    async def _carry_out(self, name: str, arguments: Sequence[Any]) -> list[ua.Variant]:
        if name in [*Query]:
            return await self._handlers[name](*arguments)
        self._nodes.called = name
        try:
            return await self._handlers[name](*arguments)
        finally:
            self._nodes.called, self._nodes.next_job = None, NO_JOB

    def _check(self, name: str, arguments: int) -> None:
        """Raises `Refused` for what may not be called now, or not so."""
        codes, expected = ua.StatusCodes, ARGUMENTS[name]
        if arguments != expected:
            raise Refused(codes.BadArgumentsMissing if arguments < expected else codes.BadTooManyArguments)
        if name in [*Query]:
            return
        if not self._may_call:
            raise Refused(codes.BadUserAccessDenied)
        state, mode = self._served.state, self._nodes.mode
        if not is_allowed(Call(name), state, mode):
            LOG.warning("station %s: %s called %s in state %s", self._station.name, name, BY, mode or state)
            raise Refused(codes.BadInvalidState)
        LOG.info("station %s: %s called %s", self._station.name, name, BY)

    # The state machine ---------------------------------------------------------------------------------------------

    async def _halt(self, cause: Any, text: Any) -> list[ua.Variant]:
        why = _why(cause, text)
        await self._act("halts", partial(self._station.halt, f"halted {BY}{why}: reset the station there"))
        await self._served.show()
        return [NO_ERROR]

    async def _reset(self, cause: Any, text: Any) -> list[ua.Variant]:
        _why(cause, text)
        self._nodes.asked = Mode.READY
        await self._act("resets", self._station.release)
        await self._served.show(through=True)
        return [NO_ERROR]

    async def _select(self) -> list[ua.Variant]:
        """The station goes there by itself once its model is verified."""
        return [NO_ERROR]

    async def _end(self, call: Call, cause: Any, text: Any) -> list[ua.Variant]:
        why, drop = STOPPED + _why(cause, text), call is Call.ABORT
        self._nodes.asked = Mode.READY
        action = "aborts the job" if drop else "stops the job"
        await self._act(action, partial(self._station.suspend, why, drop=drop))
        await self._served.show()
        return [NO_ERROR]

    async def _start(
        self, measurement: Any, part: Any, recipe: Any, product: Any, _parameters: Any
    ) -> list[ua.Variant]:
        if _id(part):
            raise Refused(ua.StatusCodes.BadInvalidArgument)  # each part has its own
        job = self._job(measurement, recipe, product)
        await self._act("starts a job", partial(self._station.suspend, None))
        await self._served.show()
        return [of.variant(job), NO_ERROR]

    async def _start_single(
        self, measurement: Any, part: Any, recipe: Any, product: Any, _parameters: Any
    ) -> list[ua.Variant]:
        if self._single is None:
            raise Refused(ua.StatusCodes.BadNotSupported)
        part_id, job = _id(part), self._job(measurement, recipe, product)
        request = f"opcua-{job.Id}"
        self._nodes.expect(request, self._nodes.next_job)
        await self._act("starts a single job", partial(self._station.suspend, STOPPED, let_in=request))
        self._nodes.asked = Mode.SINGLE
        await self._served.show()
        self._running = asyncio.create_task(self._take(self._single, request, part_id))
        return [of.variant(job), NO_ERROR]

    async def _take(self, single: Single, request: str, part_id: str) -> None:
        job = self._nodes.job
        await self._served.act(partial(single, request, part_id))
        if self._nodes.asked is Mode.SINGLE and self._nodes.job is job:
            self._nodes.asked = Mode.READY
            await self._served.show()

    def _job(self, measurement: Any, recipe: Any, product: Any) -> Any:
        """The id of a new job. Raises `Refused` for a recipe that is not in use."""
        used = in_use(self._served.view)
        if _id(product) or _id(recipe) not in ("", used.code):
            raise Refused(ua.StatusCodes.BadInvalidArgument)
        return ua.JobIdDataType(Id=self._nodes.begin(_id(measurement)).id)

    async def _act(self, action: str, work: Callable[[], None]) -> None:
        def audited() -> None:
            self._line.audit(self._station, action)
            work()

        await self._served.act(audited)

    # Recipes -------------------------------------------------------------------------------------------------------

    async def _prepare(self, external: Any, internal: Any) -> list[ua.Variant]:
        code, used = _id(external) or _id(internal), in_use(self._served.view)
        if not code:
            raise Refused(ua.StatusCodes.BadInvalidArgument)
        if code != used.id:
            await self._served.act(partial(self._line.set_recipe, self._station, code))
        await self._act("prepares a recipe", partial(self._station.suspend, STOPPED))
        self._nodes.asked = Mode.READY
        await self._served.show()
        found = in_use(self._served.view)
        is_done = found.id == code and self._nodes.mode is Mode.READY
        shown = of.internal(found if is_done else Recipe(code, ""))
        return [of.variant(shown), ua.Variant(is_done), NO_ERROR]

    async def _unprepare(self, external: Any, internal: Any) -> list[ua.Variant]:
        code, used = _id(external) or _id(internal), in_use(self._served.view)
        if code != used.id:
            raise Refused(ua.StatusCodes.BadInvalidArgument)
        await self._act("unprepares the recipe", partial(self._station.suspend, UNPREPARED))
        self._nodes.asked = Mode.INITIALIZED
        await self._served.show()
        return [of.variant(of.internal(used)), NO_ERROR]

    async def _recipes(
        self, external: Any, product: Any, prepared: Any, most: Any, start: Any, _timeout: Any
    ) -> list[ua.Variant]:
        code, is_prepared = _id(external), self._nodes.mode not in (None, Mode.INITIALIZED)
        wanted = {0: (False,), 1: (True,)}.get(_number(prepared), (False, True))
        known = recipes(self._served.view, is_prepared=is_prepared)
        found = [each for each, ready in known if ready in wanted and code in ("", each.code)]
        shown, is_complete = page([] if _id(product) else found, _number(start), _number(most))
        return _list(shown, is_complete, [of.internal(each) for each in shown])

    # Results -------------------------------------------------------------------------------------------------------

    async def _result(self, id: Any, _timeout: Any) -> list[ua.Variant]:
        return [NO_HANDLE, of.variant(self._found(id)), NO_ERROR]

    async def _result_components(self, id: Any, _timeout: Any) -> list[ua.Variant]:
        values = of.components(self._found(id))
        values.pop("ResultId")
        on_file = values.pop("HasTransferableDataOnFile")
        return [on_file, NO_HANDLE, *values.values(), NO_ERROR]

    async def _results(self, state: Any, *wanted: Any) -> list[ua.Variant]:
        *ids, most, start, _timeout = wanted
        measurement, part, code, recipe, external, internal, product, job = map(_id, ids)
        looked_for = Wanted(_number(state), measurement, part, code, recipe, external, internal, product, job)
        found = matching(reversed(self._nodes.results), looked_for)
        shown, is_complete = page(found, _number(start), _number(most))
        return _list(shown, is_complete, [of.structure(each) for each in shown])

    def _found(self, id: Any) -> Any:
        """A result that is kept. Raises `Refused`."""
        wanted = _id(id)
        found = next((each for each in self._nodes.results if each.id == wanted), None)
        if found is None:
            raise Refused(ua.StatusCodes.BadNotFound)
        return of.structure(found)


def _list(shown: Sequence[Any], is_complete: bool, made: list[Any]) -> list[ua.Variant]:
    """Outputs of a method that answers a list."""
    entries = ua.Variant(made, ua.VariantType.ExtensionObject, is_array=True)
    count = ua.Variant(len(shown), ua.VariantType.UInt32)
    return [ua.Variant(is_complete), count, NO_HANDLE, entries, NO_ERROR]


def _id(value: Any) -> str:
    """The id in a structure; empty for null. Raises `Refused` for what is no such structure."""
    found = "" if value is None else getattr(value, "Id", value)
    if found is None:
        return ""
    if not isinstance(found, str) or found is value:
        raise Refused(ua.StatusCodes.BadInvalidArgument)
    return found


def _number(value: Any) -> int:
    """A whole number that is not negative. Raises `Refused`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refused(ua.StatusCodes.BadInvalidArgument)
    return int(value)


def _why(cause: Any, text: Any) -> str:
    """What a client says about a call, for people. Raises `Refused` for what is no number and no text."""
    if not isinstance(cause, int) or not isinstance(text, str | None):
        raise Refused(ua.StatusCodes.BadInvalidArgument)
    said = " ".join((text or "").split())[:LONGEST_CAUSE]
    return f" ({said})" if said else ""
