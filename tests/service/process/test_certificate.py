"""The certificate of a server: what its files may hold, and its renewal while it is in use."""

import logging
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.certificates import Certificate, make_certificate
from upscaled.process.certificate import (
    CertificateFiles,
    CertificateUnusable,
    ServerCertificate,
    find_files,
    read_end_s,
)

DAY_S = 86_400


@pytest.fixture
def made(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


def files_of(made: Certificate) -> CertificateFiles:
    return CertificateFiles(made.certificate, made.key)


def make_next(folder: Path) -> Certificate:
    folder.mkdir()
    return make_certificate(folder)


def encrypt(key: Path) -> None:
    encrypted = subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret"],
        check=True,
        capture_output=True,
    )
    key.write_bytes(encrypted.stdout)


def replace_by(file: Path, make: Callable[[Path], None]) -> None:
    file.unlink()
    make(file)


def link_to_zeros(file: Path) -> None:
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("spoil", "setting", "reason"),
    [
        (lambda made: made.certificate.unlink(), "CERT", "No such file or directory"),
        (lambda made: made.key.unlink(), "KEY", "No such file or directory"),
        (lambda made: replace_by(made.key, os.mkfifo), "KEY", "is no regular file"),
        (lambda made: replace_by(made.certificate, link_to_zeros), "CERT", "is no regular file"),
        (lambda made: made.certificate.write_text("x"), "CERT", "holds no certificate in PEM"),
        (lambda made: made.key.write_text("x"), "KEY", "holds no private key in PEM"),
        (lambda made: shutil.copy(made.key, made.certificate), "CERT", "holds no certificate"),
        (lambda made: encrypt(made.key), "KEY", "is encrypted"),
        (
            lambda made: made.certificate.write_text(
                "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
            ),
            "CERT",
            "cannot be used",
        ),
        (
            lambda made: shutil.copy(make_next(made.key.parent / "next").key, made.key),
            "CERT",
            "the key is another certificate's",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named_with_their_setting(
    made: Certificate, spoil: Callable[[Certificate], object], setting: str, reason: str
) -> None:
    spoil(made)
    with pytest.raises(CertificateUnusable, match=f"^UPSCALED_TLS_{setting}=/.*{reason}"):
        files_of(made).load()


def test_a_file_that_may_not_be_read_is_named(made: Certificate) -> None:
    if os.geteuid() == 0:
        made.key.unlink()
        made.key.mkdir()
        reason = "Is a directory"
    else:
        made.key.chmod(0)
        reason = "Permission denied"
    with pytest.raises(CertificateUnusable, match=f"UPSCALED_TLS_KEY=.*{reason}"):
        files_of(made).load()


def test_one_of_the_two_settings_alone_is_refused() -> None:
    assert find_files("", "") is None
    assert find_files("a", "b") == CertificateFiles(Path("a"), Path("b"))
    with pytest.raises(CertificateUnusable, match="TLS_CERT is set without UPSCALED_TLS_KEY"):
        find_files("a", "")
    with pytest.raises(CertificateUnusable, match="TLS_KEY is set without UPSCALED_TLS_CERT"):
        find_files("", "b")


def test_files_that_are_unchanged_are_not_loaded_again(made: Certificate) -> None:
    certificate = ServerCertificate(files_of(made))
    context = certificate.context
    certificate.reload_if_changed()
    assert certificate.context is context


def test_a_renewal_is_loaded_once_both_files_are_there(
    made: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    certificate = ServerCertificate(files_of(made))
    context = certificate.context
    renewed = make_next(tmp_path / "next")
    renewed.certificate.replace(made.certificate)
    certificate.reload_if_changed()
    certificate.reload_if_changed()  # logged once
    assert certificate.context is context
    renewed.key.replace(made.key)
    certificate.reload_if_changed()
    assert certificate.context is not context
    events = [vars(each)["event"] for each in caplog.records]
    assert events == ["tls_unusable", "tls_renewed"]
    assert "the key is another certificate's" in caplog.text


def test_the_last_certificate_is_kept_while_a_file_is_missing(
    made: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = ServerCertificate(files_of(made))
    context = certificate.context
    aside = made.key.rename(tmp_path / "aside")
    certificate.reload_if_changed()
    assert certificate.context is context
    assert "No such file" in caplog.text
    aside.rename(made.key)
    certificate.reload_if_changed()
    assert certificate.context is not context


def test_the_last_certificate_is_kept_where_a_file_is_deleted_during_loading(
    made: Certificate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = ServerCertificate(files_of(made))
    context = certificate.context
    made.certificate.touch()

    def check(_files: CertificateFiles, _setting: str, file: Path, *_what: object) -> None:
        file.unlink()  # it was read a moment ago

    monkeypatch.setattr(CertificateFiles, "_check", check)
    certificate.reload_if_changed()
    assert certificate.context is context
    assert "No such file" in caplog.text


def test_a_link_that_leads_elsewhere_is_a_renewal(made: Certificate, tmp_path: Path) -> None:
    """certbot and Kubernetes replace links."""
    renewed = make_next(tmp_path / "next")
    link = tmp_path / "live"
    link.symlink_to(tmp_path)
    certificate = ServerCertificate(
        CertificateFiles(link / made.certificate.name, link / made.key.name)
    )
    context = certificate.context
    (tmp_path / "new").symlink_to(renewed.key.parent)
    (tmp_path / "new").replace(link)
    certificate.reload_if_changed()
    assert certificate.context is not context


@pytest.mark.parametrize("days", [1, 400])
def test_the_end_of_a_certificate_is_read(tmp_path: Path, days: int) -> None:
    made = make_certificate(tmp_path, days=days)
    assert read_end_s(files_of(made)) == pytest.approx(time.time() + days * DAY_S, abs=600)


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, days=-1)
    with pytest.raises(ssl.SSLCertVerificationError, match="has expired"):
        read_end_s(files_of(made))
