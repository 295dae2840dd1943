"""Builds the control plane for tests, once, and keeps it outside the tree.

The version of Kubernetes is the one that `go.mod` requires. Another one is built from
a copy of the module that is pinned anew, so the tree is never touched.
"""

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULE = Path(__file__).parent
SOURCES = ("*.go", "go.mod", "go.sum", "kwok/go.mod", "kwok/go.sum")
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
KUBERNETES = "k8s.io/kubernetes"
KWOK = "sigs.k8s.io/kwok/cmd/kwok"

Say = Callable[[str], None]


class UnavailableError(Exception):
    """The control plane cannot be built here; the message is the one reason."""


@dataclass(frozen=True)
class Binaries:
    """Where the programs are. Links with the components' names lie beside them."""

    version: str
    directory: Path

    @property
    def controlplane(self) -> Path:
        return self.directory / "controlplane"

    @property
    def kwok(self) -> Path:
        return self.directory / "kwok"

    @property
    def kubectl(self) -> Path:
        return self.directory / "kubectl"


def ensure(version: str | None = None, say: Say = lambda _: None) -> Binaries:
    """The programs of this version (default: the pinned one), built if need be."""
    wanted = version or pinned_version()
    if not re.fullmatch(r"\d+\.\d+\.\d+", wanted):
        raise ValueError(f"{wanted!r} is no version of Kubernetes, as in 1.36.3")
    toolchain = go_toolchain()
    directory = cache_home() / build_key(wanted, toolchain)
    binaries = Binaries(wanted, directory)
    if directory.is_dir():
        return binaries
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory.parent / f"{directory.name}.lock", say):
        if not directory.is_dir():
            _build(wanted, directory, say)
    return binaries


def pinned_version() -> str:
    """The version of Kubernetes that the tests run on unless told otherwise."""
    return _found(rf"^\s*{KUBERNETES} v(\S+)$", (MODULE / "go.mod").read_text())


def cache_home() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "gpu-fairshare" / "controlplane"


def go_toolchain() -> str:
    """The version of Go, as in 1.26.8; raises UnavailableError where it does not do."""
    if shutil.which("go") is None:
        raise UnavailableError(
            "the control plane is built from source and go is missing"
        )
    present = _go("env", "GOVERSION", cwd=MODULE.parent).strip().removeprefix("go")
    wanted = _found(r"^go (\S+)$", (MODULE / "go.mod").read_text())
    if _numbers(present) < _numbers(wanted):
        raise UnavailableError(
            f"the control plane needs go {wanted}, this is {present}"
        )
    return present


def build_key(version: str, toolchain: str) -> str:
    """Names a build by all that goes into it."""
    digest = hashlib.sha256(toolchain.encode())
    for path in (path for pattern in SOURCES for path in sorted(MODULE.glob(pattern))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{version}-{digest.hexdigest()[:12]}"


def pin(version: str, module: Path) -> None:
    """Make a module require this version of Kubernetes, staging modules and all."""
    known = _go("mod", "download", "-json", f"{KUBERNETES}@v{version}", cwd=module)
    upstream = Path(json.loads(known)["GoMod"]).read_text()
    staging = sorted(set(re.findall(r"(\S+) => \./staging/", upstream)))
    toolchain = _found(r"^go (\S+)$", upstream)
    (module / "go.mod").write_text(
        f"module fairshare.dev/controlplane\n\ngo {toolchain}\n"
    )
    minor = version.partition(".")[2]
    replaced = [f"-replace={name}={name}@v0.{minor}" for name in staging]
    _go("mod", "edit", f"-require={KUBERNETES}@v{version}", *replaced, cwd=module)
    _go("mod", "tidy", cwd=module)


def _build(version: str, directory: Path, say: Say) -> None:
    say(f"building Kubernetes {version} for the tests, once; it takes some minutes")
    scratch = Path(tempfile.mkdtemp(prefix="build-", dir=directory.parent))
    try:
        built = scratch / "built"
        built.mkdir()
        module = _module(version, scratch, say)
        _compile("controlplane", ".", built, module, _version_flags(version), say)
        _compile("kwok", KWOK, built, module / "kwok", "-s -w", say)
        for name in (*COMPONENTS, "kubectl"):
            (built / name).symlink_to("controlplane")
        built.rename(directory)
    finally:
        shutil.rmtree(scratch)


def _module(version: str, scratch: Path, say: Say) -> Path:
    """The module to build in: the tree's own, or a copy pinned to another version."""
    if version == pinned_version():
        return MODULE
    say(f"pinning a copy of the module to Kubernetes {version}")
    copy = scratch / "module"
    shutil.copytree(MODULE, copy, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    pin(version, copy)
    return copy


def _compile(
    name: str, package: str, built: Path, module: Path, flags: str, say: Say
) -> None:
    started = time.monotonic()
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags]
    with (built.parent / f"{name}.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "-o", str(built / name), package],
            cwd=module,
            env=_environment(),
            stdout=log,
            stderr=log,
        )
        try:
            while _still_running(process, 30):
                say(f"  {name}: {time.monotonic() - started:.0f} s")
        finally:
            process.kill()
        log.seek(0)
        if process.returncode:
            raise RuntimeError(f"{name} does not build:\n{log.read()}")
    say(f"built {name} in {time.monotonic() - started:.0f} s")


def _still_running(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _version_flags(version: str) -> str:
    # Without these the server calls itself v0.0.0-master, which kubectl refuses.
    major, minor, _ = version.split(".", 2)
    stamp = "-X k8s.io/component-base/version."
    return (
        f"-s -w {stamp}gitVersion=v{version}"
        f" {stamp}gitMajor={major} {stamp}gitMinor={minor}"
    )


def _go(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [shutil.which("go") or "go", *arguments],
        cwd=cwd,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"go {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _environment() -> dict[str, str]:
    # The toolchain that is there: nothing is fetched but modules.
    fixed = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    return {**os.environ, **fixed}


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that builds the same")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"nothing like {pattern} in go.mod")
    return match[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the control plane for tests.")
    parser.add_argument("--version", default=os.environ.get("K8S") or None)
    parser.add_argument("--pin", metavar="VERSION", help="pin the tree to it, no build")
    parser.add_argument("--remove", action="store_true", help="remove what was built")
    options = parser.parse_args()
    if options.pin:
        pin(options.pin, MODULE)
    elif options.remove:
        shutil.rmtree(cache_home(), ignore_errors=True)
    else:
        _print(str(ensure(options.version, _print).directory))


if __name__ == "__main__":
    main()
