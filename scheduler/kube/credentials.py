"""Where the API server is, and who we are to it.

Hidden here: the kubernetes package, which reads kubeconfig files, runs the programs
they name for a token, and knows where a pod finds its service account. It is imported
only when somebody connects: that takes 0.2 s. Nothing else of that package is used.
"""

import asyncio
import datetime
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.config import ConfigError

if TYPE_CHECKING:
    from kubernetes.aio.client import Configuration

RENEW_S = 60.0
"""Age at which tokens are read again, seconds; programs are asked when theirs end."""

REFUSED_RENEW_S = 1.0
"""The same when the server has refused them: calls in flight are refused together."""

_NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)

log = logging.getLogger(__name__)

Renew = Callable[["Configuration", bool], Awaitable[None]]


class Credentials:
    """An address with the proofs it asks for, kept fresh.

    Parameters
    ----------
    configuration
        What was read, as the kubernetes package has it.
    renew
        Reads it again; told whether the server refused what we have.
    """

    def __init__(self, configuration: "Configuration", renew: Renew) -> None:
        self._configuration = configuration
        self._renew = renew
        self._read_at = time.monotonic()
        self._refused = False
        self._renewing = asyncio.Lock()
        self.address: str = configuration.host.rstrip("/")
        self.proxy: str | None = configuration.proxy
        self.server_name: str | None = configuration.tls_server_name
        self.tls = _tls(configuration) if self.address.startswith("https:") else None

    async def authorization(self) -> str | None:
        """Return the Authorization header, read anew when it is due."""
        if self._due():
            async with self._renewing:
                if self._due():
                    await self._read_again()
        key = self._configuration.api_key.get("BearerToken")
        # A token file may end with a newline, which no header may hold.
        return " ".join(key.split()) if key else None

    def refused(self) -> None:
        """Read everything anew before the next call: the server did not know us."""
        self._refused = True

    def _due(self) -> bool:
        longest = REFUSED_RENEW_S if self._refused else RENEW_S
        return time.monotonic() - self._read_at >= longest

    async def _read_again(self) -> None:
        """Keep what we have where it cannot be read: it may still be good."""
        from kubernetes.aio.config import ConfigException

        refused, self._refused = self._refused, False
        self._read_at = time.monotonic()
        try:
            await self._renew(self._configuration, refused)
            if self.tls is not None:
                _show_certificate(self.tls, self._configuration)
        except (ConfigException, OSError, ValueError) as error:
            log.warning("cannot renew the Kubernetes credentials: %s", error)


async def load_credentials(kubeconfig: Path | None, context: str | None) -> Credentials:
    """Read who we are.

    Parameters
    ----------
    kubeconfig
        File to read. None: the service account when we run in a pod, else what
        kubectl would read.
    context
        Context of the kubeconfig; None: its current one.

    Raises
    ------
    ConfigError
        When it cannot be read or used.
    """
    from kubernetes.aio.config import ConfigException

    try:
        if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return await _from_service_account()
        return await _from_kubeconfig(kubeconfig, context)
    except (ConfigException, OSError, ValueError) as error:
        source = f"kubeconfig {kubeconfig}" if kubeconfig else "Kubernetes credentials"
        raise ConfigError(f"{source}: {error}") from error


async def _from_service_account() -> Credentials:
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import load_incluster_config

    async def renew(configuration: "Configuration", _: bool) -> None:
        load_incluster_config(configuration)  # type: ignore[no-untyped-call]

    configuration = Configuration()
    await renew(configuration, False)
    return Credentials(configuration, renew)


async def _from_kubeconfig(path: Path | None, context: str | None) -> Credentials:
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import load_kube_config

    if path is not None and not path.is_file():
        raise FileNotFoundError("no such file")
    configuration = Configuration()
    # Nothing is written back: a kubeconfig may be shared, or mounted read-only.
    loader = await load_kube_config(  # type: ignore[no-untyped-call]
        config_file=None if path is None else str(path),
        context=context,
        client_configuration=configuration,
        persist_config=False,
    )

    async def renew(configuration: "Configuration", refused: bool) -> None:
        # What a program gave without a date is good until the server refuses it.
        if refused:
            vars(loader).pop("exec_plugin_expiry", None)
        elif not hasattr(loader, "exec_plugin_expiry"):
            loader.exec_plugin_expiry = _NEVER
        await loader.load_and_set(configuration)

    return Credentials(configuration, renew)


def _tls(configuration: "Configuration") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Python 3.13 asks CA certificates for extensions that many clusters' lack.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _show_certificate(context, configuration)
    return context


def _show_certificate(context: ssl.SSLContext, configuration: "Configuration") -> None:
    """Let new connections show our certificate, if we have one."""
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
