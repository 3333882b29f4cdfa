"""Proxies before the server: whose word counts for who asks, from where, and over what."""

from __future__ import annotations

import ipaddress
from functools import cached_property

from pydantic import field_validator

from andon.line.config import LineConfig


class AccessSettings(LineConfig):
    """Proxies that log people in themselves."""

    proxies: tuple[str, ...] = ()
    """Addresses or networks, e.g. `10.0.0.5` or `10.0.0.0/28`. Of all others, headers about the sender are ignored."""
    user_header: str = "X-Forwarded-User"
    """Header in which a proxy gives the name of an account."""

    @field_validator("proxies")
    @classmethod
    def _are_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError:
                raise ValueError(
                    f"{proxy!r} is no address or network: give e.g. 10.0.0.5 or 10.0.0.0/28"
                ) from None
        return proxies

    @cached_property
    def networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """`proxies` as networks."""
        return [ipaddress.ip_network(proxy) for proxy in self.proxies]

    def trusts(self, address: str) -> bool:
        """Whether this is the address of a proxy."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self.networks)
