"""Settings of what is sent to other machines: MQTT, webhooks, e-mail. Secrets stand in files or environment variables.

[mqtt]
host = "broker.plant"
user = "press"
password = { file = "mqtt.password" }

[[webhooks]]
name = "mes"
url = "https://mes.plant/andon"
secret = { env = "ANDON_MES_SECRET" }
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from andon.core.errors import ConfigError
from andon.line.config import LineConfig, first_twice, joined, table

Port = Field(0, ge=0, le=65535, strict=True)
NAME = "[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
MAIL_PORTS = {"starttls": 587, "tls": 465, "none": 25}


class SecretSettings(LineConfig):
    """Where a secret is: in a file or in an environment variable, never in the settings themselves."""

    file: Path | None = None
    """First line of this file."""
    env: str = ""
    """Name of the environment variable."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.file is None) == (not self.env):
            raise ValueError("needs file or env, one of both")
        return self

    def read(self, what: str) -> str:
        """The secret. Raises `ConfigError` where it is missing or empty; `what` names it."""
        if self.file is None:
            found, place = os.environ.get(self.env, ""), f"environment variable {self.env}"
        else:
            place = str(self.file)
            try:
                found = (self.file.read_text(encoding="utf-8").splitlines() or [""])[0]
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "not UTF-8"
                raise ConfigError(f"{what}: {place} cannot be read ({why}): write the secret there") from None
        if not found.strip():
            raise ConfigError(f"{what}: {place} is empty: write the secret there")
        return found.strip()


class MqttSettings(LineConfig):
    """The broker to which states, results, alarms and counts go."""

    host: str = Field(min_length=1)
    """Name or address of the broker."""
    port: int = Port
    """0: 1883, or 8883 with `tls`."""
    site: str = Field("site", min_length=1)
    """Name of the plant, second part of all topics."""
    user: str = ""
    """User at the broker; empty: none."""
    password: SecretSettings | None = None
    """Its password: `{ file = "PATH" }` or `{ env = "NAME" }`."""
    tls: bool = False
    """Encrypt, and check the certificate of the broker."""
    ca_file: Path | None = None
    """Certificates of authorities (PEM) that may have signed that of the broker; by default those of the system."""
    certificate_file: Path | None = None
    """Certificate of this line (PEM), with its key in the same file or in `key_file`."""
    key_file: Path | None = None
    """Key of that certificate, without passphrase."""
    commands: bool = False
    """Obey commands: everyone who may write the topics `.../cmd/...` at the broker triggers parts and changes recipes."""
    keepalive_s: int = Field(30, ge=1, le=3600, strict=True)
    """Longest silence of a connection in seconds; after half as long again the broker says that the line is gone."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.password and not self.user:
            raise ValueError("password needs user: add it")
        if self.key_file and not self.certificate_file:
            raise ValueError("key_file needs certificate_file: add it")
        if (self.ca_file or self.certificate_file) and not self.tls:
            raise ValueError("certificates need tls = true: add it")
        return self

    @property
    def port_used(self) -> int:
        """The port, chosen by `tls` where none is given."""
        return self.port or (8883 if self.tls else 1883)


class WebhookSettings(LineConfig):
    """A program that gets results and alarms by HTTP POST."""

    name: str
    """Unique; letters, digits, `-` and `_`, at most 40."""
    url: str
    """`http://` or `https://`."""
    secret: SecretSettings | None = None
    """Key of the signature: `{ file = "PATH" }` or `{ env = "NAME" }`; without it requests are not signed."""
    results: bool = True
    """Send every verdict."""
    alarms: bool = True
    """Send every change of an alarm or a stop."""
    ca_file: Path | None = None
    """Certificates of authorities (PEM) that may have signed that of the receiver; by default those of the system."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise ValueError("has to be 1 to 40 letters a-z, digits, - and _, the first a letter or digit")
        return name

    @model_validator(
        mode="after"
    )  # of the whole, so that no message repeats an address, which may hold secrets
    def _is_an_address(self) -> Self:
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            raise ValueError("url has no valid port: correct it") from None
        if not known or not self.url.isprintable() or " " in self.url:
            raise ValueError("url has to be an address like https://mes.plant/andon: correct it")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url must not hold a password: use secret")
        return self

    @model_validator(mode="after")
    def _sends(self) -> Self:
        if not self.results and not self.alarms:
            raise ValueError("sends neither results nor alarms: set one to true")
        return self


class EmailSettings(LineConfig):
    """The mail server by which alarms and reports go to people."""

    host: str = Field(min_length=1)
    """Name or address of the server (SMTP)."""
    port: int = Port
    """0: 587 with `starttls`, 465 with `tls`, 25 with `none`."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted; the certificate of the server is checked."""
    ca_file: Path | None = None
    """Certificates of authorities (PEM) that may have signed that of the server; by default those of the system."""
    user: str = ""
    """User at the server; empty: none."""
    password: SecretSettings | None = None
    """Its password: `{ file = "PATH" }` or `{ env = "NAME" }`."""
    sender: str
    """Address of the line."""
    to: tuple[str, ...] = Field(min_length=1)
    """Addresses of those who get alarms and reports."""
    alarms: Literal["all", "stops", "none"] = "all"
    """Which alarms are sent when they are raised, and again at each time of escalation."""
    shift_report: bool = False
    """Send the report of each station when a shift ends: at 6, 14 and 22 o'clock, local time."""

    @field_validator("sender", "to")
    @classmethod
    def _are_addresses(cls, found: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for address in (found,) if isinstance(found, str) else found:
            if not re.fullmatch(r"[^@\s,;<>\"]+@[^@\s,;<>\"]+", address) or not address.isascii():
                raise ValueError(f"{address!r} is not a mail address")
        return found

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if bool(self.password) != bool(self.user):
            raise ValueError("user and password go together: add the other")
        if self.user and self.security == "none":
            raise ValueError("a password is not sent without encryption: set security to starttls or tls")
        return self

    @property
    def port_used(self) -> int:
        """The port, chosen by `security` where none is given."""
        return self.port or MAIL_PORTS[self.security]


def read_tables(values: dict[str, Any], file: Path) -> None:
    """Replace the tables `mqtt`, `webhooks` and `email` of a TOML file by settings. Raises `ConfigError`."""
    join = _joiner(file)
    if "mqtt" in values:
        where = f"{file}, [mqtt]"
        values["mqtt"] = MqttSettings.parse(join(values["mqtt"], where), where=where)
    if "email" in values:
        where = f"{file}, [email]"
        values["email"] = EmailSettings.parse(join(values["email"], where), where=where)
    if "webhooks" in values:
        values["webhooks"] = tuple(
            WebhookSettings.parse(join(each, where), where=where)
            for each, where in _numbered(values["webhooks"], file)
        )
        twice = first_twice(webhook.name.lower() for webhook in values["webhooks"])
        if twice:
            raise ConfigError(f"two webhooks are named {twice!r} in {file}: rename one (case does not count)")


def _numbered(tables: object, file: Path) -> list[tuple[object, str]]:
    if not isinstance(tables, list):
        raise ConfigError(f"{file}: webhooks has to be tables, one [[webhooks]] for each")
    return [(each, f"{file}, webhook {i}") for i, each in enumerate(tables, start=1)]


def _joiner(file: Path) -> Callable[[object, str], dict[str, Any]]:
    """A function that copies a table: paths become relative to the folder of `file`, secrets their settings."""

    def join(values: object, where: str) -> dict[str, Any]:
        found = table(values, where)
        for name in found:
            if name.endswith("_file"):
                found[name] = joined(file, found[name])
            elif name in ("password", "secret"):
                found[name] = _secret(found[name], f"{where}, {name}", file)
        return found

    return join


def _secret(values: object, where: str, file: Path) -> SecretSettings:
    if not isinstance(values, Mapping):  # it may be the secret itself, which must not be shown
        raise ConfigError(
            f'{where}: secrets do not stand in settings; use {{ file = "PATH" }} or {{ env = "NAME" }}'
        )
    return SecretSettings.parse(
        {**values, **({"file": joined(file, values["file"])} if "file" in values else {})}, where=where
    )
