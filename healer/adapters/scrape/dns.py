"""Exporters that the DNS names: addresses of one name, or SRV records with their ports. Through dnspython."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import dns.exception
import dns.resolver

from healer.adapters.scrape.discovery import EVERY, Found, TargetGroup
from healer.errors import Unavailable


class Record(StrEnum):
    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"


@dataclass(frozen=True, slots=True)
class DnsTargets:
    """Attributes:
    port: where the exporters listen; None for SRV records, which say so themselves.
    server: address and port of the one name server to ask; None for the system's.
    """

    domain: str
    record: Record
    port: int | None
    timeout_s: float
    server: tuple[str, int] | None = None
    every: timedelta = EVERY

    @property
    def name(self) -> str:
        return f"DNS {self.record} {self.domain}"

    def find(self) -> Found:
        try:
            answer = self._resolver().resolve(self.domain, self.record, lifetime=self.timeout_s, search=True)
        except dns.resolver.NXDOMAIN:
            raise Unavailable(self.name, "there is no such name; check telemetry.scrape.dns") from None
        except dns.exception.DNSException as error:
            text = " ".join(str(error).split())
            raise Unavailable(self.name, f"cannot be resolved: {text or type(error).__name__}") from error
        # Name servers turn their answers round; ours stays the same while the records do.
        if self.record is Record.SRV:
            hosts = sorted(f"{record.target.to_text(omit_final_dot=True)}:{record.port}" for record in answer)
        elif self.record is Record.AAAA:
            hosts = sorted(f"[{record.address}]:{self.port}" for record in answer)
        else:
            hosts = sorted(f"{record.address}:{self.port}" for record in answer)
        return Found([TargetGroup(hosts)])

    def close(self) -> None:
        """Every question has its own connection."""

    def _resolver(self) -> dns.resolver.Resolver:
        if self.server is None:
            return dns.resolver.Resolver()  # reads the system's settings, which may have changed
        resolver = dns.resolver.Resolver(configure=False)
        address, port = self.server
        resolver.nameservers, resolver.port = [address], port
        return resolver
