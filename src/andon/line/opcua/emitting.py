"""Sends an event to those who subscribed to its node, and with the same id to those who subscribed to the server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from asyncua import ua


async def emit(
    generator: Any, fields: Mapping[str, Any], text: str, severity: int, at: int | None = None
) -> None:
    """`fields`: values, as `ua.Variant` where the type of the event does not say their built-in type; `at`: microseconds UTC."""
    made = generator.event
    for name, value in fields.items():
        if isinstance(value, ua.Variant):
            made.add_property(name, value.Value, value.VariantType)
        else:
            setattr(made, name, value)
    made.Severity = severity
    source = made.emitting_node
    await generator.trigger(time_attr=moment(at), message=text)
    try:
        made.emitting_node = ua.NodeId(ua.ObjectIds.Server)
        await generator.isession.subscription_service.trigger_event(made)
    finally:
        made.emitting_node = source


def moment(at: int | None = None) -> datetime:
    """`at` (microseconds UTC), by default now."""
    return datetime.now(UTC) if at is None else datetime.fromtimestamp(at / 1e6, UTC)
