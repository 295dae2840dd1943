"""What is said about the control plane where it cannot be built, or is built anew."""

from pathlib import Path

import pytest

from tests.controlplane import build


def stub_go(directory: Path, version: str) -> None:
    """A `go` that says it is of this version."""
    program = directory / "go"
    program.write_text(f"#!/bin/sh\necho go{version}\n")
    program.chmod(0o755)


def test_a_missing_go_is_one_clear_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.UnavailableError, match="go is missing"):
        build.ensure()


def test_an_old_go_is_one_clear_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub_go(tmp_path, "1.24.13")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(build.UnavailableError, match=r"this is 1\.24\.13"):
        build.ensure()


def test_what_is_built_stays_outside_the_tree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub_go(tmp_path, "1.99.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    key = build.build_key(build.pinned_version(), "1.99.0")
    built = tmp_path / "cache" / "gpu-fairshare" / "controlplane" / key
    built.mkdir(parents=True)
    assert build.ensure() == build.Binaries(build.pinned_version(), built)


def test_another_version_or_toolchain_is_another_build() -> None:
    keys = {
        build.build_key(version, toolchain)
        for version in ("1.35.4", "1.36.3")
        for toolchain in ("1.26.8", "1.26.9")
    }
    assert len(keys) == 4


def test_a_version_is_named_in_full() -> None:
    with pytest.raises(ValueError, match="is no version of Kubernetes"):
        build.ensure("1.36")
